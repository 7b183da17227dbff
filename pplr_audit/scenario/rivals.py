"""The strategies that a run trains beside its own, on the same samples with the same seed, to be compared with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from pydantic import ValidationError

from pplr_audit.scenario import plugins

SETTINGS = ("similarity", "alpha", "beta", "tau", "ablate", "averaging", "proximal")
"""Settings that a rival may have of its own; all else, its budget above all, is as the scenario says."""


class Training(Protocol):
    """A scenario's training section, which asks here whether its rivals fit."""

    @property
    def rivals(self) -> Sequence[str | Mapping[str, Mapping[str, Any]]] | None: ...
    @property
    def label(self) -> str: ...
    def as_rival_of(self, own: Self) -> Self: ...
    def model_dump(self, *, exclude: set[str]) -> dict[str, Any]: ...
    @classmethod
    def model_validate(cls, obj: Any) -> Self: ...


T = TypeVar("T", bound=Training)


def trainings(training: T) -> list[T]:
    """The training section of each rival. `conflicts` says what can be wrong with them."""
    return [_training(training, *plugins.name_and_settings(entry)) for entry in training.rivals or ()]


def ablation(strategy: str, ablate: Sequence[str] | None) -> str | None:
    """Return the fault in switching these terms off, or None."""
    if ablate and strategy != "pplr":
        return f"switches off terms of pplr, but the strategy is {strategy}"
    if ablate and "balance" in ablate and len(ablate) > 1:
        return "balance switches off all terms, so no other term can be given beside it"
    return None


def conflicts(training: Training) -> Iterator[tuple[str, str]]:
    """Field and message of what is wrong with the rivals of a training, taken each by itself and together."""
    for place, entry in enumerate(training.rivals or ()):
        field = f"training.rivals.{place}"
        name, settings = plugins.name_and_settings(entry)
        wrong = [setting for setting in settings if setting not in SETTINGS]
        if wrong:
            yield field, plugins.unknown(f"{name}: unknown setting {wrong[0]!r}", wrong[0], SETTINGS)
            return
        unfit = ablation(name, settings.get("ablate"))
        if unfit:
            yield field, f"{name}: ablate {unfit}"
            return
        try:
            _training(training, name, settings)
        except ValidationError as error:
            first = error.errors()[0]
            yield field, f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            return
    labels = [training.label, *(each.label for each in trainings(training))]
    twice = next((label for place, label in enumerate(labels) if label in labels[:place]), None)
    if twice is not None:
        yield (
            "training.rivals",
            f"two trainings are {twice}; two of one strategy need different settings ({', '.join(SETTINGS)})",
        )


def _training(training: T, name: str, settings: Mapping[str, Any]) -> T:
    own = training.model_dump(exclude={"rivals", "strategy", "ablate"})
    return training.model_validate({**own, "strategy": name, **settings}).as_rival_of(training)

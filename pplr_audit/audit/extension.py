"""Extensions of a run beyond its scenario: more attacks, more cuts. The run's manifest keeps them.

A run's cells are those of its scenario and of its extensions, in the order in which they were asked for. So whoever
continues the run does all of them, and the scenario, by which the run is known, stays what it was.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pplr_audit.runs.parsing import understood
from pplr_audit.runs.store import MANIFEST, Store
from pplr_audit.scenario.schema import Audit, Cuts, Named, Section

T = TypeVar("T")
_FIELD = "extensions"


class Extension(Section):
    """These attacks at these cuts; what is None is all that the run had before."""

    attacks: tuple[Named, ...] | None = None
    cuts: Cuts | None = None


@dataclass(frozen=True)
class AttacksAtCuts:
    """Attacks at cuts, and the fields or flags that messages about them name."""

    attacks: tuple[Named, ...]
    cuts: Cuts
    attack_field: str = "--attack"
    cut_field: str = "--cut"


def recorded(store: Store) -> tuple[Extension, ...]:
    """The extensions of a run, the oldest first. Raises InputError where the manifest's are none."""
    entries = store.manifest.get(_FIELD, ())
    with understood(store.root / MANIFEST):
        return tuple(Extension.model_validate(entry) for entry in entries)


def record(store: Store, extensions: Sequence[Extension]) -> None:
    """Make them the extensions of the run, for whoever continues it."""
    store.update_manifest(**{_FIELD: [extension.model_dump(mode="json") for extension in extensions]})


def attacks_at_cuts(audit: Audit, extensions: Sequence[Extension]) -> list[AttacksAtCuts]:
    """The scenario's attacks at its cuts, then each extension's."""
    found = [AttacksAtCuts(audit.attacks, audit.cuts, "audit.attacks", "audit.cuts")]
    for extension in extensions:
        attacks = extension.attacks or distinct_settings(attack for each in found for attack in each.attacks)
        cuts = distinct_settings(each.cuts for each in found) if extension.cuts is None else (extension.cuts,)
        found += [AttacksAtCuts(attacks, each) for each in cuts]
    return found


def distinct_settings(values: Iterable[T]) -> tuple[T, ...]:
    """Drop repeats and keep the order of first appearance; settings cannot be hashed."""
    found: list[T] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found)

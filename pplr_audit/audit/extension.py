"""What a run is asked: its scenario, and extensions of it by more attacks and more cuts.

The cells of the report are those of both, in the order in which they were asked for. Whoever continues the run does
all of them. A scenario that asks something else takes the place of both; cells of the former question stay on disk.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pplr_audit.errors import InputError
from pplr_audit.runs.parsing import understood
from pplr_audit.runs.store import MANIFEST, SCENARIO, Store
from pplr_audit.scenario.loading import dump, from_text
from pplr_audit.scenario.schema import Audit, Cuts, Named, Scenario, Section

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


def of_run(root: Path, scenario: Scenario, extending: bool) -> tuple[Extension, ...]:
    """The extensions that a run in ``root`` has, the oldest first; none where it asks something else from now on.

    Args:
        extending: the scenario's audit is the run's own, changed in a few fields; what was added to it stays.

    Raises:
        InputError: the manifest's are none.
    """
    if not (root / MANIFEST).exists():
        return ()
    with Store.load(root) as store:
        if not extending and before(store).audit != scenario.audit:
            return ()
        entries = store.manifest.get(_FIELD, ())
        with understood(store.root / MANIFEST):
            return tuple(Extension.model_validate(entry) for entry in entries)


def before(store: Store) -> Scenario:
    """What the run was asked last. Raises InputError for a damaged file."""
    return from_text(store.read_text(SCENARIO), str(store.root / SCENARIO))


@contextmanager
def asked(store: Store, scenario: Scenario, extensions: Sequence[Extension]) -> Iterator[None]:
    """Make these what the run is asked, for whoever continues it; what is refused within the block is asked no more."""
    entries = [extension.model_dump(mode="json") for extension in extensions]
    had, text = [*store.manifest.get(_FIELD, ())], store.read_text(SCENARIO)
    _record(store, dump(scenario), entries)
    try:
        yield
    except InputError:
        _record(store, text, had)
        raise


def _record(store: Store, text: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write what the run is asked; a run that is asked the same is not written to."""
    if [*entries] != [*store.manifest.get(_FIELD, ())]:
        store.update_manifest(**{_FIELD: [*entries]})
    if text != store.read_text(SCENARIO):
        store.write_text(SCENARIO, text)
        store.event("asked_anew")


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

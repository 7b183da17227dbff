"""What was asked of a run beyond its scenario: more attacks, more cuts. It is kept in the run's manifest.

A run's cells are those of its scenario and of its extensions, in the order in which they were asked for. So whoever
continues the run does all of them, and the scenario, by which the run is known, stays what it was.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pplr_audit.errors import InputError, visible
from pplr_audit.runs.parsing import understood
from pplr_audit.runs.store import MANIFEST, Store
from pplr_audit.scenario import plugins
from pplr_audit.scenario.schema import Audit, Cuts, Named, Section
from pplr_audit.scenario.yaml_reader import parse

T = TypeVar("T")
_FIELD = "extensions"
_CUT = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*")


class Extension(Section):
    """These attacks at these cuts; what is None is all that the run had before."""

    attacks: tuple[Named, ...] | None = None
    cuts: Cuts | None = None


@dataclass(frozen=True)
class Ask:
    """Attacks at cuts, and the fields or flags that messages about them name."""

    attacks: tuple[Named, ...]
    cuts: Cuts
    attack_field: str = "--attack"
    cut_field: str = "--cut"


def from_options(attacks: Sequence[str], cuts: Sequence[str]) -> Extension | None:
    """What ``--attack NAME`` or ``--attack 'NAME={setting: value}'`` and ``--cut FRONT,BACK`` (or ``all``) ask for.

    Raises:
        InputError: names the option, what is wrong, and what is accepted.
    """
    if not attacks and not cuts:
        return None
    return Extension(attacks=_unique(map(_named, attacks)) or None, cuts=_cuts(cuts) if cuts else None)


def recorded(store: Store) -> tuple[Extension, ...]:
    """The extensions of a run, the oldest first. Raises InputError where the manifest's are none."""
    entries = store.manifest.get(_FIELD, ())
    with understood(store.root / MANIFEST):
        return tuple(Extension.model_validate(entry) for entry in entries)


def record(store: Store, extensions: Sequence[Extension]) -> None:
    """Make them the extensions of the run, for whoever continues it."""
    store.update_manifest(**{_FIELD: [extension.model_dump(mode="json") for extension in extensions]})


def asks(audit: Audit, extensions: Sequence[Extension]) -> list[Ask]:
    """The scenario's attacks at its cuts, then each extension's."""
    found = [Ask(audit.attacks, audit.cuts, "audit.attacks", "audit.cuts")]
    for extension in extensions:
        attacks = extension.attacks or _unique(attack for ask in found for attack in ask.attacks)
        cuts = _unique(ask.cuts for ask in found) if extension.cuts is None else (extension.cuts,)
        found += [Ask(attacks, each) for each in cuts]
    return found


def _named(text: str) -> Named:
    shown = f"--attack {visible(text)}"
    name, equals, settings = text.partition("=")
    name = name.strip()
    refused = plugins.refusal("attacks", name, shown)
    if refused is not None:
        raise InputError(refused)
    if not equals:
        return name
    values = parse(settings, shown).values
    if not isinstance(values, dict):
        raise InputError(
            f"{shown}: not of the form NAME={{setting: value}} (example: --attack 'ridge={{prompts: 64}}')"
        )
    return {name: values} if values else name


def _cuts(texts: Sequence[str]) -> Cuts:
    if [text.strip() for text in texts] == ["all"]:
        return "all"
    pairs = []
    for text in texts:
        match = _CUT.fullmatch(text)
        if match is None:
            raise InputError(
                f"--cut {visible(text)}: not of the form FRONT,BACK (example: --cut 2,1 for two blocks in front and "
                "one behind; or a single --cut all)"
            )
        pairs.append((int(match[1]), int(match[2])))
    return _unique(pairs)


def _unique(values: Iterable[T]) -> tuple[T, ...]:
    """In the order of their first appearance; settings cannot be hashed."""
    found: list[T] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found)

"""Entries of ``defenses``: a defense, or several composed; their names, and what is wrong with them by name alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pplr_audit.scenario.plugins import name_and_settings

Entry = str | Mapping[str, Mapping[str, Any]]
"""One defense: a name, or ``{name: {setting: value}}``."""
Composition = Entry | Sequence[Entry]
"""One defense, or several that are in force together."""
NONE = "none"
"""The name that stands for no defense."""


def flat(entry: Composition) -> list[Entry]:
    """Return the defenses of an entry, one by one."""
    return [entry] if isinstance(entry, str | Mapping) else list(entry)


def canonical(entry: Composition) -> str:
    """Return the one name of an entry, which findings and folders have: settings in alphabetical order.

    >>> canonical([{"dp_sgd": {"epsilon": 8.0, "delta": 1e-5}}, "quantize"])
    'dp_sgd(delta=1e-05,epsilon=8)+quantize'
    >>> canonical(["none"])
    'none'
    """
    return "+".join(_called(*name_and_settings(each)) for each in flat(entry))


def _called(name: str, settings: Mapping[str, Any]) -> str:
    told = ",".join(f"{setting}={_spelled(settings[setting])}" for setting in sorted(settings))
    return f"{name}({told})" if told else name


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def conflict(entry: Composition) -> str | None:
    """Return what is wrong with the names of an entry, or None."""
    names = [name_and_settings(each)[0] for each in flat(entry)]
    if NONE in names and len(names) > 1:
        return "none is no defense and cannot be composed with others"
    if NONE in names and name_and_settings(flat(entry)[0])[1]:
        return "none takes no settings"
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    return None if twice is None else f"{twice} stands twice in one composition"


def conflicts(entries: Sequence[Composition]) -> Iterator[tuple[str, str]]:
    """Field and message of what is wrong with the entries of ``defenses``, taken each by itself and together."""
    names: list[str] = []
    for place, entry in enumerate(entries):
        wrong, name = conflict(entry), canonical(entry)
        if wrong is not None:
            yield f"defenses.{place}", wrong
        elif name in names:
            yield f"defenses.{place}", f"{name} stands there twice"
        names.append(name)

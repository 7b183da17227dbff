"""Names of strategies that earlier versions spelled otherwise: still accepted, and still what is hashed.

A run is known by a hash of its scenario, and a training's folder is called after one. Both were made with the old
names, so they are made with them for ever: the same scenario has the same hash in all versions.
"""

from collections.abc import Iterator, Mapping
from typing import Any

STRATEGIES = {"centralised": "centralized"}  # an old name, and today's
_OLD = {today: old for old, today in STRATEGIES.items()}
_ROWS = ("strategy", "against")
"""Fields of a document's rows that hold a label: a strategy's name, and what tells it from others of the name."""


def accepted(value: Any) -> Any:
    """Return what ``training.strategy`` or ``training.rivals`` says in today's names; other values as they are."""
    return _exchanged(value, STRATEGIES)


def hashed(values: dict[str, Any]) -> dict[str, Any]:
    """Return a dumped scenario with the names that went into hashes from the first version on."""
    training = values.get("training", {})
    told = {name: _exchanged(training[name], _OLD) for name in ("strategy", "rivals") if name in training}
    return {**values, "training": {**training, **told}} if told else values


def met(training: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Place and name of each old name in a training section as a file states it."""
    if isinstance(training, Mapping):
        rivals = training.get("rivals")
        places: list[tuple[tuple[str | int, ...], Any]] = [(("strategy",), training.get("strategy"))]
        places += [(("rivals", at), each) for at, each in enumerate(rivals if isinstance(rivals, list) else ())]
        for loc, entry in places:
            names = entry if isinstance(entry, Mapping) else (entry,)
            yield from ((loc, name) for name in names if isinstance(name, str) and name in STRATEGIES)


def label(text: str) -> str:
    """Return the label of a training in today's names.

    >>> label("pplr without speed")
    'pplr without speed'
    """
    name, space, rest = text.partition(" ")
    return f"{STRATEGIES.get(name, name)}{space}{rest}"


def renamed(document: Any) -> Any:
    """Return a stored document whose rows, and plugins, name their strategies as today; all else is as it was."""
    if isinstance(document, dict):
        if isinstance(phases := document.get("seconds"), dict):  # a phase is called after what it trains
            today = {" ".join(STRATEGIES.get(word, word) for word in key.split(" ")): t for key, t in phases.items()}
            document = {**document, "seconds": today}
        named = (*_ROWS, "name") if document.get("kind") == "strategies" else _ROWS
        return {
            key: label(value) if key in named and isinstance(value, str) else renamed(value)
            for key, value in document.items()
        }
    return [renamed(each) for each in document] if isinstance(document, list) else document


def _exchanged(value: Any, names: Mapping[str, str]) -> Any:
    """A name, ``{name: settings}``, or a list of them, with other names."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping) and len(value) == 1:
        return {names.get(name, name): settings for name, settings in value.items()}
    return [_exchanged(each, names) for each in value] if isinstance(value, list | tuple) else value

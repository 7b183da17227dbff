"""Names of strategies that earlier versions spelled otherwise: still accepted in scenarios."""

from collections.abc import Iterator, Mapping
from typing import Any

STRATEGIES = {"centralised": "centralized"}  # an old name, and today's


def accepted(value: Any) -> Any:
    """Return what ``training.strategy`` or ``training.rivals`` says in today's names; other values as they are."""
    return _exchanged(value, STRATEGIES)


def met(training: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Place and name of each old name in a training section as a file states it."""
    if isinstance(training, Mapping):
        rivals = training.get("rivals")
        places: list[tuple[tuple[str | int, ...], Any]] = [(("strategy",), training.get("strategy"))]
        places += [(("rivals", at), each) for at, each in enumerate(rivals if isinstance(rivals, list) else ())]
        for loc, entry in places:
            names = entry if isinstance(entry, Mapping) else (entry,)
            yield from ((loc, name) for name in names if isinstance(name, str) and name in STRATEGIES)


def _exchanged(value: Any, names: Mapping[str, str]) -> Any:
    """A name, ``{name: settings}``, or a list of them, with other names."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping) and len(value) == 1:
        return {names.get(name, name): settings for name, settings in value.items()}
    return [_exchanged(each, names) for each in value] if isinstance(value, list | tuple) else value

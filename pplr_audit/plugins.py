"""Discovery of attacks, defences, strategies and readers by entry point, ours and a third party's alike."""

import ast
import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pplr_audit.errors import InputError

Kind = Literal["attacks", "defenses", "strategies", "readers"]


def names(kind: Kind) -> tuple[str, ...]:
    """The names that are installed, in alphabetical order; nothing is imported."""
    return tuple(sorted(point.name for point in _points(kind)))


def load(kind: Kind, name: str) -> Any:
    """Import what stands behind ``name``. Raises InputError with the nearest known name."""
    for point in _points(kind):
        if point.name == name:
            return point.load()
    raise InputError(unknown(f"{kind}: unknown name {name!r}", name, names(kind)))


def make(kind: Kind, entry: str | Mapping[str, Mapping[str, Any]], field: str) -> Any:
    """What a scenario names, a name or ``{name: {setting: value}}``, made with its settings.

    Raises InputError, ``field`` first, for an unknown name and for settings that it does not take.
    """
    name, settings = name_and_settings(entry)
    made = load(kind, name)
    accepted = inspect.signature(made).parameters if settings else {}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for setting in settings if not open_ended else ():
        if setting not in accepted:
            raise InputError(unknown(f"{field}: {name}: unknown setting {setting!r}", setting, tuple(accepted)))
    try:
        return made(**settings)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: {name} does not take these settings: {error}") from None


def name_and_settings(entry: str | Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """What a scenario's entry says: a name alone, or ``{name: {setting: value}}``."""
    return (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))


def unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    """One line that says what is unknown, the nearest known name, and all that is accepted."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{what}{hint} (accepted: {', '.join(known) or 'none'})"


def describe(kind: Kind) -> dict[str, str]:
    """Name to the first line of its module's docstring, read from the source without importing it."""
    return {point.name: _headline(point.module) for point in sorted(_points(kind), key=lambda p: p.name)}


@cache
def _points(kind: Kind) -> tuple[EntryPoint, ...]:
    """What is installed; looked for once, since it reads the metadata of every package there is."""
    return tuple(entry_points(group=f"pplr_audit.{kind}"))


def _headline(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return doc.split("\n", 1)[0]

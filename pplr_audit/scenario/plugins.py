"""Discovery of attacks, defenses, strategies and readers by entry point, ours and a third party's alike.

A third party's package may be broken, or use a name that another one has. Then it is named, and the others work on.
"""

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from pplr_audit.errors import InputError

Kind = Literal["attacks", "defenses", "strategies", "readers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ONE: dict[Kind, str] = {"attacks": "attack", "defenses": "defense", "strategies": "strategy", "readers": "reader"}


def names(kind: Kind) -> tuple[str, ...]:
    """The names that are installed, in alphabetical order; nothing is imported."""
    return tuple(sorted({point.name for point in points(kind)}))


def refusal(kind: Kind, name: str, field: str) -> str | None:
    """Why ``name`` cannot be used as its metadata tell it, ``field`` first: nobody has it, or several packages do."""
    if name not in names(kind):
        return unknown(f"{field}: unknown name {name!r}", name, names(kind)) + _unreadable()
    claimed = [point for point in points(kind) if point.name == name]
    if len(claimed) > 1:
        owners = " and ".join(package(point) for point in claimed)
        return (
            f"{field}: {name!r} is refused, since several packages have {_a(kind)} of this name: {owners}; uninstall"
            " all but one of them"
        )
    return None


def load(kind: Kind, name: str) -> Any:
    """Import what stands behind ``name``.

    Raises InputError that names the packages where several have it, the package where it cannot be imported, or the
    nearest known name.
    """
    refused = refusal(kind, name, kind)
    if refused is not None:
        raise InputError(refused)
    (point,) = (point for point in points(kind) if point.name == name)
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{kind}: {name!r} of {package(point)} cannot be imported: {_told(error)}; install that package again, or"
            " uninstall it"
        ) from error


def package(point: EntryPoint) -> str:
    """Name and version of the package that a plugin is of, for messages."""
    return " ".join(_owner(point) or ("an unknown package",))


def provenance(used: Iterable[tuple[Kind, str]]) -> list[dict[str, str]]:
    """Return kind, name, package and version of each of the plugins ``used``.

    A plugin without a package (one that a test put in its place, say) is left out.
    """
    found = []
    for kind, name in sorted(set(used)):
        for owner in (_owner(point) for point in points(kind) if point.name == name):
            if owner is not None:
                found.append({"kind": str(kind), "name": name, "package": owner[0], "version": owner[1]})
    return found


def make(kind: Kind, entry: str | Mapping[str, Mapping[str, Any]], field: str) -> Any:
    """Make the plugin that a scenario names, as a name or ``{name: {setting: value}}``, with its settings.

    Raises InputError, ``field`` first, for an unknown name and for settings that it does not take.
    """
    name, settings = name_and_settings(entry)
    made = load(kind, name)
    try:
        accepted = inspect.signature(made).parameters if settings else {}
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        for setting in settings if not open_ended else ():
            if setting not in accepted:
                raise InputError(unknown(f"{name}: unknown setting {setting!r}", setting, tuple(accepted)))
        return made(**settings)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: {name} does not take these settings: {error}") from None
    except Exception as error:
        (owner,) = {package(point) for point in points(kind) if point.name == name} or {"an unknown package"}
        raise InputError(f"{field}: {name} of {owner} is broken: {_told(error)}") from error


def name_and_settings(entry: str | Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """Split a scenario's entry into name and settings: a name alone, or ``{name: {setting: value}}``."""
    return (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))


def unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    """One line that says what is unknown, the nearest known name, and all that is accepted."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{what}{hint} (accepted: {', '.join(known) or 'none'})"


def describe(kind: Kind) -> dict[str, str]:
    """Name to the first line of its module's docstring, or to what is wrong with it. Nothing is imported."""
    return {name: _description(kind, name) for name in names(kind)}


def broken_packages() -> dict[str, str]:
    """Packages that say nothing readable about their plugins, to what is wrong."""
    return dict(_read()[1])


def points(kind: Kind) -> tuple[EntryPoint, ...]:
    """All entry points of one kind, by name. Two packages may have one name: then `load` refuses it."""
    return _read()[0][kind]


@cache
def _read() -> tuple[dict[Kind, tuple[EntryPoint, ...]], dict[str, str]]:
    """Return the installed entry points, and the packages whose list cannot be read.

    Looked for once, since it reads the metadata of every package there is. `importlib.metadata.entry_points` would
    raise for all of them where one is broken.
    """
    found: dict[Kind, list[EntryPoint]] = {kind: [] for kind in KINDS}
    broken: dict[str, str] = {}
    seen: dict[str, Distribution] = {}
    for distribution in distributions():
        try:
            own = [point for point in distribution.entry_points if point.group.startswith("pplr_audit.")]
        except Exception as error:
            broken[_called(distribution)] = f"its entry points cannot be read: {_told(error)}"
            continue
        # The same package further down the path (a folder of sources, say) is hidden by the first.
        if own and seen.setdefault(_normal(_called(distribution)), distribution) is distribution:
            for kind in KINDS:
                found[kind] += (point for point in own if point.group == f"pplr_audit.{kind}")
    return {kind: tuple(sorted(each, key=lambda point: point.name)) for kind, each in found.items()}, broken


def _called(distribution: Distribution) -> str:
    try:
        return str(distribution.name)
    except Exception:  # a folder that was left behind by a broken installation has no metadata
        return str(getattr(distribution, "_path", "an unknown package"))


def _normal(name: str) -> str:
    """One spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _owner(point: EntryPoint) -> tuple[str, str] | None:
    if point.dist is None:
        return None
    try:
        return _called(point.dist), str(point.dist.version)
    except Exception:  # metadata of another package can be damaged in any way, and must not stop a run
        return _called(point.dist), "of unknown version"


def _unreadable() -> str:
    return "".join(f"; {name}: {wrong}" for name, wrong in broken_packages().items())


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _a(kind: Kind) -> str:
    return f"an {_ONE[kind]}" if kind == "attacks" else f"a {_ONE[kind]}"


def _description(kind: Kind, name: str) -> str:
    claimed = [point for point in points(kind) if point.name == name]
    if len(claimed) > 1:
        return f"refused: several packages have this name: {' and '.join(package(point) for point in claimed)}"
    (point,) = claimed
    try:
        return _headline(point.module)
    except Exception as error:
        return f"broken: {point.value} of {package(point)} cannot be read: {_told(error)}"


def _headline(module: str) -> str:
    """The first line of the docstring in the module's source. Raises whatever keeps it from being read."""
    top, *below = module.split(".")
    spec, path = find_spec(top), top
    for name in below:
        # Not find_spec of the whole name, which imports the packages above it.
        path = f"{path}.{name}"
        spec = PathFinder.find_spec(path, spec.submodule_search_locations) if spec is not None else None
    if spec is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    if spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return doc.split("\n", 1)[0]

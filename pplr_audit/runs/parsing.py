"""Parsing of a run's files, which may come from a stranger: values, or one message that names the file."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pplr_audit.errors import InputError

DEEPEST = 64
"""Most levels that values may be nested; runs nest them less than ten deep."""
LARGEST_NUMBER = 2**63 - 1
"""No whole number of a run is larger, nor below its negative: 64 bits hold it."""
MEND = "restore it from a copy, or start again in another directory with --out DIR"

T = TypeVar("T")


class Malformed(InputError):
    """A file does not hold what it should."""

    what = ""
    """The fault alone, for whoever says in other words that a file has it."""


@contextmanager
def understood(file: Path | str) -> Iterator[None]:
    """Whatever goes wrong inside is about what ``file`` says. Raises InputError that names it."""
    try:
        yield
    except KeyError as error:
        raise _wrong(file, f"it has no {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _wrong(file, str(error) or type(error).__name__) from error


def parsed(data: bytes, file: Path | str) -> dict[str, Any]:
    """The JSON object in ``data``.

    Raises:
        InputError: it is not UTF-8, not JSON, or no object; a key stands there twice; values are nested too deep; a
            number is not finite or needs more than 64 bits; a text holds half of a pair of surrogates.
    """
    try:
        found = json.loads(
            data, object_pairs_hook=_once, parse_constant=_not_finite, parse_float=_float, parse_int=_int
        )
    except RecursionError:
        raise _wrong(file, f"values are nested more than {DEEPEST} deep") from None
    except ValueError as error:
        raise _wrong(file, str(error)) from None
    if not isinstance(found, dict):
        raise _wrong(file, f"an object expected, and it is {_kind(found)}")
    _check(found, file)
    return found


def shaped(value: T, kind: Any, file: Path | str) -> T:
    """``value`` itself, once it is known to be of ``kind``, a type as pydantic checks it; nothing is converted.

    Raises InputError that names the file and the field.
    """
    from pydantic import TypeAdapter, ValidationError  # here, as what only lists names needs none of it

    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return value


def _check(found: dict[str, Any], file: Path | str) -> None:
    """Refuse what the parser lets through: deep nesting, level by level, and text that no file can hold."""
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                inner.extend(container)
                inner.extend(container.values())
            else:
                inner.extend(container)
        for text in inner:
            if isinstance(text, str) and not text.isascii():
                with understood(file):
                    text.encode()
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return
    raise _wrong(file, f"values are nested more than {DEEPEST} deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{_short(twice)!r} stands there twice")
    return found


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not a number that JSON has")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{_short(text)} is too large a number")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST_NUMBER:
        raise ValueError(f"{_short(text)} is too large a number")
    return int(text)


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _wrong(file: Path | str, what: str) -> Malformed:
    short = _short(" ".join(what.split()), 200)
    error = Malformed(f"{file}: does not hold what a run writes there: {short}; {MEND}")
    error.what = short
    return error

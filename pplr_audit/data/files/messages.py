"""Wording of errors about data: values and columns."""

import difflib
from collections.abc import Iterable


def quote(value: str) -> str:
    """A value as an error shows it: on one line, and not too long."""
    return repr(value if len(value) <= 40 else value[:37] + "...")


def listed(names: Iterable[str]) -> str:
    """Names as an error shows them: on one line, and not too many."""
    shown = [name if name.isprintable() and len(name) <= 40 else quote(name) for name in names]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like ``name``; empty where none is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; the nearest is {near[0]!r}" if near else ""

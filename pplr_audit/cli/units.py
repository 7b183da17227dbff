"""Quantities with a unit as users write them on the command line: 20Mbit, 8GB, 20ms.

A prefix before bit counts in thousands, as links are sold; before B too, unless it has an i (KiB, MiB, GiB). Prefixes
are read whatever their case; b is refused beside them, as it is read as bits by some and as bytes by others.
"""

import math
import re

from pplr_audit.errors import InputError

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_MOST = 1e24
"""No amount is larger: a larger one is a slip, and what follows from it could not be written as a number."""
_LEAST = 1e-6
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([^\d\s.][^\s]*)?\s*", re.ASCII)


def bandwidth(text: str, option: str) -> float:
    """Bits a second.

    >>> bandwidth("20Mbit", "--link"), bandwidth("1 Gbit/s", "--link"), bandwidth("2.5MB/s", "--link")
    (20000000.0, 1000000000.0, 20000000.0)

    Raises:
        InputError: no such amount, or none above 0.
    """
    accepted = "accepted: an amount above 0 with its unit, such as 100kbit/s, 20Mbit, 1Gbit or 2.5MB/s"
    number, unit = _parted(text)
    found = re.fullmatch(r"([A-Za-z]?)(bits?|B)(?:/s)?|([A-Za-z]?)bps", unit)
    scale = _PREFIXES.get((found[1] or found[3] or "").lower()) if found else None
    if found is None or scale is None:
        raise _refused(text, option, accepted)
    return _positive(number * scale * (8 if found[2] == "B" else 1), text, option, accepted)


def memory(text: str, option: str) -> int:
    """Bytes.

    >>> memory("8GB", "--client-memory"), memory("512MiB", "--client-memory")
    (8000000000, 536870912)

    Raises:
        InputError: no such amount, or none above 0.
    """
    accepted = "accepted: an amount above 0 with its unit, such as 8GB, 512MiB or 1.5TB"
    number, unit = _parted(text)
    scales = _PREFIXES | _BINARY
    if not unit.endswith("B") or unit[:-1].lower() not in scales:
        raise _refused(text, option, accepted)
    return int(_positive(float(number * scales[unit[:-1].lower()] // 1), text, option, accepted))


def duration(text: str, option: str) -> float:
    """Seconds.

    >>> duration("20ms", "--rtt"), duration("0s", "--rtt")
    (0.02, 0.0)

    Raises:
        InputError: no such amount.
    """
    number, unit = _parted(text)
    if unit not in _SECONDS or not number <= _MOST:
        raise _refused(text, option, "accepted: an amount with its unit, such as 20ms, 0ms or 0.5s")
    return round(number * _SECONDS[unit], 12)


def _parted(text: str) -> tuple[float, str]:
    """Number and unit; not a number where the text is none."""
    found = _AMOUNT.fullmatch(text)
    return (float(found[1]), found[2] or "") if found else (math.nan, "")


def _positive(amount: float, text: str, option: str, accepted: str) -> float:
    if not _LEAST <= amount <= _MOST:
        raise _refused(text, option, accepted)
    return amount


def _refused(text: str, option: str, accepted: str) -> InputError:
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    return InputError(f"{option}: {shown!r} is not understood ({accepted})")

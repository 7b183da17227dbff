"""Scales from values to positions, linear or logarithmic, with the ticks that a reader expects."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps ``low``..``high`` to ``start``..``stop``; values outside are held at the border."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value."""
        value = min(max(value, self.low), self.high)
        if self.low == self.high:
            return (self.start + self.stop) / 2
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.stop - self.start)


def round_step(span: float, wanted: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that cuts ``span`` into about ``wanted`` parts.

    >>> round_step(1.0, 5), round_step(37, 4)
    (0.2, 10.0)
    """
    raw = span / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((m * power for m in (1, 2, 5) if m * power >= raw * 0.999), 10 * power)


def linear_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values between ``low`` and ``high``.

    >>> linear_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        return [low]
    step = round_step(high - low, wanted)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """The powers of ten between ``low`` and ``high``.

    >>> decades(0.001, 1)
    [0.001, 0.01, 0.1, 1.0]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [float(f"1e{power}") for power in range(first, last + 1)]


def widened(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """A little room on both sides, so that nothing is drawn on the frame."""
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room

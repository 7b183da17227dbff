"""Figures of several seeds taken together: intervals that hold over seeds and users, and what they say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtrit

Row = Mapping[str, Any]
"""Of one seed: ``value`` and ``ci``, its 95 % interval over users."""


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def text(self, form: str = ".4f") -> str:
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def over_all(rows: Sequence[Row]) -> Interval:
    """The mean over seeds with a 95 % interval over seeds and users.

    It is Student's over seeds, of which each has its own users, or that of the users alone, whichever is wider: few
    seeds can agree by chance. Of one seed it is that over its users, which knows nothing of other seeds.
    """
    figures = [row["value"] for row in rows]
    if len(figures) == 1:
        return Interval(figures[0], *rows[0]["ci"])
    by_seed = float(stdtrit(len(figures) - 1, 0.975)) * stdev(figures) / math.sqrt(len(figures))
    by_user = math.sqrt(sum(_half(row) ** 2 for row in rows)) / len(rows)
    middle, half = mean(figures), max(by_seed, by_user)
    return Interval(middle, middle - half, middle + half)


def _half(row: Row) -> float:
    low, high = row["ci"]
    return float(high - low) / 2


def ratios(own: Sequence[Row], other: Sequence[Row], less: Sequence[Row]) -> list[Row]:
    """``own`` over ``other`` seed by seed; nothing where one of ``other`` is 0.

    Delta method; the covariance, of the same users served by either, comes from the paired differences.

    Args:
        less: ``own`` less ``other``.
    """
    found: list[Row] = []
    for a, b, d in zip(own, other, less, strict=True):
        if b["value"] <= 0:
            return []
        ratio = a["value"] / b["value"]
        together = (_half(a) ** 2 + _half(b) ** 2 - _half(d) ** 2) / 2
        square = _half(a) ** 2 - 2 * ratio * together + (ratio * _half(b)) ** 2
        half = math.sqrt(max(square, 0)) / b["value"]
        found.append({"value": ratio, "ci": (ratio - half, ratio + half)})
    return found


def unpaired(own: Sequence[Row], other: Sequence[Row]) -> list[Row]:
    """``own`` less ``other`` seed by seed as if of other users, which is wider than in pairs."""
    found: list[Row] = []
    for a, b in zip(own, other, strict=True):
        less, half = a["value"] - b["value"], math.hypot(_half(a), _half(b))
        found.append({"value": less, "ci": (less - half, less + half)})
    return found


def over_seeds(rows: Sequence[Row], *, signed: bool = False) -> str:
    """Mean over seeds, and how far they are apart; of one seed its interval over users."""
    if not rows:
        return "–"
    figures = [row["value"] for row in rows]
    sign = "+" if signed else ""
    if len(figures) == 1:
        low, high = rows[0]["ci"]
        return f"{figures[0]:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"
    return f"{mean(figures):{sign}.4f} ± {stdev(figures):.4f}"


def side(rows: Sequence[Row]) -> int:
    """1 where all seeds together are above 0 with their interval, -1 where they are below it, else 0."""
    if not rows:
        return 0
    joint = over_all(rows)
    return (joint.low > 0) - (joint.high < 0)


def verdict(rows: Sequence[Row], more: str = "more", less: str = "less") -> str:
    """What the seeds say together and each by itself."""
    if not rows:
        return "not run"
    each = all(row["ci"][0] > 0 for row in rows) - all(row["ci"][1] < 0 for row in rows)
    joint, words = side(rows), {1: more, -1: less}
    if joint and joint == each:
        return words[joint]
    if joint:
        return f"{words[joint]} over all seeds together, but not in each seed"
    if each:
        return f"{words[each]} in each seed, but the seeds differ too much to generalize"
    return "no more than noise"

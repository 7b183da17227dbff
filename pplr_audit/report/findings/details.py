"""A finding's detail on steps, users and the adversary's copy, where it has a form known here.

A detail is free: attacks of others and earlier versions write what they like. What is not understood is not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pplr_audit.report.words.quantities import percent
from pplr_audit.runs.documents import Document

STEPS = ("first_step", "later_steps")
SPREAD = "over_users"


@dataclass(frozen=True)
class Mean:
    """A mean over ``n`` users; findings of earlier versions have no interval of some."""

    value: float
    ci: tuple[float, float] | None
    n: int

    @property
    def document(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return {"mean": self.value, "n": self.n} | ({"ci": list(self.ci)} if self.ci else {})


@dataclass(frozen=True)
class Spread:
    """Distribution of the users' own values; ``clients`` by name."""

    n: int
    least: float
    quartiles: tuple[float, float]
    median: float
    most: float
    all_read: Mean
    clients: Mapping[str, Mean]

    @property
    def document(self) -> dict[str, Any]:
        """Return the value as findings have it."""
        return {
            "n": self.n, "least": self.least, "quartiles": list(self.quartiles), "median": self.median,
            "most": self.most, "all_read": self.all_read.document,
            "clients": {name: mean.document for name, mean in self.clients.items()},
        }  # fmt: skip


def steps_of(detail: Document) -> tuple[Mean | None, Mean | None]:
    """Return the mean score in a round's first step, and in later steps."""
    first, later = (_mean(detail.get(name)) for name in STEPS)
    return first, later


def spread_of(detail: Document) -> Spread | None:
    """Return the spread of scores over users."""
    told = detail.get(SPREAD)
    if not isinstance(told, Mapping):
        return None
    least, median, most = (_number(told.get(name)) for name in ("least", "median", "most"))
    quartiles, whole, n = _pair(told.get("quartiles")), _mean(told.get("all_read")), _count(told.get("n"))
    if least is None or median is None or most is None or quartiles is None or whole is None or n is None:
        return None
    named = told.get("clients")
    clients = {str(name): _mean(each) for name, each in named.items()} if isinstance(named, Mapping) else {}
    return Spread(n, least, quartiles, median, most, whole, {name: m for name, m in clients.items() if m is not None})


def beside_of(detail: Document) -> tuple[str, ...]:
    """The channels that the attack read beside its own."""
    told = detail.get("beside")
    return tuple(each for each in told if isinstance(each, str)) if isinstance(told, list | tuple) else ()


def covered_of(detail: Document) -> tuple[float, float] | None:
    """Return how often, at least and at most, such a 95 % interval holds the truth, where that is not 95 %."""
    ends = _pair(detail.get("interval_covers"))
    return ends if ends is not None and ends[0] >= 0 and ends[1] <= 1 else None


def explained(detail: Document) -> tuple[str, str]:
    """Return how well the adversary's copy explains what crossed, in a few words and a note; empty if no attack says
    so.

    >>> explained({"verified": 1.0, "median_distance": 3e-7})
    ('exact for 100% of the pieces', 'median distance <0.01%')
    >>> explained({"median_distance": 0.131}), explained({"median_distance": 1.2}), explained({})
    (('13.1% left unexplained', 'by median distance'), ('explains nothing of it', 'by median distance'), ('', ''))
    """
    verified, distance = _number(detail.get("verified")), _number(detail.get("median_distance"))
    if verified is not None and 0 <= verified <= 1:
        told = f"exact for {percent(verified)} of the pieces"
        return told, "" if distance is None or not 0 <= distance <= 1 else f"median distance {percent(distance)}"
    if distance is None or distance < 0:
        return "", ""
    return (
        "explains nothing of it" if distance >= 1 else f"{percent(distance)} left unexplained"
    ), "by median distance"


def _mean(told: Any) -> Mean | None:
    if not isinstance(told, Mapping):
        return None
    value, n, ci = _number(told.get("mean")), _count(told.get("n")), _pair(told.get("ci"))
    return None if value is None or n is None else Mean(value, ci, n)


def _pair(told: Any) -> tuple[float, float] | None:
    ends = [_number(each) for each in told] if isinstance(told, list | tuple) and len(told) == 2 else [None, None]
    low, high = ends
    return None if low is None or high is None or low > high else (low, high)


def _count(told: Any) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else None


def _number(told: Any) -> float | None:
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None

"""Means and intervals over trainings under several seeds.

With n trainings, mean m and standard deviation s of their values the interval is m +- t s / sqrt(n), t the .975
quantile of Student's distribution with n - 1 degrees of freedom. It is never narrower than what the users of the
trainings show by themselves, m +- sqrt(sum of their half-widths squared) / n: values that agree by chance, or because
all of them are at an end of the scale, are no certainty.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from pplr_audit.runs.verdicts import SIGNED
from pplr_audit.training.run_job import Trained

_KEY = (
    "strategy",
    "defense",
    "adversary",
    "knowledge",
    "channel",
    "round",
    "cut",
    "client",
    "attack",
    "secret",
    "metric",
)
_UTILITY_KEY = ("strategy", "defense", "client", "metric")


def findings_over_seeds(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each finding that was measured under at least two seeds: its values, mean and interval.

    Args:
        rows: findings of all seeds, each with its ``seed``.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(_identity(row), []).append(row)
    return [
        _over(group, {**_named(group[0], _KEY), "detail": _told(group[0])})
        for group in groups.values()
        if len(group) > 1
    ]


def utility_over_seeds(trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """Return the same for the utility of trainings of several seeds. Clients of two seeds are not the same clients, so
    that rows are over all of them."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for each in trained:
        for row in each.measured["utility"]:
            if row["client"] == "all" and row["strategy"] == each.spec.strategy:
                key = tuple(str(row[name]) for name in _UTILITY_KEY)
                groups.setdefault(key, []).append({**row, "seed": each.spec.seed})
    return [_over(group, _named(group[0], _UTILITY_KEY)) for group in groups.values() if len(group) > 1]


def interval(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return mean, lower and upper end over trainings.

    Args:
        intervals: each value's own, over its users.

    >>> mean, low, high = interval([0.5, 0.6, 0.7], [[0.5, 0.5], [0.6, 0.6], [0.7, 0.7]])
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (0.6, 0.352, 0.848)
    """
    seen, ends = np.array(values), np.array(intervals)
    count, mean = len(seen), float(seen.mean())
    spread = float(student.ppf(0.975, count - 1) * seen.std(ddof=1) / np.sqrt(count))
    below = float(np.sqrt(((seen - ends[:, 0]) ** 2).sum()) / count)
    above = float(np.sqrt(((ends[:, 1] - seen) ** 2).sum()) / count)
    return mean, mean - max(spread, below), mean + max(spread, above)


def _over(group: Sequence[Mapping[str, Any]], named: Mapping[str, Any]) -> dict[str, Any]:
    mean, low, high = interval([row["value"] for row in group], [row["ci"] for row in group])
    least = -1.0 if named["metric"] in SIGNED else 0.0
    ends = [min(max(end, least), 1.0) for end in (low, high)]
    return {
        **named, "seeds": [row["seed"] for row in group], "values": [row["value"] for row in group], "value": mean,
        "ci": ends,
    }  # fmt: skip


def _named(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a finding's detail tells it from others: its mode, settings and attribute."""
    return {name: row["detail"][name] for name in ("mode", "settings", "attribute") if name in row["detail"]}


def _identity(row: Mapping[str, Any]) -> str:
    return json.dumps([_named(row, _KEY), _told(row)], sort_keys=True, default=str)

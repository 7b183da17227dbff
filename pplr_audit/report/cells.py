"""Findings sorted into the series and cells that tables, pictures and sentences are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pplr_audit.report.content import Cell
from pplr_audit.report.document import Document
from pplr_audit.report.quantities import interval, number
from pplr_audit.report.vocabulary import HEADLINE, STATUS

Finding = Document

_NAMED = ("attack", "mode", "defense", "adversary", "knowledge", "round", "client", "adaptive", "other_side")


@dataclass(frozen=True)
class Series:
    """Findings that differ only in the cut (and the metric): one line of a picture, one group of a table."""

    label: str
    rows: tuple[Finding, ...]

    def at(self, depth: int | None, metric: str) -> Finding | None:
        """The finding at one depth, if there is one."""
        return next((row for row in self.rows if depth_of(row) == depth and row["metric"] == metric), None)


def depth_of(row: Finding) -> int | None:
    """How deep the cut is on the side the channel depends on: k, else m, else nothing."""
    cut = row["cut"]
    if cut is None:
        return None
    depth: int | None = cut["front"] if cut["front"] is not None else cut["back"]
    return depth


def depths(rows: Iterable[Finding]) -> list[int]:
    """The depths that occur, in order."""
    return sorted({depth for row in rows if (depth := depth_of(row)) is not None})


def is_measured(row: Finding) -> bool:
    """Whether the finding has a value."""
    return bool(row["status"] == "ok")


def above_baseline(row: Finding) -> bool:
    """Whether the whole interval lies above what the attack scores where there is nothing to find."""
    return is_measured(row) and bool(row["ci"][0] > row["baseline"])


def strongest(rows: Iterable[Finding]) -> Finding | None:
    """The finding that speaks loudest: above its baseline first, then by value. Ties go to the first by name."""
    measured = sorted((row for row in rows if is_measured(row)), key=lambda row: (row["attack"], row["channel"]))
    return max(measured, key=lambda row: (above_baseline(row), row["value"]), default=None)


def at_front(rows: Iterable[Finding], depth: int) -> list[Finding]:
    """What an adversary has with ``depth`` blocks in front: channels cut there, and those that do not depend on it."""
    return [row for row in rows if row["cut"] is None or row["cut"]["front"] in (None, depth)]


def strongest_by_front(rows: Sequence[Finding]) -> dict[int, Finding]:
    """The strongest finding at each k where some channel is cut there and has a value."""
    fronts = sorted({row["cut"]["front"] for row in rows if row["cut"] and row["cut"]["front"] is not None})
    return {k: found for k in fronts if (found := strongest(at_front(rows, k))) is not None}


def headline(rows: Iterable[Finding], secret: str) -> str | None:
    """The metric to speak of first, among those that have a value."""
    metrics = metrics_in_order([row for row in rows if is_measured(row)], secret)
    return metrics[0] if metrics else None


def first_defense(rows: Iterable[Finding]) -> str:
    """The defense that sentences are about: none where that was measured."""
    defenses = distinct(rows, "defense")
    return "none" if "none" in defenses or not defenses else str(defenses[0])


def distinct(rows: Iterable[Finding], field: str) -> list[Any]:
    """The values of one field, in order of appearance."""
    return list(dict.fromkeys(row[field] for row in rows))


def metrics_in_order(rows: Iterable[Finding], secret: str) -> list[str]:
    """The metrics that occur, those a reader asks about first in front."""
    first = HEADLINE.get(secret, ())
    found = set(distinct(rows, "metric"))
    return [m for m in first if m in found] + sorted(found.difference(first))


def overall(rows: Sequence[Finding]) -> list[Finding]:
    """The rows over all clients, or every row where an audit has only single clients."""
    return [row for row in rows if row["client"] == "all"] or list(rows)


def series(rows: Sequence[Finding]) -> list[Series]:
    """Rows grouped by everything but cut depth and metric; a label names the attack and whatever else varies."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for row in rows:
        groups.setdefault(_identity(row), []).append(row)
    keys = list(groups)
    varying = [i for i, name in enumerate(_NAMED) if name == "attack" or len({key[i] for key in keys}) > 1]
    return [
        Series(" · ".join(key[i] for i in varying if key[i]), tuple(sorted(group, key=lambda row: depth_of(row) or 0)))
        for key, group in groups.items()
    ]


def _identity(row: Finding) -> tuple[str, ...]:
    cut = row["cut"] or {"front": None, "back": None}
    return (
        row["attack"],
        str(row["detail"].get("mode", "")),
        f"defense {row['defense']}",
        f"by {row['adversary']}",
        f"knows {row['knowledge']}",
        f"round {row['round']}",
        "" if row["client"] == "all" else f"client {row['client']}",
        "adaptive" if row["adaptive"] else "not adaptive",
        f"m={cut['back']}" if cut["front"] is not None and cut["back"] is not None else "",
    )


def reason(row: Finding) -> str:
    """Why a finding has no value."""
    return str(row["detail"].get("reason", ""))


def value_cell(row: Finding | None) -> Cell:
    """A finding with its interval and its baseline; or its status with the reason, never a zero."""
    if row is None:
        return Cell("not in this audit", mark="status")
    if not is_measured(row):
        return Cell(STATUS[row["status"]], reason(row), mark="status")
    metric = row["metric"]
    note = f"{interval(metric, row['ci'])}, baseline {number(metric, row['baseline'])}"
    return Cell(number(metric, row["value"]), note, mark="value" if above_baseline(row) else "near")

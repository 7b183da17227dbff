"""Findings sorted into the series and cells that tables, pictures and sentences are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pplr_audit.report.content import Cell
from pplr_audit.report.document import Document
from pplr_audit.report.quantities import interval, number
from pplr_audit.report.vocabulary import HEADLINE, STATUS

Finding = Document


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


def strongest_by_depth(rows: Sequence[Finding], side: str = "front") -> dict[int, Finding]:
    """The strongest finding at each depth of one side of the cut, where some channel is cut there and has a value.

    What does not depend on that side counts at every depth: an adversary has it wherever the cut is.
    """
    ends = sorted({row["cut"][side] for row in rows if row["cut"] and row["cut"][side] is not None})
    at = {k: [row for row in rows if row["cut"] is None or row["cut"][side] in (None, k)] for k in ends}
    return {k: found for k in ends if (found := strongest(at[k])) is not None}


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
    """The rows over all clients, and those of single clients where the same was not scored over all."""
    pooled = {_pool(row) for row in rows if row["client"] == "all"}
    return [row for row in rows if row["client"] == "all" or _pool(row) not in pooled]


def _pool(row: Finding) -> tuple[str, ...]:
    return (
        *(str(row[f]) for f in ("attack", "channel", "metric", "defense", "adversary", "knowledge", "round", "cut")),
        str(row["detail"].get("mode")),
        settings_words(row),
    )


def series(rows: Sequence[Finding]) -> list[Series]:
    """Rows grouped by everything but cut depth and metric; a label says as little as tells the groups apart."""
    one_sided = {_identity(row) for row in rows if row["cut"] and row["cut"]["back"] is None}
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for row in rows:
        # where an attack ignores m, a cut without a trunk (k + m = L) still names its m: it is the same line
        key = _identity(row)
        groups.setdefault((*key, "" if key in one_sided else _back(row)), []).append(row)
    said = _distinguishing(list(groups))
    return [
        Series(" · ".join(key[i] for i in said if key[i]), tuple(sorted(group, key=lambda row: depth_of(row) or 0)))
        for key, group in groups.items()
    ]


def _distinguishing(keys: list[tuple[str, ...]]) -> list[int]:
    """The parts of the keys to say: the attack and its mode, then whatever tells more keys apart than those before."""
    said = [0, 1]
    for i in range(2, len(keys[0]) if keys else 0):
        without = len({tuple(key[j] for j in said) for key in keys})
        if len({tuple(key[j] for j in (*said, i)) for key in keys}) > without:
            said.append(i)
    return said


def _identity(row: Finding) -> tuple[str, ...]:
    return (
        row["attack"],
        str(row["detail"].get("mode", "")),
        settings_words(row),
        f"defense {row['defense']}",
        row["channel"],
        f"by {row['adversary']}",
        f"knows {row['knowledge']}",
        f"round {row['round']}",
        "" if row["client"] == "all" else f"client {row['client']}",
        "adaptive" if row["adaptive"] else "not adaptive",
    )


def _back(row: Finding) -> str:
    cut = row["cut"]
    return f"m={cut['back']}" if cut and cut["front"] is not None and cut["back"] is not None else ""


def settings_words(row: Finding) -> str:
    """What the attack was told to do otherwise than by default.

    >>> settings_words({"detail": {"settings": {"prompts": 64, "seed": 1}}}), settings_words({"detail": {}})
    ('prompts=64, seed=1', '')
    """
    settings = row["detail"].get("settings")
    return ", ".join(f"{name}={value}" for name, value in settings.items()) if isinstance(settings, Mapping) else ""


def reason(row: Finding) -> str:
    """Why a finding has no value."""
    return str(row["detail"].get("reason", ""))


def value_words(row: Finding) -> str:
    """A measured finding with its interval and its baseline, for a picture's description."""
    metric = row["metric"]
    return f"{number(metric, row['value'])} {interval(metric, row['ci'])}, baseline {number(metric, row['baseline'])}"


def value_cell(row: Finding | None) -> Cell:
    """A finding with its interval and its baseline; or its status with the reason, never a zero."""
    if row is None:
        return Cell("not in this audit", mark="status")
    if not is_measured(row):
        return Cell(STATUS[row["status"]], reason(row), mark="status")
    metric = row["metric"]
    note = f"{interval(metric, row['ci'])}, baseline {number(metric, row['baseline'])}"
    return Cell(number(metric, row["value"]), note, mark="value" if above_baseline(row) else "near")

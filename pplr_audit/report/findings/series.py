"""Findings sorted into the series and cells that tables, pictures and sentences are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pplr_audit.report.blocks.content import Cell
from pplr_audit.report.words.quantities import interval, number
from pplr_audit.report.words.vocabulary import COMPARED, HEADLINE, STATUS
from pplr_audit.runs.documents import Document

ALPHA = 0.025
"""Level of `scoring.verdicts`, which takes long to import."""
SUM = "aggregate"
"""The channel of which one message is of all clients."""
Finding = Document
Cut = Mapping[str, Any] | None
"""A cut as findings name it: a side that does not matter is null, and so is the whole where neither does."""


@dataclass(frozen=True)
class Series:
    """Findings that differ only in the cut (and the metric): one line or map of a picture, one group of a table."""

    label: str
    rows: tuple[Finding, ...]

    @property
    def cuts(self) -> list[Cut]:
        """The cuts that its findings name, in order."""
        return list({place(row["cut"]): row["cut"] for row in self.rows}.values())

    @property
    def two_sided(self) -> bool:
        """True if the series depends on both sides of the cut, so that no line against one depth can show it."""
        return any(-1 not in place(row["cut"]) for row in self.rows)

    def at(self, cut: Cut, metric: str) -> Finding | None:
        """The finding at one cut, if there is one."""
        return self._by_cut.get((place(cut), metric))

    @cached_property
    def _by_cut(self) -> dict[tuple[tuple[int, int], str], Finding]:
        return {(place(row["cut"]), row["metric"]): row for row in reversed(self.rows)}


def place(cut: Cut) -> tuple[int, int]:
    """A cut as a key, to sort and look up by: k and m, -1 for a side that does not matter."""
    front, back = (cut["front"], cut["back"]) if cut else (None, None)
    return -1 if front is None else front, -1 if back is None else back


def depth_of(row: Finding) -> int | None:
    """Return the cut's depth on the side that the channel depends on: k, else m, else None."""
    cut = row["cut"]
    if cut is None:
        return None
    depth: int | None = cut["front"] if cut["front"] is not None else cut["back"]
    return depth


def depths(rows: Iterable[Finding]) -> list[int]:
    """The depths that occur, in order."""
    return sorted({depth for row in rows if (depth := depth_of(row)) is not None})


def is_measured(row: Finding) -> bool:
    """True if the finding has a value."""
    return bool(row["status"] == "ok")


def above_baseline(row: Finding, among: int = 1) -> bool:
    """True if the finding is above each of its comparisons, corrected for the findings that it is picked from.

    The one place that decides it: by the corrected test alone, and by the interval in a finding of an earlier version.

    Args:
        among: how many secrets a sentence speaks for at once, each with its strongest finding.
    """
    if not is_measured(row) or not clear_of_baseline(row):
        return False
    return "corrected" not in row or bool(row["corrected"]["p"] * among <= ALPHA)


def clear_of_baseline(row: Finding) -> bool:
    """The same for the finding by itself, as if it had been the only one: each of its tests holds."""
    if "comparisons" not in row:
        return bool(row["ci"][0] > row["baseline"])
    return all(each["p"] <= ALPHA for each in row["comparisons"])


def hardest(row: Finding) -> tuple[str, float] | None:
    """Name and value of what the finding stands clear of least surely; nothing in one of an earlier version."""
    found = max(row.get("comparisons", ()), key=lambda each: (each["p"], each["value"]), default=None)
    return None if found is None else (found["name"], found["value"])


def baseline_words(row: Finding) -> str:
    """The baseline, and what keeps the finding from being above it where that is something else.

    >>> chance = {"name": "chance", "value": 0.5, "p": 0.001, "difference_ci": [0.1, 0.2]}
    >>> control = {"name": "control", "value": 0.61, "p": 0.4, "difference_ci": [-0.1, 0.2]}
    >>> baseline_words({"metric": "auc", "baseline": 0.5, "status": "ok", "comparisons": [chance, control]})
    'baseline 0.500, its control 0.610'
    """
    metric, at = row["metric"], hardest(row)
    words = f"baseline {number(metric, row['baseline'])}"
    if at is None or at[1] == row["baseline"] or above_baseline(row):
        return words
    return f"{words}, {COMPARED.get(at[0], at[0])} {number(metric, at[1])}"


def strongest(rows: Iterable[Finding]) -> Finding | None:
    """The finding that speaks loudest: those above their baseline by value; others by how far they are from it.

    What is not above its baseline may be high because all are, as the next items of all clients together. Ties go to
    the first by name.
    """
    measured = sorted((row for row in rows if is_measured(row)), key=lambda row: (row["attack"], row["channel"]))
    return max(measured, key=_loudness, default=None)


def _loudness(row: Finding) -> tuple[bool, float]:
    if above_baseline(row):
        return True, row["value"]
    beside = [each["value"] for each in row.get("comparisons", ())] or [row["baseline"] or 0.0]
    return False, row["value"] - max(beside)


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
    """Rows grouped by everything but cut and metric; a label says as little as tells the groups apart."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for row in rows:
        groups.setdefault(_identity(row), []).append(row)
    said = _distinguishing(list(groups))
    return [
        Series(
            " · ".join(key[i] for i in said if key[i]),
            tuple(sorted(_aligned(group), key=lambda row: place(row["cut"]))),
        )
        for key, group in groups.items()
    ]


def _aligned(rows: Sequence[Finding]) -> list[Finding]:
    """Rows of one attack, named by the side that it depends on.

    A cut without a trunk names both sides whatever the attack depends on; it is told at a depth that has no other.
    """
    named = [row["cut"] for row in rows if row["cut"] is not None]
    side = next((s for s, o in (("front", "back"), ("back", "front")) if any(cut[o] is None for cut in named)), None)
    if side is None:
        return list(rows)
    other = "back" if side == "front" else "front"
    taken = {cut[side] for cut in named if cut[other] is None}
    found = []
    for row in rows:
        cut = row["cut"]
        if cut is None or cut[other] is None:
            found.append(row)
        elif cut[side] not in taken:
            found.append({**row, "cut": {"front": None, "back": None, side: cut[side]}})
    return found


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


def settings_words(row: Finding) -> str:
    """Spell out the attack's settings that differ from the defaults.

    >>> settings_words({"detail": {"settings": {"prompts": 64, "seed": 1}}}), settings_words({"detail": {}})
    ('prompts=64, seed=1', '')
    """
    settings = row["detail"].get("settings")
    return spelled(settings) if isinstance(settings, Mapping) else ""


def spelled(settings: Mapping[str, Any]) -> str:
    """Settings by name, as a reader sees them."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def reason(row: Finding) -> str:
    """Why a finding has no value."""
    return str(row["detail"].get("reason", ""))


def value_words(row: Finding) -> str:
    """A measured finding with its interval and its baseline, for a picture's description."""
    metric = row["metric"]
    return f"{number(metric, row['value'])} {interval(metric, row['ci'])}, {baseline_words(row)}"


def value_cell(row: Finding | None) -> Cell:
    """A finding with its interval and its baseline; or its status with the reason, never a zero."""
    if row is None:
        return Cell("not in this audit", mark="status")
    if not is_measured(row):
        return Cell(STATUS[row["status"]], reason(row), mark="status")
    metric = row["metric"]
    note = f"{interval(metric, row['ci'])}, {baseline_words(row)}"
    return Cell(number(metric, row["value"]), note, mark="value" if above_baseline(row) else "near")

"""Section on steps: leakage in a round's first step and later, which shows whether an old copy still reads.

Who balances the clients has their layers as they were at the start of the round, which are exact in the first step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pplr_audit.report.blocks.content import Block, Cell, Fold, Table, Text, labels
from pplr_audit.report.findings.details import Mean, explained, steps_of
from pplr_audit.report.findings.series import Finding, Series, above_baseline, is_measured
from pplr_audit.report.words.quantities import MISSING, interval, number, ranges
from pplr_audit.report.words.vocabulary import cut_words

OPEN_ROWS = 24
"""Rows up to which the table stands open."""
COPY = "front"
"""The knowledge of the layers at the start of the round."""
LEAD = (
    "The server that balances the clients has their layers from the start of the round. This copy is exact in the "
    "first step and some steps old later."
)


def by_step(secret: str, metric: str, attacks: Sequence[Series]) -> list[Block]:
    """Compare steps for attacks on training channels, by one metric; empty where none tells steps apart."""
    told = [(s.label, row) for s in attacks for row in s.rows if is_measured(row) and _tells(row)]
    if not told:
        return []
    body = tuple(
        (
            *labels(label, cut_words(row["cut"]), row["channel"], row["knowledge"]),
            *(_step(row, step) for step in steps_of(row["detail"])),
            _copy(row),
        )
        for label, row in told
    )
    columns = ("attack", "cut", "channel", "knowing", "first step", "later steps", "how well its copy explains it")
    caption = (
        f"{secret}: {metric} in the first step of a round and in later steps, means over users with 95% intervals. "
        "Each user was attacked in one of them. How well a copy explains what crossed is over all users: the share of "
        "pieces that it reproduces exactly, or the distance between what crossed and what it makes of the best answer."
    )
    table = Table(caption, columns, body, headers=2)
    title = f"{secret}: first and later steps, and the adversary's copy ({len(body)} rows)"
    return [*_verdict(told), table if len(body) <= OPEN_ROWS else Fold(title, (table,))]


def _tells(row: Finding) -> bool:
    return any(steps_of(row["detail"])) or explained(row["detail"]) != ("", "")


def _step(row: Finding, step: Mean | None) -> Cell:
    if step is None:
        return Cell("not set apart", mark="status")
    users = f"{step.n:,} user{'s' if step.n != 1 else ''}"
    if step.ci is None:
        return Cell(number(row["metric"], step.value), f"no interval, {users}", mark="value")
    near = not _above(row, step.ci[0])
    note = f"{interval(row['metric'], list(step.ci))}, {users}"
    return Cell(number(row["metric"], step.value), note, mark="near" if near else "value")


def _copy(row: Finding) -> Cell:
    words, note = explained(row["detail"])
    return Cell(words, note) if words else Cell(MISSING, mark="status")


def _above(row: Finding, low: float) -> bool:
    """True if the row is above its baseline, and these of its users lie above the interval of each comparison."""
    ends = [each["ci"][1] for each in row["comparisons"]] if "comparisons" in row else [row["baseline"]]
    return above_baseline(row) and all(low > end for end in ends)


@dataclass(frozen=True)
class _Pair:
    """An attack at a cut by who has the layers of the start of the round, in both kinds of steps."""

    label: str
    row: Finding
    first: Mean
    later: Mean
    apart: int
    """-1 where all of the later interval is below the first, 1 where it is above, 0 where they meet."""

    @property
    def words(self) -> str:
        before, after = (number(self.row["metric"], step.value) for step in (self.first, self.later))
        return f"{self.label} at {cut_words(self.row['cut'])}, {before} to {after}"

    @property
    def drop(self) -> float:
        return self.first.value - self.later.value

    @property
    def left(self) -> bool:
        """True if later steps lie above the baseline."""
        return self.later.ci is not None and _above(self.row, self.later.ci[0])


def _pairs(told: Sequence[tuple[str, Finding]]) -> Iterator[_Pair]:
    for label, row in told:
        first, later = steps_of(row["detail"])
        if row["knowledge"] == COPY and first and later and first.ci and later.ci:
            apart = int(later.ci[0] > first.ci[1]) - int(later.ci[1] < first.ci[0])
            yield _Pair(label, row, first, later, apart)


def _verdict(told: Sequence[tuple[str, Finding]]) -> list[Text]:
    """Say whether a copy from the start of the round reads less once it is some steps old."""
    if not any(row["knowledge"] == COPY for _, row in told):
        return [
            Text(
                "No adversary here had the client's layers from the start of the round, so nothing is said about old "
                "copies."
            )
        ]
    pairs = [*_pairs(told)]
    if not pairs:
        return []
    lower = [pair for pair in pairs if pair.apart < 0]
    most = max(lower or pairs, key=lambda pair: pair.drop)
    compared = f"{len(pairs)} pair{'s' if len(pairs) != 1 else ''} of attack and cut"
    if lower:
        said = (
            f"An old copy reads less (intervals that do not overlap) at {len(lower)} of {compared}, most for "
            f"{most.words}. At {sum(pair.left for pair in lower)} of these, later steps are still above the baseline."
        )
    else:
        fewest = sorted({min(pair.first.n, pair.later.n) for pair in pairs})
        users = f"{ranges(fewest)} user{'s' if fewest != [1] else ''}"
        drop = f"; the largest drop is {most.words}" if most.drop > 0 else ""
        said = (
            f"No protection by an old copy is shown: at 0 of {compared}, later steps give less by intervals that do "
            f"not overlap{drop}. With {users} on the smaller side, only a large drop could be seen."
        )
    higher = sum(pair.apart > 0 for pair in pairs)
    more = f" At {higher} of all pairs, later steps give more." if higher else ""
    return [Text(f"{LEAD} {said}{more}")]

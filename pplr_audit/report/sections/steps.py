"""What is read in a round's first step beside what is read later: whether an old copy of the client's layers protects.

Who balances the clients has their layers as they were at the start of the round, which are exact in the first step.
"""

from collections.abc import Sequence

from pplr_audit.report.cells import Finding, Series, is_measured
from pplr_audit.report.content import Block, Cell, Fold, Table, Text, labels
from pplr_audit.report.details import Mean, explained, steps_of
from pplr_audit.report.quantities import MISSING, interval, number, ranges
from pplr_audit.report.vocabulary import cut_words

OPEN_ROWS = 24
"""Rows up to which the table stands open."""
COPY = "front"
"""The knowledge of the layers at the start of the round."""


def by_step(secret: str, metric: str, attacks: Sequence[Series]) -> list[Block]:
    """Of the attacks on training channels, by one metric; nothing where none of them tells steps or its copy apart."""
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
        f"{secret}: {metric} in a round's first step and in later ones, means over users with 95% intervals; each user "
        "was attacked in one of them. What a copy explains is over all users: the pieces that it reproduces exactly, "
        "or how far what it makes of the best answer is from what crossed."
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
    near = step.ci[0] <= row["baseline"]
    note = f"{interval(row['metric'], list(step.ci))}, {users}"
    return Cell(number(row["metric"], step.value), note, mark="near" if near else "value")


def _copy(row: Finding) -> Cell:
    words, note = explained(row["detail"])
    return Cell(words, note) if words else Cell(MISSING, mark="status")


def _verdict(told: Sequence[tuple[str, Finding]]) -> list[Block]:
    """Whether what a copy of the start of the round gives is less once it is some steps old."""
    places = []
    if not any(row["knowledge"] == COPY for _, row in told):
        text = "No adversary here had the client's layers of the start of the round, so nothing is said of an old copy."
        return [Text(text)]
    for label, row in told:
        first, later = steps_of(row["detail"])
        if row["knowledge"] == COPY and first and later and first.ci and later.ci:
            places.append((label, row, first, later, first.ci, later.ci))
    if not places:
        return []
    lower = [place for place in places if place[5][1] < place[4][0]]
    higher = sum(place[5][0] > place[4][1] for place in places)
    of = f"of {len(places)} places (attack and cut)"
    lead = (
        "Who balances the clients has their layers as they were when the round started: exact in the first step, some "
        "steps old later."
    )
    if lower:
        label, row, first, later, *_ = max(lower, key=lambda place: place[2].value - place[3].value)
        at = f"{label} at {cut_words(row['cut'])}"
        fell = f"{number(row['metric'], first.value)} to {number(row['metric'], later.value)}"
        left = sum(place[5][0] > place[1]["baseline"] for place in lower)
        text = f"An old copy reads less, by intervals that do not meet, at {len(lower)} {of}, most for {at}: {fell}"
        text += f"; at {left} of them later steps still lie above the baseline."
    else:
        fewest = sorted({min(place[2].n, place[3].n) for place in places})
        users = f"{ranges(fewest)} user{'s' if fewest != [1] else ''}"
        text = (
            f"At none {of} does an old copy measurably read less: what protection it may be is not seen here, where "
            f"the smaller side has {users}."
        )
    more = f" At {higher} of them later steps give more." if higher else ""
    return [Text(f"{lead} {text}{more}")]

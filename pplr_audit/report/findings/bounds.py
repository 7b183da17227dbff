"""The most that attacks read at each cut: each kind of channel by itself, and one upper bound over all of them.

The bound is the highest upper end of the simultaneous intervals of all attacks at a cut. These hold together for all
findings of one secret and metric, so that picking the strongest attack does not spoil them. A kind of channel that
crosses at the cut and has no value there is unknown: the bound says nothing of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pplr_audit.report.findings.by_cut import SIDES, Pair, Side, rows_at, speakers
from pplr_audit.report.findings.series import Finding, distinct, headline, is_measured, place, strongest
from pplr_audit.report.words.vocabulary import KINDS
from pplr_audit.runs.documents import Document

QUESTIONS = (("history", "items"), ("label", "targets"))
"""Secrets that ask the same: of a user's sequence, and of a client's update."""
WHERE_THE_CUT_IS_OPEN = frozenset(KINDS) - {"updates"}
"""Kinds of channels that need a block on the server."""
NOT_IN = {"serving": frozenset({"label", "targets"})}
"""Secrets that a kind of channel cannot hold: nobody is trained on what a trained model is asked."""

Unit = tuple[str, str]
"""Secret and metric: values of one unit can be compared, and their simultaneous intervals hold together."""


@dataclass(frozen=True)
class Column:
    """A kind of channel, and the secret and metric by which it is told; no metric where none has a value."""

    kind: str
    secret: str
    metric: str

    @property
    def unit(self) -> Unit:
        """Secret and metric."""
        return self.secret, self.metric


@dataclass(frozen=True)
class CutBound:
    """What attacks read at one cut.

    Args:
        told: the strongest finding of each kind of channel; one without a value where none has one, or none.
        highs: the upper bound over all attacks, by secret and metric.
        unknown: kinds of channels that cross here and have no value.
        closed: whether no block is left for the server.
    """

    cut: Pair
    told: Mapping[Column, Finding | None]
    highs: Mapping[Unit, float]
    unknown: tuple[str, ...]
    closed: bool

    def crosses(self, column: Column) -> bool:
        """True if channels of this kind cross here."""
        return not (self.closed and column.kind in WHERE_THE_CUT_IS_OPEN)


def questions(rows: Sequence[Finding]) -> Iterator[tuple[tuple[str, ...], list[Finding]]]:
    """Yield the secrets that are told together with their findings; each attribute is told by itself."""
    for secrets in QUESTIONS:
        own = [row for row in rows if row["secret"] in secrets]
        if own:
            yield secrets, own
    of_users = [row for row in rows if row["secret"] == "attribute"]
    for name in sorted({str(row["detail"].get("attribute", "")) for row in of_users if is_measured(row)}):
        yield ("attribute",), [row for row in of_users if row["detail"].get("attribute", name) == name]


def audited(rows: Sequence[Finding], layers: int) -> list[Pair]:
    """Return the cuts that findings name in full; where none names an open one, all at which one has a value."""
    named = {place(row["cut"]) for row in rows if -1 not in place(row["cut"])}
    if any(sum(cut) < layers for cut in named):
        return sorted(named)
    return sorted(speakers(rows, layers))


def columns_of(rows: Sequence[Finding], secrets: Sequence[str]) -> list[Column]:
    """Return a column for each kind of channel, by the secret that most kinds have a value of."""
    metrics = {secret: headline([row for row in rows if row["secret"] == secret], secret) for secret in secrets}

    def measured(kind: str, secret: str) -> bool:
        return any(
            row["secret"] == secret and row["metric"] == metrics[secret] and is_measured(row)
            for row in _of_kind(rows, kind)
        )

    order = sorted(secrets, key=lambda secret: -sum(measured(kind, secret) for kind in KINDS))
    columns = []
    for kind in KINDS:
        own = _of_kind(rows, kind)
        found = next((secret for secret in order if measured(kind, secret)), None)
        if found is not None:
            columns.append(Column(kind, found, str(metrics[found])))
        elif (kind != "serving" or own) and not NOT_IN.get(kind, frozenset()) & set(secrets):
            columns.append(Column(kind, str(distinct(own, "secret")[0]) if own else secrets[-1], ""))
    return columns


def bounds(
    rows: Sequence[Finding], columns: Sequence[Column], cuts: Sequence[Pair], run: Document
) -> dict[Pair, CutBound]:  # fmt: skip
    """Return what is read at each of the cuts, by one defense.

    Args:
        rows: findings of one question; those that name no cut count at every cut.
    """
    layers = run["layers"]
    units = dict.fromkeys(column.unit for column in columns if column.metric)
    return {cut: _bound(rows_at(rows, cut, layers), cut, columns, [*units], layers) for cut in cuts}


def along(found: Mapping[Pair, CutBound], side: Side, run: Document) -> list[CutBound]:
    """Return the cuts against one side with the other as near to what ran as there is, then one that is closed."""
    at = SIDES.index(side)
    other = SIDES[1 - at]
    open_ = [each for each in found.values() if not each.closed]
    beside = {each.cut[1 - at] for each in open_}
    if not beside:
        return [*found.values()][:1]
    held = min(beside, key=lambda depth: (abs(depth - run["cut"][other]), depth))
    line = sorted((each for each in open_ if each.cut[1 - at] == held), key=lambda each: each.cut[at])
    return [*line, *[each for each in found.values() if each.closed][:1]]


def simultaneous(row: Finding) -> list[float]:
    """Return the simultaneous interval of a finding that has a value; its own where there is none."""
    return [float(end) for end in (row["corrected"]["ci"] if "corrected" in row else row["ci"])]


def _bound(at: Sequence[Finding], cut: Pair, columns: Sequence[Column], units: Sequence[Unit], layers: int) -> CutBound:
    told = {column: _told(_of_kind(at, column.kind), column) for column in columns}
    of_unit = {unit: [r for r in at if (r["secret"], r["metric"]) == unit and is_measured(r)] for unit in units}
    highs = {unit: max(simultaneous(row)[1] for row in own) for unit, own in of_unit.items() if own}
    found = CutBound(cut, told, highs, (), sum(cut) == layers)
    unknown = [c.kind for c, row in told.items() if found.crosses(c) and (row is None or not is_measured(row))]
    return replace(found, unknown=tuple(unknown))


def _told(rows: Sequence[Finding], column: Column) -> Finding | None:
    own = [row for row in rows if (row["secret"], row["metric"]) == column.unit]
    tried = [*own, *rows]
    named = next((row for row in tried if row["cut"] is not None and not is_measured(row)), None)
    return strongest(own) or named or next((row for row in tried if not is_measured(row)), None)


def _of_kind(rows: Sequence[Finding], kind: str) -> list[Finding]:
    return [row for row in rows if row["channel"] in KINDS[kind]]

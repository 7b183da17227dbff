"""Section on updates: what each channel that carries one gives, and what that is beside activations at every cut."""

from collections.abc import Sequence

from pplr_audit.report.blocks.content import Block, Cell, Figure, Fold, Section, Table, Text, labels, numbers
from pplr_audit.report.charts.side_by_side import finding_words, side_by_side_chart
from pplr_audit.report.findings.bounds import Column, CutBound, along, audited, bounds, columns_of, questions
from pplr_audit.report.findings.by_cut import SIDES, Pair, said
from pplr_audit.report.findings.recipe import recipe_words
from pplr_audit.report.findings.series import Finding, above_baseline, distinct, is_measured, overall, value_cell
from pplr_audit.report.findings.update_channels import Said, attacked, said_by_updates
from pplr_audit.report.sections.users import OPEN_ROWS
from pplr_audit.report.words.quantities import MISSING, interval, number
from pplr_audit.report.words.vocabulary import STATUS, cut_words, metric_words, secret_words
from pplr_audit.runs.documents import Document

LEAD = (
    "An update crosses once a round, also where no block is left for the server. It is of all that a client trained "
    "on in the round, so that what is read of it is a set: items, tokens, an attribute."
)
SIDE_BY_SIDE = (
    "The upper bound is the highest end of the simultaneous 95% intervals of all attacks at a cut, on whichever "
    "channel, and holds for the strongest of them. It is what a choice of the cut goes by. It bounds the tested "
    "attacks alone. A kind of channel that crosses and has no value is unknown: it is not zero, and the bound says "
    "nothing of it. Metadata and losses count where an attack read them; sums over all clients do not, as they answer "
    'for all at once. At "all" no block is left for the server.'
)
APART = (
    "Figures of different secrets cannot be compared: of activations and gradients the question is a user's sequence, "
    "of updates all that a client trained on. Each has a bound of its own."
)
TOGETHER = "All figures of {} answer the same question by the same metric, so that they can be compared."


def updates(findings: Document) -> tuple[Section, ...]:
    """Show what updates say; no section where no attack on one was part of the audit."""
    rows = overall(findings["findings"])
    if not attacked(findings):
        return ()
    blocks: list[Block] = [Text(f"{LEAD} {_whose(findings['run'])}"), by_channel(findings)]
    cuts = audited(rows, findings["run"]["layers"])
    beside = [
        block
        for defense in distinct(rows, "defense")
        for secrets, own in questions([row for row in rows if row["defense"] == defense])
        for block in _side_by_side(secrets, own, cuts, findings["run"])
    ]
    blocks += [Text(SIDE_BY_SIDE), *beside] if beside else []
    return (Section("updates", "What updates say", tuple(blocks)),)


def _whose(run: Document) -> str:
    if all(client["users"] == 1 for client in run["clients"]):
        return "Each client is one user here, so that it is read of this user."
    return (
        f"Each of the {len(run['clients'])} clients is a group of users here: it is read which items the group has, "
        "and not who of them has which."
    )


def by_channel(findings: Document) -> Table:
    """One row for each secret and channel of updates: the strongest attack at any cut, and how the others ended."""
    told = said_by_updates(findings)
    under = [*told[0].under]
    metrics = dict.fromkeys((each.secret, each.found["metric"]) for each in told if each.found is not None)
    columns = (
        "secret", "channel", *under, "strongest at any cut", "attack", "cut", "its control", "on the reserve",
        "attacks",
    )  # fmt: skip
    caption = (
        f"The strongest attack on each channel of updates, with 95% interval and baseline"
        f"{''.join(f'; {secret} by {metric}: {metric_words(metric)}' for secret, metric in metrics)}. "
        f"{recipe_words(findings['run'])} Its control is what the same attack reads of updates of other clients; on "
        "the reserve: of updates that the same clients would send had they trained on other users."
    )
    return Table(caption, columns, tuple(map(_channel, told)), headers=2)


def _channel(said: Said) -> tuple[Cell, ...]:
    row, named = said.found, labels(said.secret, said.channel, *said.under.values())
    ended = Cell(said.ended, said.reason)
    if row is None:
        return (*named, value_cell(said.tried[0]), *labels(MISSING, MISSING), *numbers(MISSING, MISSING), ended)
    where = labels(row["attack"], cut_words(row["cut"]))
    return (*named, value_cell(row), *where, _beside(row, "control"), _beside(row, "reserve"), ended)


def _beside(row: Finding, name: str) -> Cell:
    for each in row.get("comparisons", ()):
        if each["name"] == name:
            return Cell(number(row["metric"], each["value"]), interval(row["metric"], each["ci"]), mark="number")
    return Cell(MISSING, mark="number")


def _side_by_side(
    secrets: Sequence[str], rows: Sequence[Finding], cuts: Sequence[Pair], run: Document
) -> list[Block]:  # fmt: skip
    columns = columns_of(rows, secrets)
    units = [*dict.fromkeys(column.unit for column in columns if column.metric)]
    found, defense = bounds(rows, columns, cuts, run), rows[0]["defense"]
    if not units or not found or all(row["cut"] is None for row in rows if is_measured(row)):
        return []
    charts = tuple(
        side_by_side_chart(unit, line, columns, side)
        for side in SIDES
        if len(line := along(found, side, run)) > 1
        for unit in units
    )
    about = " and ".join(secret_words(secret) for secret in dict.fromkeys(column.secret for column in columns))
    under = "" if defense == "none" else f"; defense {defense}"
    apart = "" if sum(bool(c.metric) for c in columns) < 2 else APART if len(units) > 1 else TOGETHER.format(*units[0])
    table = _table(about + under, found, columns, units)
    title = f"Side by side at every cut ({len(table.rows)} rows)"
    return [
        *([Figure(f"Activations and updates side by side, and the upper bound over both: {about}{under}", charts)]
          if charts else []),
        *(Text(text) for text in (apart, *(_moved(along(found, side, run), columns) for side in SIDES)) if text),
        table if len(table.rows) <= OPEN_ROWS else Fold(title, (table,)),
    ]  # fmt: skip


def _moved(line: Sequence[CutBound], columns: Sequence[Column]) -> str:
    """Say how each kind of channel changes from the first to the last cut of a line that leaves the server a block."""
    open_ = [each for each in line if not each.closed]
    if len(open_) < 2:
        return ""
    first, last, end = open_[0], open_[-1], line[-1]
    one = len({column.unit for column in columns if column.metric}) == 1
    named = {column: column.kind if one else f"{column.kind} ({column.secret})" for column in columns if column.metric}
    told = [f"{name} from {_value(first, c)} to {_value(last, c)}" for c, name in named.items()]
    closed = [f"{name} {_value(end, c)}" for c, name in named.items() if end.closed and end.crosses(c)]
    rest = f"; with no block left for the server, {', '.join(closed)}" if closed else ""
    return f"Between {said(first.cut)} and {said(last.cut)}: {', '.join(told)}{rest}."


def _value(each: CutBound, column: Column) -> str:
    row = each.told[column]
    return number(column.metric, row["value"]) if row is not None and is_measured(row) else "unknown"


def _table(about: str, found: dict[tuple[int, int], CutBound], columns: Sequence[Column],
           units: Sequence[tuple[str, str]]) -> Table:  # fmt: skip
    body = tuple(
        (
            Cell(said(cut), "no block left for the server" if each.closed else ""),
            *(_reading(each, column) for column in columns),
            _high(each, units),
            Cell(", ".join(each.unknown) or "nothing", mark="status" if each.unknown else ""),
        )
        for cut, each in found.items()
    )
    heads = (f"{c.kind}: {c.secret} {c.metric}" if c.metric else c.kind for c in columns)
    caption = (
        f"The strongest attack on each kind of channel at every cut, with its simultaneous 95% interval, and the upper "
        f"bound over all of them: {about}."
    )
    return Table(caption, ("cut", *heads, "upper bound", "unknown"), body)


def _reading(each: CutBound, column: Column) -> Cell:
    row = each.told[column]
    if not each.crosses(column):
        return Cell("nothing crosses", mark="status")
    if row is None:
        return Cell("unknown", "not attacked here", mark="status")
    if not is_measured(row):
        return Cell("unknown", f"{row['attack']}: {STATUS[row['status']]}", mark="status")
    value, _, how = finding_words(row).partition(" ")
    return Cell(value, how, mark="value" if above_baseline(row) else "near")


def _high(each: CutBound, units: Sequence[tuple[str, str]]) -> Cell:
    told = [f"{secret} {number(metric, each.highs[secret, metric])}" if len(units) > 1
            else number(metric, each.highs[secret, metric])
            for secret, metric in units if (secret, metric) in each.highs]  # fmt: skip
    if not told:
        return Cell("unknown", mark="status")
    return Cell("; ".join(told), f"without {', '.join(each.unknown)}" if each.unknown else "", mark="value")

"""Kinds of channels side by side against the depth of the cut, under the upper bound over all of them."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import REFERENCE, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, linear_ticks, widened
from pplr_audit.report.findings.bounds import Column, CutBound, Unit, simultaneous
from pplr_audit.report.findings.by_cut import SIDES, Side, said
from pplr_audit.report.findings.series import Finding, is_measured, reason
from pplr_audit.report.words.quantities import interval, is_rate, number
from pplr_audit.report.words.vocabulary import KINDS, STATUS, metric_words

WIDTH, HEIGHT = 300, 226


def side_by_side_chart(unit: Unit, cuts: Sequence[CutBound], columns: Sequence[Column], side: Side) -> Chart:
    """Draw what each kind of channel gives of one secret by one metric, with simultaneous intervals, and their bound.

    Args:
        cuts: in the order of the depth; a closed one, which has no other side, stands last.
    """
    mine = [column for column in columns if column.unit == unit]
    plot = _frame(unit, cuts, mine, side)
    for column in mine:
        plot.name(column.kind, _tone(column))
        for at, each in enumerate(cuts):
            row = each.told[column]
            if row is not None and is_measured(row):
                low, high = simultaneous(row)
                plot.line([(_x(at, column), low), (_x(at, column), high)], _tone(column), "whisker")
                plot.mark((_x(at, column), row["value"]), _tone(column), f"{said(each.cut)}: {finding_words(row)}")
            elif each.crosses(column):
                why = f"{STATUS[row['status']]}. {reason(row)}" if row is not None else "not attacked"
                plot.gap(_x(at, column), f"{said(each.cut)}, {column.kind}: unknown: {why}")
    _draw_bound(plot, unit, cuts)
    return plot.chart(_description(unit, cuts, mine))


def finding_words(row: Finding) -> str:
    """Say value, simultaneous interval and attack, and the channel where its kind has one that says more."""
    metric, channel = row["metric"], row["channel"]
    where = "" if any(names[0] == channel for names in KINDS.values()) else f" on {channel}"
    return f"{number(metric, row['value'])} {interval(metric, simultaneous(row))}, {row['attack']}{where}"


def _frame(unit: Unit, cuts: Sequence[CutBound], columns: Sequence[Column], side: Side) -> Plot:
    secret, metric = unit
    measured = [row for each in cuts for c in columns if (row := each.told[c]) is not None and is_measured(row)]
    tops = [each.highs[unit] for each in cuts if unit in each.highs]
    found = [end for row in measured for end in (*simultaneous(row), row["value"])]
    low, high = (0.0, 1.0) if is_rate(metric) or not found else widened(min(found), max([*found, *tops]))
    letter, behind = {"front": ("k", "in front"), "back": ("m", "at the back")}[side]
    other = "km"[1 - SIDES.index(side)]
    held = next((each.cut[1 - SIDES.index(side)] for each in cuts if not each.closed), None)
    title = f"{secret} against {letter}" + (f", with {other}={held}" if held is not None else "")
    x = Scale(-0.5, len(cuts) - 0.5, 40, WIDTH - 10)
    plot = Plot(x, Scale(low, high, HEIGHT - 54, 42), title, WIDTH, HEIGHT, metric_words(metric))
    ticks = [(float(at), "all" if each.closed else str(each.cut[SIDES.index(side)])) for at, each in enumerate(cuts)]
    plot.x_ticks(ticks[:: max(1, len(ticks) // 12)], f"blocks kept {behind}, {letter}")
    y = linear_ticks(low, high, 5)
    plot.y_ticks([(tick, f"{100 * tick:.0f}%" if is_rate(metric) else f"{tick:.4g}") for tick in y])
    return plot


def _draw_bound(plot: Plot, unit: Unit, cuts: Sequence[CutBound]) -> None:
    """A bar over each cut: whole where every kind of channel is known, dotted where one is not."""
    drawn = set()
    for at, each in enumerate(cuts):
        if unit in each.highs:
            kind = "dotted" if each.unknown else "rule"
            drawn.add(kind)
            plot.line([(at - 0.45, each.highs[unit]), (at + 0.45, each.highs[unit])], REFERENCE, kind)
    if "rule" in drawn:
        plot.name("upper bound over all attacks", REFERENCE, "rule")
    if "dotted" in drawn:
        plot.name("upper bound, with a kind of channel unknown", REFERENCE, "dotted")


def _tone(column: Column) -> int:
    return [*KINDS].index(column.kind)


def _x(at: int, column: Column) -> float:
    """Kinds stand beside each other, so that no interval hides another."""
    return at + 0.16 * (_tone(column) - (len(KINDS) - 1) / 2)


def _description(unit: Unit, cuts: Sequence[CutBound], columns: Sequence[Column]) -> str:
    secret, metric = unit
    parts = []
    for each in cuts:
        told = [
            f"{column.kind} {number(metric, row['value'])}"
            if (row := each.told[column]) is not None and is_measured(row)
            else f"{column.kind} unknown"
            for column in columns
            if each.crosses(column)
        ]
        high = [f"upper bound {number(metric, each.highs[unit])}"] if unit in each.highs else []
        parts.append(f"at {said(each.cut)} {', '.join([*told, *high])}")
    return f"{secret}, {metric_words(metric)}: {'; '.join(parts)}."

"""Leakage against the depth of the cut: a line with its 95 % band for each attack, and the baseline under it."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import REFERENCE, TONES, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, linear_ticks, widened
from pplr_audit.report.findings.series import Finding, Series, depth_of, depths, is_measured, reason, value_words
from pplr_audit.report.words.quantities import is_rate
from pplr_audit.report.words.vocabulary import STATUS, metric_words

WIDTH, HEIGHT = 256, 214

MARKS = 8
"""Points of a line from which on only every second, third, ... carries a mark."""


def leakage_chart(metric: str, lines: Sequence[Series], title: str = "", width: int = WIDTH) -> Chart:
    """One metric on one channel, against k (or m, for a channel that depends on the back cut alone)."""
    of_metric = [Series(s.label, tuple(row for row in s.rows if row["metric"] == metric)) for s in lines]
    drawn = [s for s in of_metric if s.rows][:TONES]
    rows = [row for s in drawn for row in s.rows]
    plot = _frame(metric, rows, title, width)
    floors = {tuple((depth_of(row), row["baseline"]) for row in s.rows if is_measured(row)) for s in drawn}
    shared = len(floors - {()}) == 1
    for tone, s in enumerate(drawn):
        plot.name(s.label, tone)
    plot.name("baseline", REFERENCE if shared else 0, "dotted")
    for tone, s in enumerate(drawn):
        _draw(plot, s, tone, REFERENCE if shared else tone)
    left_out = len([s for s in of_metric if s.rows]) - len(drawn)
    if left_out:
        plot.name(f"and {left_out} more in the table", REFERENCE, "words")
    return plot.chart(_description(metric, drawn))


def _frame(metric: str, rows: Sequence[Finding], title: str, width: int) -> Plot:
    ks = depths(rows) or [0]
    x = Scale(min(ks) - 0.3, max(ks) + 0.3, 40, width - 10)
    measured = [row for row in rows if is_measured(row)]
    if is_rate(metric) or not measured:
        low, high = 0.0, 1.0
    else:
        ends = [v for row in measured for v in (*row["ci"], row["baseline"])]
        low, high = widened(min(ends), max(ends))
    y = Scale(low, high, HEIGHT - 42, 42)
    words = metric_words(metric)
    plot = Plot(x, y, title or metric, width, HEIGHT, words if title or words != metric else "")
    by_back = any(row["cut"] and row["cut"]["front"] is None for row in rows)
    step = max(1, len(ks) // 8)
    plot.x_ticks(
        [(k, str(k)) for k in ks[::step]], "blocks kept at the back, m" if by_back else "blocks kept in front, k"
    )
    ticks = linear_ticks(low, high, 5)
    plot.y_ticks([(t, f"{100 * t:.0f}%" if is_rate(metric) else f"{t:.4g}") for t in ticks])
    return plot


def _draw(plot: Plot, s: Series, tone: int, baseline_tone: int) -> None:
    for run in _unbroken(s):
        ks = [float(depth_of(row) or 0) for row in run]
        values = [row["value"] for row in run]
        lower, upper = [row["ci"][0] for row in run], [row["ci"][1] for row in run]
        if len(run) > 1:
            plot.band(list(zip(ks, lower, strict=True)), list(zip(ks, upper, strict=True)), tone)
            plot.line(list(zip(ks, values, strict=True)), tone)
        else:
            plot.line([(ks[0], lower[0]), (ks[0], upper[0])], tone, "whisker")
        floor = [(k, row["baseline"]) for k, row in zip(ks, run, strict=True)]
        ends = [(ks[0] - 0.3, floor[0][1]), (ks[-1] + 0.3, floor[-1][1])]
        plot.line([ends[0], *floor, ends[1]], baseline_tone, "dotted")
        step = max(1, len(run) // MARKS)
        for k, row in list(zip(ks, run, strict=True))[::step]:
            by = "" if row["attack"] in s.label else f", {row['attack']} on {row['channel']}"
            plot.mark((k, row["value"]), tone, f"{s.label}, {row['metric']}, {k:.0f}: {value_words(row)}{by}")
    for row in s.rows:
        depth = depth_of(row)
        if not is_measured(row) and depth is not None:
            plot.gap(depth, f"{s.label}, {depth}: {STATUS[row['status']]}. {reason(row)}")


def _unbroken(s: Series) -> list[list[Finding]]:
    """Stretches of measured depths: a line must not run across a depth that has no value."""
    stretches: list[list[Finding]] = []
    open_stretch = False
    for row in s.rows:
        if not is_measured(row):
            open_stretch = False
        elif open_stretch:
            stretches[-1].append(row)
        else:
            stretches.append([row])
            open_stretch = True
    return stretches


def _description(metric: str, drawn: Sequence[Series]) -> str:
    parts = []
    for s in drawn:
        measured = [row for row in s.rows if is_measured(row)]
        if measured:
            ends = [measured[0], measured[-1]] if len(measured) > 1 else measured
            parts.append(f"{s.label}: " + "; ".join(f"at {depth_of(row)} {value_words(row)}" for row in ends))
        else:
            parts.append(f"{s.label}: no value")
    return f"{metric_words(metric)} against the depth of the cut. {'. '.join(parts)}."

"""One value with its interval and its baseline for each attack: whether it stands clear of the baseline."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import REFERENCE, Chart, Label, Plot
from pplr_audit.report.blocks.scales import Scale, linear_ticks, widened
from pplr_audit.report.findings.series import Finding, is_measured, value_words
from pplr_audit.report.words.quantities import is_rate
from pplr_audit.report.words.vocabulary import STATUS, metric_words

WIDTH = 400
LANES = 12
"""Attacks drawn; the table has them all."""

_LANE = 52


def against_baseline_chart(metric: str, findings: Sequence[tuple[str, Finding]]) -> Chart:
    """A lane for each labeled finding: dot, 95 % interval, and the baseline as a bar across the lane."""
    drawn = findings[:LANES]
    ends = [v for _, row in drawn if is_measured(row) for v in (*row["ci"], row["baseline"])] or [0.0, 1.0]
    low, high = widened(min(ends), max(ends))
    bottom = 42 + _LANE * len(drawn)
    plot = Plot(
        Scale(low, high, 12, WIDTH - 12),
        Scale(0, len(drawn), bottom, 42),
        metric,
        WIDTH,
        bottom + 42,
        metric_words(metric),
    )
    plot.x_ticks(
        [(t, f"{100 * t:.3g}%" if is_rate(metric) else f"{t:.3g}") for t in linear_ticks(low, high, 6)], metric, True
    )
    for i, (label, row) in enumerate(drawn):
        y = len(drawn) - i - 0.65
        text = _short(label if is_measured(row) else f"{STATUS[row['status']]}: {label}")
        plot.labels.append(Label("12", f"{plot.y(y) - 15:.1f}", text, "start", "name"))
        if is_measured(row):
            plot.line([(row["baseline"], y + 0.15), (row["baseline"], y - 0.15)], REFERENCE, "whisker")
            plot.line([(row["ci"][0], y), (row["ci"][1], y)], 0, "whisker")
            plot.mark((row["value"], y), 0, f"{label}: {value_words(row)}")
    plot.name("baseline", REFERENCE, "rule")
    said = "; ".join(
        f"{label}: {value_words(row) if is_measured(row) else STATUS[row['status']]}" for label, row in drawn
    )
    return plot.chart(f"{metric_words(metric)} with 95% interval against the baseline. {said}.")


def _short(label: str, limit: int = 58) -> str:
    """Shorten a label to the width of the picture."""
    return label if len(label) <= limit else f"{label[: limit - 1]}…"

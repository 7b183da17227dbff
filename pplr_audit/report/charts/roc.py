"""Membership curves on logarithmic axes, where the region that matters (few false alarms) is not a pixel wide."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import REFERENCE, TONES, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, decades
from pplr_audit.report.words.quantities import number
from pplr_audit.runs.documents import Document

WIDTH, HEIGHT = 440, 400


def roc_chart(curves: Sequence[tuple[str, Document]]) -> Chart:
    """True positives against false positives for each labeled curve, with the diagonal of a coin."""
    drawn = curves[:TONES]
    low = _lowest(drawn)
    plot = Plot(
        Scale(low, 1, 60, WIDTH - 14, log=True),
        Scale(low, 1, HEIGHT - 46, 42, log=True),
        "ROC",
        WIDTH,
        HEIGHT,
        "members found against false alarms",
    )
    ticks = [(t, f"{100 * t:g}%") for t in decades(low, 1)]
    plot.x_ticks(ticks, "false positive rate (logarithmic)", lines=True)
    plot.y_ticks(ticks)
    plot.line([(low, low), (1, 1)], REFERENCE, "dotted")
    for tone, (label, curve) in enumerate(drawn):
        points = [(x, y) for x, y in zip(curve["fpr"], curve["tpr"], strict=True) if y > 0]
        plot.line(_steps(points), tone)
        for x, y in _spread(points, low, tone):
            plot.mark((x, y), tone, f"{label}: {100 * y:.3g}% found at {100 * x:.3g}% false alarms")
        plot.name(f"{label} (AUC {number('auc', curve['auc'])})", tone)
    plot.name("a coin", REFERENCE, "dotted")
    if len(curves) > len(drawn):
        plot.name(f"and {len(curves) - len(drawn)} more in the table", REFERENCE, "words")
    said = "; ".join(f"{label}: AUC {number('auc', curve['auc'])}" for label, curve in drawn)
    return plot.chart(
        f"ROC curves, both axes logarithmic from {100 * low:g}% to 100%, with the diagonal of a coin. {said}."
    )


def _spread(points: Sequence[tuple[float, float]], low: float, tone: int) -> list[tuple[float, float]]:
    """Three points of a curve to mark, evenly on the logarithmic axis and elsewhere for each tone."""
    wanted = [low ** (0.7 - 0.25 * i - 0.035 * tone) for i in range(3)]
    return [min(points, key=lambda p: abs(p[0] - x)) for x in wanted] if points else []


def _lowest(curves: Sequence[tuple[str, Document]]) -> float:
    """The decade under the smallest rate that occurs: what lies below cannot be resolved by this many users."""
    rates = [rate for _, curve in curves for rate in curve["fpr"] if rate > 0]
    smallest = min(rates, default=0.01)
    return (
        next((low for low in (0.1, 0.01, 0.001, 0.0001) if smallest >= low * 0.999), 0.0001) if smallest < 0.1 else 0.01
    )


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A ROC curve is a staircase: between two thresholds nothing is interpolated."""
    path: list[tuple[float, float]] = []
    for x, y in points:
        if path:
            path.append((x, path[-1][1]))
        path.append((x, y))
    return path

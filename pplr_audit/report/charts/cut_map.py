"""A map of leakage over all cuts: k to the right, m upwards, the fuller the shade the more is read."""

from collections.abc import Iterable, Mapping

from pplr_audit.report.blocks.chart import Chart, Entry, Label, Path, Plot
from pplr_audit.report.blocks.scales import Scale
from pplr_audit.report.charts.mixing import LEVELS
from pplr_audit.report.findings.by_cut import Pair, cuts_by_finding, said, where
from pplr_audit.report.findings.series import Finding, above_baseline, is_measured, reason, settings_words, value_words
from pplr_audit.report.words.quantities import is_rate, stretches
from pplr_audit.report.words.vocabulary import STATUS, cut_words, metric_words
from pplr_audit.runs.documents import Document

LEFT, TOP, BELOW = 34, 58, 42
WIDTH = 256
"""Least width."""
NUMBERED = 12
"""Blocks up to which every square has its number."""

_SWATCH = "M4 1H24V13H4Z"


def shade_range(metric: str, rows: Iterable[Finding]) -> tuple[float, float]:
    """The values of no shade and of the darkest, the same in all maps of one metric."""
    if is_rate(metric) or metric == "mrr":
        return 0.0, 1.0
    if metric == "auc":
        return 0.5, 1.0
    ends = [value for row in rows if is_measured(row) for value in (row["value"], row["baseline"])]
    return min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1.0


def cut_map(
    title: str, subtitle: str, metric: str, told: Mapping[Pair, Finding], run: Document, shades: tuple[float, float]
) -> Chart:
    """A square for each cut, of the finding that speaks for it (``told``); findings without a value are crosses."""
    layers, ran = run["layers"], run["cut"]
    count = layers + 1
    width, height = max(4, min(34, 440 // count)), max(4, min(22, 330 // count))
    right, bottom = LEFT + width * count, TOP + height * count
    plot = Plot(
        Scale(0, count, LEFT, right),
        Scale(0, count, bottom, TOP),
        title,
        max(WIDTH, right + 12),
        bottom + BELOW,
        subtitle,
    )
    plot.title, plot.subtitle = _fitted(title, plot.width, 7.2), _fitted(subtitle, plot.width, 6.4)
    squares = _Squares(plot, width, height, gap=layers <= NUMBERED)
    values = {cut: row for cut, row in told.items() if is_measured(row)}
    for row, cuts in cuts_by_finding(values):
        plot.areas.append(Path(squares(cuts), 0, f"heat h{_level(row, shades)}", _tip(row)))
    if layers <= NUMBERED:
        for (k, m), row in values.items():
            y = plot.y(m + 0.5) + 4
            plot.labels.append(Label(f"{plot.x(k + 0.5):.1f}", f"{y:.1f}", _short(row), kind="square"))
    plot.grid.append(squares([cut for cut in told if sum(cut) < layers or cut in values]))
    closed = [(k, layers - k) for k in range(count) if (k, layers - k) not in values]
    for k, m in closed:
        plot.lines.append(Path(squares.diagonal(k, m), 0, "closed", f"{said((k, m))}: no block is left for the server"))
    for (k, m), row in told.items():
        if k + m < layers and not is_measured(row):
            plot.gap(k + 0.5, f"{said((k, m))}: {STATUS[row['status']]}. {reason(row)}", m + 0.5)
    plot.lines.append(Path(squares([(ran["front"], ran["back"])]), 0, "ran"))
    step = max(1, count // 12)
    ticks = [(depth + 0.5, str(depth)) for depth in range(0, count, step)]
    plot.x_ticks(ticks, "blocks kept in front, k")
    plot.y_ticks(ticks, lines=False)
    plot.labels.append(Label("2", f"{TOP - 10}", "blocks kept at the back, m", "start", "axis"))
    plot.legend[:0] = _legend(metric, shades)
    return plot.chart(_description(metric, title, values))


class _Squares:
    """Squares of a map as path data; without a gap between them those of one k run into each other."""

    def __init__(self, plot: Plot, width: int, height: int, *, gap: bool) -> None:
        self._plot, self._width, self._height, self._gap = plot, width, height, gap

    def __call__(self, cuts: Iterable[Pair]) -> str:
        behind: dict[int, list[int]] = {}
        for k, m in cuts:
            behind.setdefault(k, []).append(m)
        runs = [
            (k, low, high)
            for k, ms in behind.items()
            for low, high in ([(m, m) for m in ms] if self._gap else stretches(ms))
        ]
        return "".join(self._box(k, low, high) for k, low, high in runs)

    def diagonal(self, k: int, m: int) -> str:
        """A stroke through one square."""
        return f"M{self._plot.x(k) + 1:.0f} {self._plot.y(m) - 1:.0f}l{self._width - 2} -{self._height - 2}"

    def _box(self, k: int, low: int, high: int) -> str:
        inset = int(self._gap)
        wide, tall = self._width - 2 * inset, self._height * (high - low + 1) - 2 * inset
        return f"M{self._plot.x(k) + inset:.0f} {self._plot.y(high + 1) + inset:.0f}h{wide}v{tall}h-{wide}Z"


def _level(row: Finding, shades: tuple[float, float]) -> int:
    low, high = shades
    share: float = (row["value"] - low) / (high - low)
    return round(LEVELS * min(1.0, max(0.0, share)))


def _short(row: Finding) -> str:
    """A value in a square, never rounded to all or nothing."""
    value, near = row["value"], "" if above_baseline(row) else "≈"
    if not is_rate(row["metric"]):
        return f"{near}{value:.2f}"
    if 0 < value < 0.005:
        return f"{near}<1%"
    return f"{near}>99%" if 0.995 <= value < 1 else f"{near}{100 * value:.0f}%"


def _fitted(text: str, width: int, each: float) -> str:
    """Shorten a text to the width of the picture, at so many pixels a character; the table has it in full."""
    limit = int(width / each)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _tip(row: Finding) -> str:
    settings = f" ({settings_words(row)})" if settings_words(row) else ""
    how = f"{row['attack']}{settings} on {row['channel']} by {row['adversary']}, knowing {row['knowledge']}"
    return f"{cut_words(row['cut'])}: {value_words(row)}; {how}"


def _legend(metric: str, shades: tuple[float, float]) -> list[Entry]:
    low, high = shades
    levels = [(level, low + (high - low) * level / LEVELS) for level in (0, LEVELS // 2, LEVELS)]
    entries = [
        Entry(
            f"{100 * value:.0f}%" if is_rate(metric) else f"{value:.3g}", 0, "", f"heat outlined h{level}", line=_SWATCH
        )
        for level, value in levels
    ]
    return [
        *entries,
        Entry(
            "no activations, but updates, models, losses (k + m = L; not measured)",
            0,
            "",
            "closed",
            line="M4 13L24 1",
        ),
        Entry("the cut that ran", 0, "", "ran", line=_SWATCH),
    ]


def _description(metric: str, title: str, values: Mapping[Pair, Finding]) -> str:
    groups = sorted(cuts_by_finding(values), key=lambda group: float(group[0]["value"]), reverse=True)
    (most, at_most), (least, at_least) = groups[0], groups[-1]
    if most["value"] == least["value"]:
        told = f"at every cut that has a value {value_words(most)}"
    else:
        told = f"most at {where(at_most)}: {value_words(most)}; least at {where(at_least)}: {value_words(least)}"
    return f"{title}: {metric_words(metric)} at each cut (k, m); {told}. The table has every cut."

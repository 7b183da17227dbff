"""Recommendation quality: a dot with its interval for each client and strategy."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import REFERENCE, TONES, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, linear_ticks
from pplr_audit.report.words.quantities import interval, number
from pplr_audit.report.words.vocabulary import REFERENCES, metric_words
from pplr_audit.runs.documents import Document

WIDTH = 440
CLIENTS = 12
"""Clients drawn; with one user a client the picture would be miles long, the table has them all."""

_LANE = 11


def utility_chart(metric: str, rows: Sequence[Document], strategies: Sequence[str], clients: Sequence[str]) -> Chart:
    """One metric; clients down the side, one lane for each strategy, references hollow."""
    of_metric = [row for row in rows if row["metric"] == metric]
    drawn_clients, drawn = clients[:CLIENTS], strategies[:TONES]
    band = _LANE * len(drawn) + 12
    bottom = 26 + band * len(drawn_clients)
    high = max((row["ci"][1] for row in of_metric), default=1.0) * 1.04 or 1.0
    left = 20 + 6.2 * min(14, max((len(name) for name in drawn_clients), default=1))
    plot = Plot(
        Scale(0, high, left, WIDTH - 12),
        Scale(0, len(drawn_clients) * band, bottom, 26),
        metric_words(metric),
        WIDTH,
        bottom + 42,
    )
    plot.x_ticks([(t, f"{t:.3g}") for t in linear_ticks(0, high, 5)], metric_words(metric), lines=True)
    middles = [(len(drawn_clients) - i - 0.5) * band for i in range(len(drawn_clients))]
    names = [name if len(name) <= 14 else f"{name[:13]}…" for name in drawn_clients]
    plot.y_ticks(list(zip(middles, names, strict=True)), lines=False, kind="name")
    for row in of_metric:
        key = strategy_name(row)
        if row["client"] in drawn_clients and key in drawn:
            tone = drawn.index(key)
            y = middles[drawn_clients.index(row["client"])] + (len(drawn) / 2 - tone - 0.5) * _LANE
            plot.line([(row["ci"][0], y), (row["ci"][1], y)], tone, "whisker")
            tip = f"{row['client']}, {key}: {number(metric, row['value'])} {interval(metric, row['ci'])}, n={row['n']}"
            plot.mark((row["value"], y), tone, tip, hollow=row["strategy"] in REFERENCES)
    hollow = {strategy_name(row) for row in rows if row["strategy"] in REFERENCES}
    for tone, name in enumerate(drawn):
        plot.name(name, tone, "whisker", hollow=name in hollow)
    if len(strategies) > TONES:
        plot.name(f"{len(strategies) - TONES} more strategies in the table", REFERENCE, "words")
    if len(clients) > CLIENTS:
        plot.name(f"{len(clients) - CLIENTS} more clients in the table", REFERENCE, "words")
    of_all = [row for row in of_metric if row["client"] == drawn_clients[0]] if drawn_clients else []
    said = "; ".join(
        f"{strategy_name(row)} {number(metric, row['value'])} {interval(metric, row['ci'])}" for row in of_all
    )
    return plot.chart(
        f"{metric_words(metric)} with 95% intervals for each client and strategy. "
        f"Client {drawn_clients[0] if drawn_clients else '-'}: {said}."
    )


def _strategy(row: Document) -> str:
    return strategy_name(row)


def strategy_name(row: Document) -> str:
    """A strategy, and the defense it ran under if there was one."""
    name = str(row["strategy"]).replace("_", " ")
    return name if row["defense"] == "none" else f"{name} with {row['defense']}"

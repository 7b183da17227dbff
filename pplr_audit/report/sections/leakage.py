"""What leaks at each cut: a picture for each channel and metric, and the same numbers in a table."""

from collections.abc import Sequence

from pplr_audit.report.cells import (
    Finding,
    Series,
    depths,
    distinct,
    is_measured,
    metrics_in_order,
    overall,
    series,
    value_cell,
)
from pplr_audit.report.charts.leakage import leakage_chart
from pplr_audit.report.content import Block, Cell, Figure, Section, Table, Text, labels
from pplr_audit.report.document import Document
from pplr_audit.report.vocabulary import SECRETS, channel_words, metric_words

LEAD = (
    "k blocks stay on the client in front of the cut, m behind it; these channels exist while a trunk is left between "
    "them (k + m less than the number of blocks). Lines carry their 95% band (users resampled, one training run); "
    "the dotted line is the baseline: what the same attack scores where there is nothing to find. A cross marks a cut "
    "where an attack was tried or planned and has no value; it does not mean 0."
)


def leakage(findings: Document) -> Section:
    """Everything that depends on the cut, by secret and channel."""
    rows = [row for row in overall(findings["findings"]) if row["cut"] is not None]
    blocks: list[Block] = [Text(LEAD if rows else "No attack in this audit reads a channel that depends on the cut.")]
    for secret in distinct(rows, "secret"):
        of_secret = [row for row in rows if row["secret"] == secret]
        for channel in distinct(of_secret, "channel"):
            blocks += _channel(secret, channel, [row for row in of_secret if row["channel"] == channel])
    return Section("leakage", "What leaks at each cut", tuple(blocks))


def _channel(secret: str, channel: str, rows: Sequence[Finding]) -> list[Block]:
    metrics = metrics_in_order(rows, secret)
    lines = series(rows)
    words = channel_words(channel)
    caption = f"{secret} ({SECRETS[secret]}) from {channel}: {words.content} ({words.direction})"
    charts = tuple(leakage_chart(m, lines) for m in metrics if any(is_measured(r) for r in rows if r["metric"] == m))
    blocks: list[Block] = [Figure(caption, charts)] if charts else [Text(f"{caption}. No attack gave a value here.")]
    return [*blocks, _table(secret, channel, metrics, lines)]


def _table(secret: str, channel: str, metrics: Sequence[str], lines: Sequence[Series]) -> Table:
    by_back = any(row["cut"]["front"] is None for s in lines for row in s.rows)
    columns = ("attack", "m" if by_back else "k", *metrics, "n")
    rows = tuple(
        (
            *labels(s.label, str(k)),
            *(value_cell(s.at(k, metric)) for metric in metrics),
            Cell(_users(s, k), mark="number"),
        )
        for s in lines
        for k in depths(s.rows)
    )
    said = "; ".join(f"{metric} is {metric_words(metric)}" for metric in metrics if metric_words(metric) != metric)
    return Table(f"{secret} from {channel}, value with 95% interval and baseline. {said}.", columns, rows, headers=2)


def _users(s: Series, depth: int) -> str:
    """How many were scored; more than one number where metrics count different things."""
    rows = [row for row in s.rows if is_measured(row)]
    sizes = sorted({row["n"] for row in rows if s.at(depth, row["metric"]) is row})
    return "–" if not sizes else f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"

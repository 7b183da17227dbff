"""Section on leakage at each cut: a picture for each channel and metric, and the same numbers in a table."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import TONES
from pplr_audit.report.blocks.content import Block, Cell, Figure, Fold, Section, Table, Text, labels
from pplr_audit.report.charts.leakage import leakage_chart
from pplr_audit.report.findings.by_cut import SIDES
from pplr_audit.report.findings.series import (
    Cut,
    Finding,
    Series,
    distinct,
    is_measured,
    metrics_in_order,
    overall,
    series,
    strongest,
    value_cell,
)
from pplr_audit.report.sections.strongest import strongest_by_cut
from pplr_audit.report.sections.users import OPEN_ROWS
from pplr_audit.report.sentences.few_users import narrow_intervals
from pplr_audit.report.words.vocabulary import channel_words, cut_words, metric_words, secret_words
from pplr_audit.runs.documents import Document

LEAD = (
    "k blocks stay on the client in front of the cut, and m behind it. Activations and gradients cross while a trunk "
    "is left between them (k + m less than the number of blocks, L), updates and models at every cut. A map has a "
    "square for each cut. An attack that reads one side of the trunk reads the same at every depth of the other side, "
    "so it fills a column or a row. A place without a square was not part of this audit. Lines have a 95% band (users "
    "resampled, one training run). The dotted line is the baseline: chance, or the most of what popularity and the "
    "attack's control give. A cross marks a cut where an attack was tried or planned and has no value; it does not "
    "mean 0."
)

PICTURES = 4
"""Metrics of a channel that are drawn; the table has them all."""


def leakage(findings: Document) -> Section:
    """Everything that depends on the cut, by secret and channel; then what is read wherever the cut is."""
    rows = overall(findings["findings"])
    at_cut = [row for row in rows if row["cut"] is not None]
    blocks: list[Block] = [Text(LEAD if at_cut else "No attack in this audit reads a channel that depends on the cut.")]
    blocks += [Text(each) for each in narrow_intervals(findings)]
    for secret in distinct(at_cut, "secret"):
        for defense in distinct(at_cut, "defense"):
            under = [row for row in rows if row["secret"] == secret and row["defense"] == defense]
            blocks += strongest_by_cut(secret, under, findings["run"])
        of_secret = [row for row in at_cut if row["secret"] == secret]
        for channel in distinct(of_secret, "channel"):
            blocks += _channel(secret, channel, [row for row in of_secret if row["channel"] == channel])
    # membership has a section of its own
    anywhere = [row for row in rows if row["cut"] is None and row["secret"] != "membership"]
    for secret in distinct(anywhere, "secret"):
        blocks.append(_anywhere(secret, [row for row in anywhere if row["secret"] == secret]))
    return Section("leakage", "What leaks at each cut", tuple(blocks))


def _channel(secret: str, channel: str, rows: Sequence[Finding]) -> list[Block]:
    """A row of pictures for each defense, then the numbers: all of them, or the strongest with the rest folded."""
    metrics = metrics_in_order(rows, secret)
    words = channel_words(channel)
    caption = f"{secret_words(secret)} from {channel}: {words.content} ({words.direction})"
    defenses = distinct(rows, "defense")
    blocks: list[Block] = []
    for defense in defenses:
        under = [row for row in rows if row["defense"] == defense]
        lines = _fit_to_draw([s for s in series(under) if not s.two_sided])
        drawn = [row for s in lines for row in s.rows if is_measured(row)]
        charts = tuple(leakage_chart(m, lines) for m in metrics if any(r["metric"] == m for r in drawn))[:PICTURES]
        title = caption if len(defenses) == 1 else f"{caption}; defense {defense}"
        none = (
            "Its attacks depend on k and m, see the maps"
            if any(map(is_measured, under))
            else "No attack gave a value here"
        )
        blocks.append(Figure(title, charts) if charts else Text(f"{title}. {none}."))
    table = _table(secret, channel, metrics, series(rows))
    if len(table.rows) <= OPEN_ROWS:
        return [*blocks, table]
    return [
        *blocks,
        _strongest(secret, channel, metrics, rows),
        Fold(f"All attacks ({len(table.rows)} rows)", (table,)),
    ]


def _fit_to_draw(lines: Sequence[Series]) -> list[Series]:
    """The strongest lines first where a picture cannot hold all; else as they come: an attack keeps its color."""
    if len(lines) <= TONES:
        return list(lines)
    return sorted(lines, key=lambda s: max((r["value"] for r in s.rows if is_measured(r)), default=-1.0), reverse=True)


def _strongest(secret: str, channel: str, metrics: Sequence[str], rows: Sequence[Finding]) -> Table:
    body = []
    for defense in distinct(rows, "defense"):
        lines = series([row for row in rows if row["defense"] == defense])
        for cut in _cuts(lines):
            at = [row for s in lines for metric in metrics if (row := s.at(cut, metric)) is not None]
            body.append((*labels(cut_words(cut), defense), *(_best(at, metric) for metric in metrics)))
    caption = f"{secret} from {channel}: the strongest attack at each depth, with 95% interval and baseline"
    return Table(caption, ("cut", "defense", *metrics), tuple(body), headers=2)


def _cuts(lines: Sequence[Series]) -> list[Cut]:
    """The cuts of several series, in order."""
    every = Series("", tuple(row for s in lines for row in s.rows))
    return sorted(every.cuts, key=lambda cut: [cut[side] or 0 for side in SIDES] if cut else [])


def _best(rows: Sequence[Finding], metric: str) -> Cell:
    of_metric = [row for row in rows if row["metric"] == metric]
    found = strongest(of_metric) or next(iter(of_metric), None)
    cell = value_cell(found)
    return cell if found is None else Cell(cell.text, f"{found['attack']}: {cell.note}", cell.mark)


def _table(secret: str, channel: str, metrics: Sequence[str], lines: Sequence[Series]) -> Table:
    columns = ("attack", "cut", *metrics, "n")
    rows = []
    for s in lines:
        for cut in s.cuts:
            found = [s.at(cut, metric) for metric in metrics]
            rows.append((*labels(s.label, cut_words(cut)), *map(value_cell, found), Cell(_users(found), mark="number")))
    said = "; ".join(f"{metric} is {metric_words(metric)}" for metric in metrics if metric_words(metric) != metric)
    return Table(
        f"{secret} from {channel}, value with 95% interval and baseline. {said}.", columns, tuple(rows), headers=2
    )


def _anywhere(secret: str, rows: Sequence[Finding]) -> Table:
    """List what is read wherever the cut is, and attacks that found nothing to read at any cut."""
    metrics = metrics_in_order(rows, secret)
    body = tuple(
        (*labels(s.label, s.rows[0]["channel"]), *(value_cell(s.at(None, metric)) for metric in metrics))
        for s in series(rows)
    )
    caption = f"{secret_words(secret)} where the finding names no cut, with 95% interval and baseline"
    return Table(caption, ("attack", "channel", *metrics), body, headers=2)


def _users(found: Sequence[Finding | None]) -> str:
    """Say how many were scored; more than one number where metrics count different things."""
    sizes = sorted({row["n"] for row in found if row is not None and is_measured(row)})
    return "–" if not sizes else f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"

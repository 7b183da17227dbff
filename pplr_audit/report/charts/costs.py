"""Charts of a cut's price and gain: traffic and leakage against the share of the model that a client holds."""

import math
from collections.abc import Sequence
from typing import Any

from pplr_audit.report.blocks.chart import REFERENCE, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, decades, linear_ticks, widened
from pplr_audit.report.findings.series import Finding, value_words
from pplr_audit.report.words.quantities import is_rate, percent, size
from pplr_audit.report.words.vocabulary import cut_words, metric_words
from pplr_audit.runs.documents import Document

WIDTH, HEIGHT = 440, 290
NAMED = 8
"""Cuts that are named in the picture; with more only the one that ran and the deepest are."""

SHARE = "share of the parameters on the client"


def wire_chart(rows: Sequence[Document], ran: Any) -> Chart:
    """A dot for each cut with the back that ran, bytes on a logarithmic axis; the cut that ran is filled and named."""
    wire = [max(row["wire_bytes_per_round"], 1.0) for row in rows]
    low = 10.0 ** math.floor(math.log10(min(wire)))
    high = 10.0 ** math.ceil(math.log10(max(wire)) + 0.15)
    plot = Plot(
        Scale(0, 1, 62, WIDTH - 16),
        Scale(low, high, HEIGHT - 46, 42, log=True),
        "Traffic a round",
        WIDTH,
        HEIGHT,
        f"computed, m={ran['back']} at the back, logarithmic",
    )
    plot.x_ticks([(t, f"{100 * t:.0f}%") for t in linear_ticks(0, 1)], SHARE, lines=True)
    plot.y_ticks([(t, size(t)) for t in decades(low, high)])
    for row in sorted(rows, key=lambda row: bool(row["cut"] == ran)):
        is_run = row["cut"] == ran
        at = (row["client_share"], max(row["wire_bytes_per_round"], 1.0))
        tip = f"{cut_words(row['cut'])}: {percent(row['client_share'])} on the client, {size(at[1])} a round"
        plot.mark(at, 0 if is_run else REFERENCE, tip, hollow=not is_run)
        if is_run:
            plot.note_over(at, cut_words(ran))
    plot.name("the cut that ran", 0, "mark")
    plot.name("another cut", REFERENCE, "mark", hollow=True)
    ends = [min(rows, key=lambda row: row["client_share"]), max(rows, key=lambda row: row["client_share"])]
    said = "; ".join(
        f"{cut_words(row['cut'])}: {percent(row['client_share'])}, {size(row['wire_bytes_per_round'])}" for row in ends
    )
    return plot.chart(
        f"For each cut the bytes that cross in a round against the share of the parameters on a client. {said}."
    )


def bought_chart(metric: str, points: Sequence[tuple[Document, Finding]], ran: Any) -> Chart:
    """The strongest leak at each k against the share a client holds there: what depth buys."""
    ends = [v for _, row in points for v in (*row["ci"], row["baseline"])]
    low, high = (0.0, 1.0) if is_rate(metric) else widened(min(ends), max(ends))
    plot = Plot(
        Scale(0, 1, 50, WIDTH - 16),
        Scale(low, high, HEIGHT - 46, 42),
        "Strongest leak",
        WIDTH,
        HEIGHT,
        f"{metric}: {metric_words(metric)}",
    )
    plot.x_ticks([(t, f"{100 * t:.0f}%") for t in linear_ticks(0, 1)], SHARE, lines=True)
    plot.y_ticks([(t, f"{100 * t:.0f}%" if is_rate(metric) else f"{t:.4g}") for t in linear_ticks(low, high)])
    plot.line([(cost["client_share"], row["baseline"]) for cost, row in points], REFERENCE, "dotted")
    for cost, row in points:
        share = cost["client_share"]
        plot.line([(share, row["ci"][0]), (share, row["ci"][1])], 0, "whisker")
        plot.mark(
            (share, row["value"]), 0, f"{cut_words(row['cut'])}: {value_words(row)}, {percent(share)} on the client"
        )
        cut = cost["cut"]
        name = f"k={cut['front']}" if cut["back"] == ran["back"] else cut_words(cut)
        if len(points) <= NAMED:
            plot.note((share, row["value"]), name)
        elif cut["front"] == ran["front"] or cost is points[-1][0]:
            plot.note_under((share, row["ci"][0]), name)
    plot.name("strongest attack, 95% interval", 0, "whisker")
    plot.name("baseline", REFERENCE, "dotted")
    said = "; ".join(f"{percent(cost['client_share'])} on the client: {value_words(row)}" for cost, row in points)
    return plot.chart(f"{metric_words(metric)}, strongest attack at each cut, against the share on a client. {said}.")

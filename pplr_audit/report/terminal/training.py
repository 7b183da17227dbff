"""A training on a terminal: what it is worth to each client, and what a cut costs a client at each depth in front."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pplr_audit.report.charts.utility import strategy_name
from pplr_audit.report.findings.series import distinct
from pplr_audit.report.sentences.price import cost_at_front, headline_utility
from pplr_audit.report.terminal.findings import say_missing
from pplr_audit.report.words.quantities import MISSING, count, duration, interval, number, percent, size
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.report.words.vocabulary import REFERENCES, cut_words, metric_words
from pplr_audit.runs.documents import Document

if TYPE_CHECKING:
    from rich.table import Table

CLIENTS = 30
"""Clients shown; with one user a client there are as many as users, and the document has them all."""


def training_tables(document: Document) -> "tuple[Table, Table]":
    """Utility of each client beside its references, then the costs of each front."""
    document = cleaned(document)
    utility = _utility(document)
    say_missing(utility, document)
    return utility, _costs(document)


def _utility(document: Document) -> "Table":
    metric, overall = headline_utility(document)
    rows = [row for row in document["utility"] if row["metric"] == metric]
    strategies = [strategy_name(row) for row in overall]
    references = {strategy_name(row) for row in overall if row["strategy"] in REFERENCES}
    titles = [f"{name} (reference)" if name in references else name for name in strategies]
    at = {(row["client"], strategy_name(row)): row for row in rows}
    clients = sorted(distinct(rows, "client"), key=lambda name: name != "all")
    hidden = clients[CLIENTS + 1 :]
    body = []
    for client in clients[: CLIENTS + 1]:
        found = [at.get((client, strategy)) for strategy in strategies]
        sizes = [row["n"] for row, name in zip(found, strategies, strict=True) if row and name not in references]
        amounts = [f"{number(metric, row['value'])} {interval(metric, row['ci'])}" if row else MISSING for row in found]
        body.append((client, f"{sizes[0]:,}" if sizes else MISSING, *amounts))
    if hidden:
        body.append((f"and {len(hidden)} more", *("" for _ in ("users", *strategies))))
    title = f"{document['run']['name']}: {metric_words(metric)} of each client, 95% intervals"
    return _table(title, ("client", "users", *titles), body)


def _costs(document: Document) -> "Table":
    ran = document["run"]["cut"]
    rows = [row for row in document["costs"] if row["cut"] == ran]
    rows += [cost_at_front(document, k) for k in range(document["run"]["layers"] + 1) if k != ran["front"]]
    body = []
    for row in sorted(filter(None, rows), key=lambda row: row["cut"]["front"]):
        body.append(
            (
                cut_words(row["cut"]) + (" (ran)" if row["cut"] == ran else ""),
                percent(row["client_share"]),
                size(row["client_bytes"]),
                count(row["training_flops_per_token"]),
                size(row["wire_bytes_per_round"]),
                size(row["serving_wire_bytes_per_request"]),
                duration(row["seconds_per_round"]),
            )
        )
    head = ("cut", "client holds", "in bytes", "FLOP a token", "wire a round", "wire a request", "time a round")
    return _table("What a cut costs a client", head, body)


def _table(title: str, head: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    # Text, not str: a client's name must not be read as rich markup
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(head):
        table.add_column(Text(name), no_wrap=place == 0, justify="left" if place == 0 else "right")
    for cells in body:
        table.add_row(*map(Text, cells))
    return table

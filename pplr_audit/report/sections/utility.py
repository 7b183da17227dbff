"""Section on utility: quality of the recommendations overall and by client, next to references."""

from pplr_audit.report.blocks.content import Block, Cell, Figure, Fold, Items, Section, Table, Text, labels
from pplr_audit.report.charts.utility import strategy_name, utility_chart
from pplr_audit.report.findings.series import distinct
from pplr_audit.report.sentences.price import failed_rivals, left_out
from pplr_audit.report.words.quantities import MISSING, interval, number, signed
from pplr_audit.report.words.vocabulary import metric_words
from pplr_audit.runs.documents import Document

LEAD = (
    "The full catalogue is ranked without the items of the history. The 95% intervals resample users. References "
    "(hollow marks): untrained is the base model without its adapter; popularity ranks by how often an item occurs in "
    "training. A model that does not beat these two is of no use, whatever it leaks. Best possible is the expected "
    "figure of a recommender that knows how a synthetic market was drawn."
)
PICTURES = 2
MEASURES = {
    "standard_deviation": "standard deviation over clients", "worst_client": "worst client", "jain": "Jain's index",
}  # fmt: skip
EVENLY = (
    "How evenly the clients are served. Each client has the same weight, however many users it has. Standard "
    "deviation: smaller is more even. Worst client: the figure of the lowest client. Jain's index: 1 if all clients "
    "are equal, 1 / their number if one client has everything. The intervals resample users inside each client."
)
MEANS = {"mean": "mean over users"}
PAIRED = (
    "The strategy of this run minus each rival, which trained on the same samples with the same seed. The users are "
    "the same, so differences are resampled in pairs. An interval that contains 0 shows no difference beyond noise. A "
    "negative difference of the standard deviation means more even. The intervals hold for these trainings, not for "
    "trainings with other seeds."
)


def utility(findings: Document) -> Section:
    """Pictures of the first metrics, the table for all clients, and the single clients folded."""
    rows = findings["utility"]
    if not rows:
        return Section(
            "utility", "What the recommendations are worth", (Text("Utility was not measured in this audit."),)
        )
    metrics = distinct(rows, "metric")
    clients = sorted(distinct(rows, "client"), key=lambda name: name != "all")
    strategies = list(dict.fromkeys(strategy_name(row) for row in rows))
    charts = tuple(utility_chart(metric, rows, strategies, clients) for metric in metrics[:PICTURES])
    blocks: list[Block] = [Text(LEAD), Figure("Utility for each client and strategy, 95% intervals", charts)]
    first = _table(rows, metrics, strategies, clients[:1], "all users" if clients[0] == "all" else clients[0])
    blocks.append(first)
    if clients[1:]:
        blocks.append(
            Fold(f"Each client ({len(clients) - 1})", (_table(rows, metrics, strategies, clients[1:], "clients"),))
        )
    if findings.get("balance"):
        blocks += [Text(EVENLY), _balance(findings["balance"], metrics[:PICTURES])]
    if findings.get("differences"):
        blocks += [Text(PAIRED), *_differences(findings["differences"], metrics[:PICTURES])]
    missing = [*left_out(findings), *failed_rivals(findings)]
    if missing:
        blocks.append(Items(tuple(missing)))
    return Section("utility", "What the recommendations are worth", tuple(blocks))


def _differences(rows: list[Document], metrics: list[str]) -> list[Block]:
    """List how much the run's strategy is better than each rival: over all users and in balance, then by client."""
    at = {(row["against"], row["metric"], row["measure"], row["client"]): row for row in rows}
    strategy, clients = rows[0]["strategy"], [name for name in distinct(rows, "client") if name != "all"]

    def table(title: str, lines: list[tuple[str, str]]) -> Table:
        body = []
        for against in distinct(rows, "against"):
            for measure, client in lines:
                found = [at.get((against, metric, measure, client)) for metric in metrics]
                if any(found):
                    named = (MEANS | MEASURES)[measure] if client == "all" else client
                    body.append((*labels(against, named), *map(_difference, found)))
        columns = ("against", "difference of", *(metric_words(metric) for metric in metrics))
        return Table(title, columns, tuple(body), headers=2)

    first = table(f"{strategy} less its rivals, with 95% intervals", [(m, "all") for m in (*MEANS, *MEASURES)])
    if not clients:
        return [first]
    each = table(f"{strategy} less its rivals at each client", [("mean", client) for client in clients])
    return [first, Fold(f"Each client ({len(clients)})", (each,))]


def _difference(row: Document | None) -> Cell:
    if row is None:
        return Cell("not measured", mark="status")
    if row["ci"] is None:
        return Cell(signed(row["metric"], row["value"]), row.get("reason", MISSING), mark="value")
    low, high = (signed(row["metric"], end) for end in row["ci"])
    return Cell(signed(row["metric"], row["value"]), f"[{low}, {high}]", mark="value")


def _balance(rows: list[Document], metrics: list[str]) -> Table:
    """List how evenly the clients are served, for each strategy and the first metrics."""
    at = {(strategy_name(row), row["metric"], row["measure"]): row for row in rows}
    body = []
    for strategy in dict.fromkeys(strategy_name(row) for row in rows):
        for metric in metrics:
            found = [at.get((strategy, metric, measure)) for measure in MEASURES]
            if any(found):
                body.append((*labels(strategy, metric_words(metric)), *(_cell(row) for row in found)))
    columns = ("strategy", "metric", *MEASURES.values())
    return Table("Balance between clients, with 95% intervals", columns, tuple(body), headers=2)


def _table(rows: list[Document], metrics: list[str], strategies: list[str], clients: list[str], who: str) -> Table:
    at = {(row["client"], strategy_name(row), row["metric"]): row for row in rows}
    body = []
    for client in clients:
        for strategy in strategies:
            found = [at.get((client, strategy, metric)) for metric in metrics]
            if any(found):
                sizes = sorted({row["n"] for row in found if row})
                body.append(
                    (*labels(client, strategy), *(_cell(row) for row in found), Cell(f"{sizes[-1]:,}", mark="number"))
                )
    columns = ("client", "strategy", *(metric_words(m) for m in metrics), "n")
    return Table(f"Utility, {who}, with 95% intervals", columns, tuple(body), headers=2)


def _cell(row: Document | None) -> Cell:
    if row is None:
        return Cell("not measured", mark="status")
    return Cell(
        number(row["metric"], row["value"]), row.get("reason") or interval(row["metric"], row["ci"]), mark="value"
    )

"""Section on costs of each cut to a client, computed from the model's shape, next to the cut that ran as measured."""

from pplr_audit.report.blocks.chart import Chart
from pplr_audit.report.blocks.content import Block, Cell, Figure, Fold, Section, Table, Text, labels, numbers
from pplr_audit.report.charts.costs import bought_chart, wire_chart
from pplr_audit.report.findings.by_cut import measured, speakers_along
from pplr_audit.report.findings.series import first_defense, headline, overall
from pplr_audit.report.sentences.price import cost_at
from pplr_audit.report.words.quantities import count, duration, percent, size
from pplr_audit.runs.documents import Document

FIELDS = {
    "client_parameters": ("parameters on the client", count),
    "client_share": ("share", percent),
    "client_bytes": ("memory for them", size),
    "client_flops_per_token": ("FLOP a token", count),
    "training_flops_per_token": ("FLOP a token, training", count),
    "wire_bytes_per_sample": ("wire a sample", size),
    "wire_bytes_per_round": ("wire a round", size),
    "serving_wire_bytes_per_request": ("wire a request, serving", size),
    "seconds_per_round": ("time a round", duration),
}

LISTED = 60
"""Cuts with another m that are written out; a model of 32 blocks has more than 500."""


def costs(findings: Document) -> Section:
    """The picture, the cuts with the back that ran, and all others folded."""
    rows, ran = findings["costs"], findings["run"]["cut"]
    if not rows:
        return Section("costs", "What each cut costs", (Text("No costs were computed in this audit."),))
    lead = (
        f"Computed from the model's shape for every cut; the cut that ran (k={ran['front']}, m={ran['back']}) also "
        "shows what was measured. While a trunk remains, activations cross at every step whatever the depth; with "
        "no trunk only updates, personal models and losses cross. Bytes are payload, without framing or compression."
    )
    same_back = [row for row in rows if row["cut"]["back"] == ran["back"]]
    others = [row for row in rows if row["cut"]["back"] != ran["back"]]
    blocks: list[Block] = [Text(lead), Figure("", (*_bought(findings), wire_chart(same_back or rows, ran)))]
    if same_back:
        blocks.append(_table(f"Costs with m={ran['back']} at the back, as it ran", same_back, findings["run"]))
    if len(others) > LISTED:
        blocks.append(Text(f"The costs of {len(others)} cuts with another m stand in findings.json."))
    elif others:
        table = _table("Costs of the other cuts, computed", others, findings["run"])
        blocks.append(Fold(f"Other cuts ({len(others)})", (table,)))
    return Section("costs", "What each cut costs", tuple(blocks))


def _bought(findings: Document) -> tuple[Chart, ...]:
    """Draw leakage of histories against depth, where it was measured at two cuts or more."""
    rows = overall(findings["findings"])
    defense = first_defense(rows)
    rows = [row for row in rows if row["secret"] == "history" and row["defense"] == defense]
    metric = headline(rows, "history")
    best = measured(speakers_along([row for row in rows if row["metric"] == metric], "front", findings["run"]))
    points = [(cost, row) for cut, row in best.items() if (cost := cost_at(findings, cut)) is not None]
    return (bought_chart(metric, points, findings["run"]["cut"]),) if metric and len(points) > 1 else ()


def _table(caption: str, rows: list[Document], run: Document) -> Table:
    fields = [name for name in FIELDS if any(name in row for row in rows)]
    body: list[tuple[Cell, ...]] = []
    layers = run["layers"]
    for row in rows:
        source = "computed" if _has_trunk(row, layers) else "computed, no trunk"
        body.append(
            (
                *labels(f"{row['cut']['front']}", f"{row['cut']['back']}", source),
                *numbers(*(FIELDS[name][1](row.get(name)) for name in fields)),
            )
        )
        measured = row.get("measured")
        if measured:
            body.append(
                (
                    *labels(f"{row['cut']['front']}", f"{row['cut']['back']}", "measured"),
                    *(_measured(name, measured, row) for name in fields),
                )
            )
    return Table(caption, ("k", "m", "source", *(FIELDS[name][0] for name in fields)), tuple(body), headers=3)


def _has_trunk(row: Document, layers: int) -> bool:
    return bool(row["cut"]["front"] + row["cut"]["back"] < layers)


def _measured(name: str, measured: Document, computed: Document) -> Cell:
    """A measured value, with its distance from the computed one where there is one."""
    value, expected = measured.get(name), computed.get(name)
    if value is None:
        return Cell("–", mark="number")
    off = f"{value / expected - 1:+.1%} vs computed" if expected and value != expected else ""
    note = "as computed" if expected is not None and value == expected else off
    return Cell(FIELDS[name][1](value), note, mark="strong")

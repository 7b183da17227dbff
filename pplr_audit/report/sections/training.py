"""Section on training: the loss of each client, and who learned how much from whom."""

from collections.abc import Sequence

from pplr_audit.report.blocks.content import Block, Cell, Figure, Fold, Section, Table, Text, numbers
from pplr_audit.report.charts.mixing import mixing_chart, similarity_chart
from pplr_audit.report.charts.training import rounds_chart
from pplr_audit.report.words.quantities import several
from pplr_audit.runs.documents import Document

MATRIX = 12
"""Clients up to which the mixing of a round is drawn and written out."""
MAPS = 6
"""Rounds of which the mixing is drawn."""


def training(findings: Document, evidence: Document) -> Section:
    """Loss, learning speed and validation metric over rounds; who got what from whom in each round."""
    losses: dict[str, dict[int, float]] = {}
    for row in evidence["training"]:
        losses.setdefault(row["client"], {})[row["round"]] = row["loss"]
    metrics: dict[str, dict[int, float]] = {}
    for row in evidence["training"]:
        if "metric" in row:
            metrics.setdefault(row["client"], {})[row["round"]] = row["metric"]
    speeds: dict[str, dict[int, float]] = {}
    for entry in evidence["balance"]:
        for client, weight in zip(entry["clients"], entry.get("weights", ()), strict="weights" in entry):
            speeds.setdefault(client, {})[entry["round"]] = weight
    curves = {"Training loss": losses, "Learning speed w": speeds, "Validation metric": metrics}
    drawn = {name: values for name, values in curves.items() if values}
    if not drawn:
        return Section("training", "How training went", (Text("No training curve was recorded."),))
    run = findings["run"]
    charts = tuple(rounds_chart(name, values) for name, values in drawn.items())
    blocks: list[Block] = [
        Text(
            f"Strategy {run['strategy']}, {several(run['rounds'], 'round')}.{_never_stopped(run.get('never_stop', ()))}"
        ),
        Figure("Training, by client and round", charts),
    ]
    small = [entry for entry in evidence["balance"] if len(entry["clients"]) <= MATRIX]
    if small:
        maps = tuple(
            mixing_chart(e["round"], e["clients"], mixed_shares(e), e.get("status"), e.get("weights"))
            for e in _spread(small)
        )
        blocks.append(Figure("Who got what from whom: what each new model is made of after a round", maps))
        alike = tuple(
            similarity_chart(e["round"], e["clients"], e["similarity"]) for e in _spread(small) if "similarity" in e
        )
        if alike:
            blocks.append(Figure("How alike the clients were, which weighs what they got from each other", alike))
        blocks.append(_mixing(max(small, key=lambda entry: entry["round"])))
    elif evidence["balance"]:
        count = max(len(entry["clients"]) for entry in evidence["balance"])
        blocks.append(Text(f"{count} clients: the mixing matrix is left to evidence.json."))
    blocks.append(Fold("The curves in numbers", tuple(_by_round(name, values) for name, values in drawn.items())))
    return Section("training", "How training went", tuple(blocks))


def _never_stopped(clients: Sequence[str]) -> str:
    """Whom early stopping had nothing to go by; nothing where there is none."""
    if not clients:
        return ""
    named = ", ".join(clients) if len(clients) <= MATRIX else f"{len(clients)} clients"
    return f" Trained to the end, as no user there has a validation item to stop by: {named}."


def mixed_shares(entry: Document) -> list[list[float]]:
    """Row i: the share of each client's parameters in the new model of client i.

    Evidence of earlier versions has no matrix: 1 : w_i S_ij, made to sum to one (PPLR's dynamic balance).
    """
    if "matrix" in entry:
        return [list(row) for row in entry["matrix"]]
    rows = []
    for i, weight in enumerate(entry["weights"]):
        pull = [1.0 if i == j else weight * s for j, s in enumerate(entry["similarity"][i])]
        rows.append([p / sum(pull) for p in pull])
    return rows


def _spread(entries: list[Document]) -> list[Document]:
    """Pick at most ``MAPS`` entries, evenly over the rounds, the first and the last among them."""
    ordered = sorted(entries, key=lambda entry: int(entry["round"]))
    if len(ordered) <= MAPS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (MAPS - 1))] for i in range(MAPS)]


def _by_round(name: str, values: dict[str, dict[int, float]]) -> Table:
    rounds = sorted({number for by_round in values.values() for number in by_round})
    rows = tuple(
        (Cell(client), *numbers(*(_decimal(by_round.get(r)) for r in rounds))) for client, by_round in values.items()
    )
    return Table(f"{name} by client and round", ("client", *(f"round {r}" for r in rounds)), rows)


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _mixing(entry: Document) -> Table:
    """List whose parameters a client holds after the round, and their weights in the dynamic balance."""
    clients, rows = entry["clients"], []
    terms = {"learning status l": entry.get("status"), "learning speed w": entry.get("weights")}
    known = {name: values for name, values in terms.items() if values is not None}
    for i, (client, shares) in enumerate(zip(clients, mixed_shares(entry), strict=True)):
        cells = [Cell(f"{share:.1%}", mark="strong" if i == j else "number") for j, share in enumerate(shares)]
        rows.append((Cell(client), *numbers(*(f"{values[i]:.3f}" for values in known.values())), *cells))
    return Table(
        f"After round {entry['round']}: the share of each client's parameters in each new model (own share in bold)",
        ("client", *known, *(f"from {name}" for name in clients)),
        tuple(rows),
    )

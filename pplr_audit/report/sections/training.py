"""How training went: the loss of each client, and who learned how much from whom."""

from typing import Any

from pplr_audit.report.charts.training import rounds_chart
from pplr_audit.report.content import Block, Cell, Figure, Fold, Section, Table, Text, numbers
from pplr_audit.report.document import Document

MATRIX = 12
"""Clients up to which the mixing of the last round is written out."""


def training(findings: Document, evidence: Document) -> Section:
    """Loss over rounds, learning speed over rounds, and the mixing of the last round."""
    losses: dict[str, dict[int, float]] = {}
    for row in evidence["training"]:
        losses.setdefault(row["client"], {})[row["round"]] = row["loss"]
    speeds: dict[str, dict[int, float]] = {}
    for entry in evidence["balance"]:
        for client, weight in zip(entry["clients"], entry["weights"], strict=True):
            speeds.setdefault(client, {})[entry["round"]] = weight
    charts = [rounds_chart("Training loss", losses)] if losses else []
    charts += [rounds_chart("Learning speed w", speeds)] if speeds else []
    if not charts:
        return Section("training", "How training went", (Text("No training curve was recorded."),))
    run = findings["run"]
    blocks: list[Block] = [
        Text(f"Strategy {run['strategy']}, {run['rounds']} rounds."),
        Figure("Training, by client and round", tuple(charts)),
    ]
    tables = [_by_round("Training loss", losses)] if losses else []
    tables += [_by_round("Learning speed w", speeds)] if speeds else []
    if evidence["balance"]:
        last = max(evidence["balance"], key=lambda entry: entry["round"])
        blocks.append(
            _mixing(last)
            if len(last["clients"]) <= MATRIX
            else Text(f"{len(last['clients'])} clients: the mixing matrix is left to evidence.json.")
        )
    blocks.append(Fold("Loss and learning speed in numbers", tuple(tables)))
    return Section("training", "How training went", tuple(blocks))


def _by_round(name: str, values: dict[str, dict[int, float]]) -> Table:
    rounds = sorted({number for by_round in values.values() for number in by_round})
    rows = tuple(
        (Cell(client), *numbers(*(_decimal(by_round.get(r)) for r in rounds))) for client, by_round in values.items()
    )
    return Table(f"{name} by client and round", ("client", *(f"round {r}" for r in rounds)), rows)


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _mixing(entry: Any) -> Table:
    """Whose parameters a client holds after the round: 1 : w_i S_ij, made to sum to one (PPLR's dynamic balance)."""
    clients, rows = entry["clients"], []
    for i, client in enumerate(clients):
        pull = [1.0 if i == j else entry["weights"][i] * s for j, s in enumerate(entry["similarity"][i])]
        shares = [f"{p / sum(pull):.1%}" for p in pull]
        cells = [Cell(share, mark="strong" if i == j else "number") for j, share in enumerate(shares)]
        rows.append((Cell(client), *numbers(f"{entry['status'][i]:.3f}", f"{entry['weights'][i]:.3f}"), *cells))
    columns = ("client", "learning status l", "learning speed w", *(f"from {name}" for name in clients))
    return Table(
        f"Dynamic balance after round {entry['round']}: the share of each client's parameters in each personal "
        "model (own share in bold)",
        columns,
        tuple(rows),
    )

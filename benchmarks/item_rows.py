"""Item vectors of RecFormer on MiniLM: which of a client's next items a row tells by its size, and by `token_rows`.

Five clients of a synthetic market train for three rounds with `model.recformer.ids`. For each client, the AUC says how
well the items that it was trained to answer with are told from all others by how far their rows moved, and by how they
differ from the common drift. Both optimizers train on the same samples.
"""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from measuring import arguments, machine, table, write
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.update.row_moves import answered_by, read_by
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.crossings import RoundRecorder
from pplr_audit.training.rounds import RoundLog, RoundState, assemble, train
from pplr_audit.training.strategies.pplr import Pplr

RATES = {"sgd": 0.3, "adamw": 1e-3}
SIZE: dict[str, Any] = {"users": 600, "items": 400, "tastes": 5}
QUICK: dict[str, Any] = {"users": 60, "items": 80, "tastes": 3}


def asked(size: Mapping[str, Any], optimizer: str, rounds: int) -> scenario.Scenario:
    return scenario.Scenario.model_validate(
        {
            "data": {"market": size, "clients": 5, "history": 5, "audit_users": size["users"] // 2},
            "model": {
                "backbone": "minilm", "recommender": "recformer", "max_tokens": 128, "cut": {"front": 1, "back": 0},
                "recformer": {"ids": True, "refresh_rounds": 0},
            },
            "training": {"rounds": rounds, "optimizer": optimizer, "learning_rate": RATES[optimizer]},
        }
    )  # fmt: skip


def auc(told: Float[np.ndarray, "items"], true: Bool[np.ndarray, "items"]) -> float:
    """Return the share of pairs of a true item and another in which the true one is told the higher; half of ties."""
    ours, others = told[true][:, None], told[~true][None]
    return float((ours > others).mean() + 0.5 * (ours == others).mean())


def measured(setting: scenario.Scenario, private: PrivateData, model: Recommender) -> list[dict[str, Any]]:
    """Train, and return the AUC of every client in every round."""
    optimizer, found = setting.training.optimizer, list[dict[str, Any]]()
    federation = assemble(private.samples, model, setting.training, Pplr(setting.training), seed=setting.seed)
    recorder = RoundRecorder(federation.link, range(1, setting.training.rounds + 1))
    (name,) = (name for name, rows in model.whole.rows.items() if rows.of == "items")

    def done(log: RoundLog, state: RoundState) -> None:
        for each in recorder.taken():
            if each.channel == Channel.CLIENT_UPDATE:
                moves: Tensor = each.tensors[name].double()
                true = np.isin(np.arange(len(moves)), private.samples[each.client].targets)
                found.append({
                    "optimizer": optimizer, "round": log.round, "client": each.client, "targets": int(true.sum()),
                    "size": auc(read_by(moves).numpy(), true),
                    "token_rows": auc(answered_by(moves, optimizer).numpy(), true),
                })  # fmt: skip
        recorder.begin(state.round)

    recorder.begin(1)
    train(federation, setting.training.rounds, done=done)
    return found


def main() -> None:
    chosen, at = arguments(__doc__ or "", repeats=1), machine()
    size, rounds = (QUICK, 1) if chosen.quick else (SIZE, 3)
    first = asked(size, "sgd", rounds)
    private = prepare(first.data, first.seed)
    rows: list[dict[str, Any]] = []
    for optimizer in RATES:
        setting = asked(size, optimizer, rounds)
        model = build(setting.model, private.dataset.catalogue, history=setting.data.history, seed=setting.seed)
        rows += measured(setting, private, model)
    lines = []
    for optimizer in RATES:
        for round_ in range(1, rounds + 1):
            own = [row for row in rows if (row["optimizer"], row["round"]) == (optimizer, round_)]
            cells = [[row[way] for row in own] for way in ("size", "token_rows")]
            shown = [f"{statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in cells]
            lines.append([optimizer, str(round_), *shown])
    head = ["optimizer", "round", "AUC by the size of a row's move", "AUC by `token_rows`"]
    text = (
        f"MiniLM, {size['items']} items, {size['users']} users in 5 clients, learning rates "
        f"{RATES['sgd']:g} (sgd) and {RATES['adamw']:g} (adamw). Median over clients, smallest and largest.\n\n"
        + table(head, lines)
    )  # fmt: skip
    write("item_rows", "Next items from rows of item vectors", text, {"rows": rows}, at, chosen.results)


if __name__ == "__main__":
    main()

"""PPLR beside FedAvg, local and centralized training where there is more to learn from: 30,000 samples of ml-100k.

In `paper_table.py` all models learn little from 1,024 samples, so that what PPLR keeps of centralized training cannot
be told. Here five clients train RecFormer on MiniLM, with a vector for each item, on thirty times as many, and read the
newest item alone, as the Markov chain does. All strategies have the same clients, samples, budget and test
users; differences are of the same users in pairs. The run is kept, and a second call goes on from it.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import round_logs
from encoder_utility import markov
from measuring import RESULTS, machine, table, write
from paper_numbers import over_all, ratios

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.prepare import prepare
from pplr_audit.scoring.intervals import Estimate, mean_estimate, paired_difference

METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
MODEL: Mapping[str, Any] = {
    "backbone": "minilm", "recommender": "recformer", "max_tokens": 256, "dropout": 0.0, "precision": "bfloat16",
    "recformer": {"pooling": "mean", "ids": True, "refresh_rounds": 0, "attributes": ["title"]},
}  # fmt: skip
TRAINING: Mapping[str, Any] = {
    "rounds": 3, "shots": 30_000, "batch_size": 32, "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.05,
    "rivals": ["fedavg", "local", "centralized"],
}  # fmt: skip
DATA: Mapping[str, Any] = {"clients": 5, "audit_users": 2, "samples": "all", "history": 1}


def told(folder: Path, quick: bool) -> scenario.Scenario:
    """Quick: the synthetic market, and BIGRec on a small model; only to see that the program works."""
    values: dict[str, Any] = {
        "name": "long-budget", "data": {**DATA, "path": str(folder / "ml-100k")}, "model": MODEL, "training": TRAINING,
    }  # fmt: skip
    if quick:
        market = {"users": 120, "items": 48, "tastes": 3}
        values |= {"data": {**DATA, "clients": 2, "market": market, "samples": "last"}, "model": {"beams": 1}}
        values["training"] = {"rounds": 1, "learning_rate": 5e-3, "rivals": TRAINING["rivals"]}
    return scenario.from_text(json.dumps(values), "long-budget")


def row(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci": (estimate.low, estimate.high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the synthetic market; nothing is written")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, help="the run directory (default: below runs/)")
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    asked = parser.parse_args()
    at, chosen = machine(), told(asked.data.resolve(), asked.quick)
    directory = audit.train(chosen, asked.out).directory
    found, private = round_logs.user_scores(directory), prepare(chosen.data, chosen.seed)
    users = found.users
    chain = markov(private.split, users, len(private.dataset.catalogue)).metrics
    scores: dict[str, Mapping[str, np.ndarray]] = {**found.scores, "Markov chain": chain}
    scores.pop("best_possible", None)
    each = {name: {m: mean_estimate(own[m], users, seed=0) for m in METRICS} for name, own in scores.items()}
    lines = [
        [name, *(f"{e[m].value:.4f} [{e[m].low:.4f}, {e[m].high:.4f}]" for m in METRICS)] for name, e in each.items()
    ]
    less: dict[str, dict[str, Estimate]] = {}
    for other in ("fedavg", "centralized", "local", "untrained", "popularity", "Markov chain"):
        less[other] = {m: paired_difference(scores["pplr"][m], scores[other][m], users, seed=0) for m in METRICS}
        said = (f"{less[other][m].value:+.4f} [{less[other][m].low:+.4f}, {less[other][m].high:+.4f}]" for m in METRICS)
        lines.append([f"pplr minus {other}, in pairs", *said])
    kept = {}
    for m in METRICS:
        share = ratios([row(each["pplr"][m])], [row(each["centralized"][m])], [row(less["centralized"][m])])
        kept[m] = over_all(share) if share else None
    lines.append(["pplr / centralized", *("–" if k is None else k.text(".2f") for k in kept.values())])
    clients = []
    for place, name in enumerate(found.names):
        mine = found.clients == place
        shares = (f"{scores[s]['recall@10'][mine].mean():.4f}" for s in ("pplr", *TRAINING["rivals"], "untrained"))
        clients.append([name, str(int(mine.sum())), *shares])
    logs = round_logs.by_strategy(directory)
    seconds = {name: round(round_logs.seconds(own)) for name, own in logs.items()}
    text = (
        f"ml-100k: {len(users):,} test users, leave-one-out, full ranking, 95 % intervals over users, one seed."
        f" Settings: {json.dumps({'data': DATA, 'model': MODEL, 'training': TRAINING})}. Seconds of training:"
        f" {json.dumps(seconds)}, while other work ran.\n\n"
    )
    text += table(["what", *METRICS], lines) + "\n\nRecall@10 at each client:\n\n"
    text += table(["client", "test users", "pplr", *TRAINING["rivals"], "untrained"], clients)
    figures = {"scores": each, "pplr_less": less, "of_centralized": kept, "clients": clients, "seconds": seconds}
    into = asked.results or (None if asked.quick else RESULTS)
    write("long_budget", "PPLR and rivals on 30,000 samples", text, figures, at, into)


if __name__ == "__main__":
    main()

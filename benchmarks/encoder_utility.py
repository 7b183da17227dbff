"""RecFormer on MiniLM, trained on everybody's data in one place, beside what needs no language model at all.

Full ranking of the catalogue, leave-one-out, own items masked; test users of a figure are the same for all rows. The
Markov chain (counts of which item follows which in the training items, ties by popularity) and mere popularity are
computed here; SASRec's figure is published. The run is kept, and a second call goes on from it.

Settings are chosen on validation users, a fifth of all (`encoder_tries.py` measures on them alone); what is reported
here is of the others.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import round_logs
from measuring import RESULTS, machine, table, write
from scipy.sparse import csr_matrix

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.dataset import Split
from pplr_audit.data.popularity import popularity_of
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import seen_items
from pplr_audit.models.build import build
from pplr_audit.scoring.intervals import mean_estimate, paired_difference
from pplr_audit.training import run_job
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.spec import own_training
from pplr_audit.training.utility.evaluate import Ranking, rank, recommended, tested

ENCODER: Mapping[str, Any] = {
    "backbone": "minilm", "recommender": "recformer", "max_tokens": 256, "dropout": 0.0, "precision": "bfloat16",
    "recformer": {"pooling": "mean", "ids": True, "refresh_rounds": 0},
}  # fmt: skip
TRAINING = {
    "strategy": "centralized", "rounds": 2, "batch_size": 256, "learning_rate": 1e-3, "schedule": "linear",
    "warmup": 0.05,
}  # fmt: skip
SETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "amazon-beauty": ({"history": 3, "test_users": 10_000}, 12), "ml-100k": ({"history": 3}, 16),
}  # fmt: skip
"""Of each its data settings, and how many tokens of an attribute are read. A round is once through all samples: a
quarter of an hour of one core, of amazon-beauty 40 minutes."""
PUBLISHED = {"amazon-beauty": {"SASRec, published": {"recall@10": 0.0605, "ndcg@10": 0.0318}}}
METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")


def encoder(tokens: int) -> dict[str, Any]:
    return {**ENCODER, "recformer": {**ENCODER["recformer"], "attribute_tokens": tokens}}


def told(name: str, data: Path) -> scenario.Scenario:
    own, tokens = SETS[name]
    values = {
        "name": f"{name}-centralized",
        "data": {
            "path": str(data / name), "clients": 2, "partition": "random", "audit_users": 2, "samples": "all",
            **own,
        },
        "model": encoder(tokens), "training": TRAINING,
    }  # fmt: skip
    return scenario.from_text(json.dumps(values), name)


def quick() -> scenario.Scenario:
    """The synthetic market, and no real model: BIGRec on a small one shows that the script works."""
    values = {
        "name": "quick", "data": {"market": {"users": 60, "items": 48, "tastes": 3}, "clients": 2, "audit_users": 2},
        "model": {"beams": 1}, "training": {"strategy": "centralized", "rounds": 1, "shots": 16},
    }  # fmt: skip
    return scenario.from_text(json.dumps(values), "quick")


def validation(private: PrivateData, users: np.ndarray) -> np.ndarray:
    """Which of ``users`` settings are chosen on, and so are not reported: one in five, the same ones in every run."""
    return np.asarray(np.random.default_rng(5).random(len(private.dataset.users))[users] < 0.2)


def markov(split: Split, users: np.ndarray, items: int) -> Ranking:
    """Rank by how often an item followed the user's last one in the training items of all; ties by popularity."""
    values, offsets = split.train.values, split.train.offsets
    follows = np.ones(max(len(values) - 1, 0), dtype=bool)
    follows[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(values))] - 1] = False
    pairs = (values[:-1][follows], values[1:][follows])
    counts = csr_matrix((np.ones(len(pairs[0])), pairs), shape=(items, items))
    popular = np.bincount(values, minlength=items) / (len(values) + 1)
    seen = seen_items(split, users)
    last = seen.values[seen.offsets[1:] - 1]
    parts = np.array_split(np.arange(len(users)), -(-len(users) // 256))
    return rank(((rows, counts[last[rows]].toarray() + popular) for rows in parts), users, split)


def compared(
    rows: Mapping[str, Mapping[str, np.ndarray]], users: np.ndarray, figures: dict[str, Any]
) -> list[list[str]]:
    """A line a row of scores by user, and the first row less the chain in pairs; noted in ``figures``, too."""
    lines = []
    for name, metrics in rows.items():
        found = {m: mean_estimate(metrics[m], users, seed=0) for m in METRICS}
        figures[name] = {m: [e.value, e.low, e.high] for m, e in found.items()}
        lines.append([name, *(f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]" for e in found.values())])
    own, chain = next(iter(rows.values())), rows["Markov chain"]
    less = {m: paired_difference(own[m], chain[m], users, seed=0) for m in METRICS}
    figures["less the chain"] = {m: [e.value, e.low, e.high] for m, e in less.items()}
    signed = (f"{e.value:+.4f} [{e.low:+.4f}, {e.high:+.4f}]" for e in less.values())
    return [*lines, ["trained minus the chain, in pairs", *signed]]


def so_far(name: str, chosen: scenario.Scenario, directory: Path, at: Mapping[str, Any], into: Path) -> None:
    """What the finished rounds of a run that has not ended have given, beside the chain, on as many drawn users."""
    private, data = prepare(chosen.data, chosen.seed), chosen.data
    items = len(private.dataset.catalogue)
    model = build(chosen.model, private.dataset.catalogue, history=data.history, seed=chosen.seed)
    with run_job.loaded(directory, own_training(chosen)) as store:
        state = TrainingFiles(store).latest()
    if state is None or state.round == 1:
        raise SystemExit(f"{directory}: no round of it has ended")
    users = tested(private.split, private.members)
    users = users[~validation(private, users)]
    if data.test_users is not None and data.test_users < len(users):
        users = np.sort(np.random.default_rng(0).choice(users, data.test_users, replace=False))
    (adapter,) = state.adapters.values()
    counts = popularity_of(private.split, private.members, items)
    own = recommended(
        model.whole.served(adapter), model.task, private.split, users, history=data.history, popularity=counts
    ).metrics
    chain = markov(private.split, users, items).metrics
    figures: dict[str, Any] = {}
    lines = compared({"recformer": own, "Markov chain": chain}, users, figures)
    settings, tokens = SETS[name]
    text = (
        f"{name}, after round {state.round - 1} of {chosen.training.rounds}: {len(users):,} users drawn for this"
        f" measurement, {items:,} items, 95 % intervals over users. Settings:"
        f" {json.dumps({'data': settings, 'model': encoder(tokens), 'training': TRAINING})}.\n\n"
    )
    title = f"RecFormer on MiniLM, {name}, before the end of its training"
    write(f"encoder_utility_{name}_so_far", title, text + table(["what", *METRICS], lines), figures, at, into)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the synthetic market; nothing is written")
    parser.add_argument("--set", choices=tuple(SETS), default="amazon-beauty", dest="name")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, help="the run directory (default: below runs/)")
    parser.add_argument("--so-far", action="store_true", help="train nothing: what the run in --out has given so far")
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    asked = parser.parse_args()
    at = machine()
    chosen = quick() if asked.quick else told(asked.name, asked.data.resolve())
    if asked.so_far:
        if asked.out is None or asked.quick:
            parser.error("--so-far needs --out, the directory of a run, and goes without --quick")
        so_far(asked.name, chosen, asked.out, at, asked.results or RESULTS)
        return
    result = audit.train(chosen, asked.out)
    scores = run_job.user_scores(result.directory)
    private = prepare(chosen.data, chosen.seed)
    reported, items = ~validation(private, scores.users), len(private.dataset.catalogue)
    users = scores.users[reported]
    measured = {
        name: {metric: values[reported] for metric, values in of.items()} for name, of in scores.scores.items()
    }  # fmt: skip
    rows: dict[str, Mapping[str, np.ndarray]] = {
        "recformer, trained" if not asked.quick else "trained": measured[scores.strategy],
        "untrained": measured["untrained"],
        "Markov chain": markov(private.split, users, items).metrics,
        "popularity": measured["popularity"],
    }
    counts = popularity_of(private.split, private.members, items)
    if not np.isclose(counts.sum(), len(private.split.train.values), rtol=0.05):
        raise SystemExit("the chain would know far more users than the model was trained on")
    logs = round_logs.by_strategy(result.directory)[chosen.training.label]
    spent = {**result.document["run"]["seconds"], "training": round(round_logs.seconds(logs), 3)}
    figures: dict[str, Any] = {"users": len(users), "items": items, "seconds": spent}
    lines = compared(rows, users, figures)
    for name, published in PUBLISHED.get("" if asked.quick else asked.name, {}).items():
        lines.append([name, *(f"{published[m]:.4f}" if m in published else "–" for m in METRICS)])
        figures[name] = published
    own, tokens = SETS[asked.name]
    settings = {} if asked.quick else {"data": own, "model": encoder(tokens), "training": TRAINING}
    text = (
        f"{chosen.data.path.rsplit('/', 1)[-1]}: {len(users):,} test users, {items:,} items, 95 % intervals over users."
        " Settings were chosen on validation users, who are not among the test users."
        f" Settings: {json.dumps(settings)}. Seconds by phase: {json.dumps(spent)}. Training is the sum over its"
        " rounds; other phases count the calls that ended normally.\n\n" + table(["what", *METRICS], lines)
    )
    into = asked.results or (None if asked.quick else RESULTS)
    write(f"encoder_utility_{asked.name}", f"RecFormer on MiniLM, {asked.name}", text, figures, at, into)


if __name__ == "__main__":
    main()

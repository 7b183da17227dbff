"""What was tried to bring RecFormer on MiniLM up to the Markov chain on ml-100k: one setting changed at a time.

All tries train the encoder's own weights on the same samples of everybody in one place, show it the newest three items,
and are measured on the same validation users (`encoder_utility.validation`), who are not reported on elsewhere,
leave-one-out over the full catalogue. Each is a run that is kept, and its figures
too: a second call goes on where the first stopped (``--minutes`` begins no further try after so many).
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import round_logs
from encoder_utility import markov, validation
from measuring import RESULTS, machine, table, write

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.prepare import prepare
from pplr_audit.scoring.intervals import mean_estimate, paired_difference
from pplr_audit.training import run_job

DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
KEPT = RESULTS / "encoder_tries_validation"
METRICS = ("recall@10", "ndcg@10")
BASE: Mapping[str, Any] = {
    "backbone": "minilm", "recommender": "recformer", "max_tokens": 256, "dropout": 0.0, "precision": "bfloat16",
}  # fmt: skip
READ: Mapping[str, Any] = {"train": "all", "pooling": "mean", "refresh_rounds": 0, "attributes": ["title"]}
TRAINED: Mapping[str, Any] = {
    "strategy": "centralized", "rounds": 1, "batch_size": 32, "shots": 10_000, "learning_rate": 1e-4, "warmup": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Try:
    """What one changes of the base."""

    name: str
    recformer: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def scenario(self) -> scenario.Scenario:
        data = {"path": str(DATA / "ml-100k"), "clients": 2, "partition": "random", "audit_users": 2, "samples": "all"}
        values = {
            "name": self.slug, "data": {**data, "history": 3, **self.data},
            "model": {**BASE, "recformer": {**READ, **self.recformer}}, "training": {**TRAINED, **self.training},
        }  # fmt: skip
        return scenario.from_text(json.dumps(values), self.name)

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def kept(self) -> Path:
        """Where its figures are kept, whatever machine the data lies on."""
        chosen = self.scenario()
        named = chosen.data.model_copy(update={"path": Path(chosen.data.path).name})
        return KEPT / f"{self.slug}-{scenario.digest(chosen.model_copy(update={'data': named}))[:8]}.json"


TRIES = (
    Try("base"),
    Try("learning rate 5e-4", training={"learning_rate": 5e-4}),
    Try("temperature 0.2", {"temperature": 0.2}),
    Try("temperature 0.02", {"temperature": 0.02}),
    Try("pooling cls", {"pooling": "cls"}),
    Try("title and genres", {"attributes": ["title", "categories"]}),
    Try("a new table every 80 steps", {"refresh_rounds": 1, "refresh_steps": 80}),
    Try("LoRA and new embeddings at 2e-3", {"train": "embeddings"}, {"learning_rate": 2e-3}),
    Try("the same with a vector for each item", {"train": "embeddings", "ids": True}, {"learning_rate": 2e-3}),
    Try("the newest item alone", data={"history": 1}),
    Try("four times as long", training={"shots": 40_000}),
)


def run(each: Try, root: Path) -> dict[str, Any]:
    """Train and measure one, and answer what is kept of it: estimates, and its paired difference to the chain."""
    chosen = each.scenario()
    result = audit.train(chosen, root / each.kept.stem)
    scores = run_job.user_scores(result.directory)
    private = prepare(chosen.data, chosen.seed)
    asked = validation(private, scores.users)
    users = scores.users[asked]
    of = {"trained": scores.strategy, "untrained": "untrained", "popularity": "popularity"}
    rows: dict[str, Mapping[str, np.ndarray]] = {
        name: {m: scores.scores[strategy][m][asked] for m in METRICS} for name, strategy in of.items()
    }
    rows["chain"] = markov(private.split, users, len(private.dataset.catalogue)).metrics
    found: dict[str, Any] = {
        name: {m: _triple(mean_estimate(row[m], users, seed=0)) for m in METRICS} for name, row in rows.items()
    }
    for other in ("untrained", "chain"):
        pairs = {m: paired_difference(rows["trained"][m], rows[other][m], users, seed=0) for m in METRICS}
        found[f"less {other}"] = {m: _triple(pair) for m, pair in pairs.items()}
    logs = round_logs.by_strategy(result.directory)[chosen.training.label]
    return {
        "seconds": round_logs.seconds(logs), "loss": logs[-1].losses, "precision": result.document["run"]["precision"],
        "users": len(users), **found,
    }  # fmt: skip


def _triple(estimate: Any) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row a try, and what each try is compared with below."""

    def said(values: Sequence[float], sign: str = "") -> str:
        return "{:{s}.4f} [{:{s}.4f}, {:{s}.4f}]".format(*values, s=sign)

    rows = []
    for name, each in found.items():
        less = (said(each[f"less {other}"]["recall@10"], "+") for other in ("untrained", "chain"))
        rows.append([name, *(said(each["trained"][m]) for m in METRICS), *less, f"{each['seconds']:.0f}"])
    first = next(iter(found.values()))
    return rows + [[name, *(said(first[name][m]) for m in METRICS), "", "", ""] for name in ("popularity", "chain")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "encoder-tries")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    asked = parser.parse_args()
    at, started = machine(), time.monotonic()
    KEPT.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for each in TRIES:
        file = each.kept
        if not file.is_file():
            if time.monotonic() - started > 60 * asked.minutes:
                continue
            file.write_text(json.dumps(run(each, asked.runs)) + "\n", encoding="utf-8")
        found[each.name] = json.loads(file.read_text(encoding="utf-8"))
        print(each.name, found[each.name]["trained"], flush=True)
    missing = [each.name for each in TRIES if each.name not in found]
    text = (
        f"ml-100k, leave-one-out, {next(iter(found.values()))['users']} validation users, full ranking; 95 % intervals."
        f" Base settings: {json.dumps({**BASE, 'recformer': READ, 'training': TRAINED, 'history': 3})}."
        f" Not run yet: {', '.join(missing) or 'none'}.\n\n"
    )
    head = ["try", *METRICS, "recall@10 minus untrained", "minus the Markov chain", "seconds of training"]
    write(
        "encoder_tries",
        "RecFormer on ml-100k: one setting changed at a time",
        text + table(head, lines(found)),
        {"tries": found},
        at,
        RESULTS,
    )


if __name__ == "__main__":
    main()

"""What an item table made of texts alone can hold: why RecFormer stays below the Markov chain on ml-100k.

No language model is trained here. A perceptron reads the base model's encodings of the newest three items and learns,
from every prefix of every user, to point at the next one: cosine over a temperature, softmax over the catalogue, as
RecFormer does. Only what it points at differs: the table as it is, the table through a learned linear map, or the table
with a trained vector for each item (``model.recformer.ids``). It is a bound of what is worth trying, not a recommender:
all epochs are shown, and the best of them was not chosen on other users.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoder_utility import markov
from jaxtyping import Float, Int
from measuring import RESULTS, machine, table, write
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from pplr_audit import scenario
from pplr_audit.data.prepare import prepare
from pplr_audit.data.samples import Samples, serving_samples, training_samples
from pplr_audit.models.build import build
from pplr_audit.models.recommenders.recformer import ITEMS
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.training.utility.evaluate import rank

HISTORY, BATCH, RATE, WIDTH = 3, 256, 1e-3, 1024
TABLES = ("as it is", "through a linear map", "with a vector for each item")


def told(data: Path) -> scenario.Scenario:
    values = {
        "name": "frozen-table",
        "data": {
            "path": str(data / "ml-100k"), "clients": 2, "partition": "random", "audit_users": 2, "history": HISTORY,
        },
        "model": {
            "backbone": "minilm", "recommender": "recformer", "max_tokens": 256, "precision": "float32",
            "recformer": {"pooling": "mean", "refresh_rounds": 0, "attributes": ["title"]},
        },
    }  # fmt: skip
    return scenario.from_text(json.dumps(values), "frozen-table")


def newest(samples: Samples, nothing: int) -> Int[Tensor, "samples history"]:
    """The histories, newest first; ``nothing`` where there is no item."""
    found = np.full((len(samples), HISTORY), nothing)
    for row in range(len(samples)):
        items = samples.history[row][::-1]
        found[row, : len(items)] = items
    return torch.from_numpy(found)


class Pointer(nn.Module):
    """Reads encodings and points at one; ``kind`` is one of `TABLES`."""

    def __init__(self, items: Float[Tensor, "items hidden"], kind: str) -> None:
        super().__init__()
        count, hidden = items.shape
        self.items, self.read = items, torch.cat([items, torch.zeros(1, hidden)])
        self.points = nn.Sequential(nn.Linear(HISTORY * hidden, WIDTH), nn.GELU(), nn.Linear(WIDTH, hidden))
        self.map = nn.Linear(hidden, hidden) if kind == TABLES[1] else None
        self.own = nn.Parameter(torch.zeros(count, hidden)) if kind == TABLES[2] else None
        if self.map is not None:
            nn.init.eye_(self.map.weight)

    def table(self) -> Float[Tensor, "items hidden"]:
        if self.map is not None:
            return normalize(self.map(self.items), dim=1)
        return self.items if self.own is None else normalize(self.items + self.own, dim=1)

    def forward(self, histories: Int[Tensor, "batch history"]) -> Float[Tensor, "batch items"]:
        seen = self.read[histories]
        return normalize(self.points(seen.flatten(1)) + seen[:, 0], dim=1) @ self.table().T


def epochs(
    items: Float[Tensor, "items hidden"], kind: str, temperature: float, trained: Samples, count: int,
    measure: Callable[[Pointer], np.ndarray],
) -> list[np.ndarray]:  # fmt: skip
    """Recall@10 of each test user after each epoch."""
    torch.manual_seed(0)
    model, found = Pointer(items, kind), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    histories, targets = newest(trained, len(items)), torch.from_numpy(trained.targets)
    for _ in range(count):
        for rows in torch.randperm(len(histories)).split(BATCH):
            loss = cross_entropy(model(histories[rows]) / temperature, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(measure(model))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="an epoch at one temperature; nothing is written")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    asked = parser.parse_args()
    at, chosen = machine(), told(asked.data.resolve())
    private = prepare(chosen.data, chosen.seed)
    catalogue, split = private.dataset.catalogue, private.split
    recommender = build(chosen.model, catalogue, history=HISTORY, seed=0)
    items = recommender.task.base_encoding[ITEMS]
    users = np.arange(len(split.train))
    trained = training_samples(split, users, HISTORY, "all")
    served = newest(serving_samples(split, users, HISTORY), len(items))

    @torch.no_grad()
    def measure(model: Pointer) -> np.ndarray:
        parts = np.array_split(users, -(-len(users) // 256))
        found = rank(((rows, model(served[rows]).numpy()) for rows in parts), users, split)
        return found.metrics["recall@10"]

    def said(each: np.ndarray) -> str:
        estimate = mean_estimate(each, users, seed=0)
        return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"

    figures: dict[str, Any] = {}
    lines = []
    count = 1 if asked.quick else 4
    for kind in TABLES:
        for temperature in (0.05,) if asked.quick else (0.05, 0.1):
            each = epochs(items, kind, temperature, trained, count, measure)
            figures[f"{kind}, {temperature}"] = [float(recall.mean()) for recall in each]
            lines.append([kind, str(temperature), *map(said, each)])
    chain = markov(split, users, len(items)).metrics["recall@10"]
    figures["Markov chain"] = float(chain.mean())
    lines.append(["Markov chain", "", said(chain), *[""] * (count - 1)])
    text = (
        f"ml-100k, leave-one-out, {len(users)} users, {len(trained):,} samples, full ranking: Recall@10 with its 95 %"
        f" interval. A perceptron reads the item table. AdamW at {RATE}, batches of {BATCH}, {WIDTH} hidden units.\n\n"
    )
    text += table(["item table", "temperature", *(f"epoch {n + 1}" for n in range(count))], lines)
    into = asked.results or (None if asked.quick else RESULTS)
    write("frozen_table", "How well a table of texts recommends", text, figures, at, into)


if __name__ == "__main__":
    main()

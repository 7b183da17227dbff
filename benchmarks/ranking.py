"""Full ranking of many encoded users: product with the item table, own items masked, the best 20, Recall and NDCG.

Random unit vectors stand in for what the encoder gives, so that the encoder is no part of it; they are multiplied in
chunks as `RecFormer.recommend` does, and ranked by `utility.rank`. Each run is a process of its own; the seconds are of
the ranking alone, the peak is the kernel's figure of the process, imports included. The product alone over the same
chunks follows in the same process: what is beyond it is the price of ranking.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from measuring import arguments, goal, goal_text, in_child, machine, spread, table, write
from torch.nn.functional import normalize

from pplr_audit.data.dataset import Ragged, Split
from pplr_audit.models.recommenders.recformer import SCORES
from pplr_audit.training.utility.evaluate import rank

SECONDS, BYTES = 5.0, 1e9
USERS, ITEMS, HIDDEN, OWN = 20_000, 17_000, 384, 10
TEMPERATURE = 0.05
CHILD = "--in-the-child"


def scored(points: torch.Tensor, items: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    together = max(1, SCORES // len(items))
    for start in range(0, len(points), together):
        part = points[start : start + together]
        yield np.arange(start, start + len(part)), (part / TEMPERATURE @ items.T).numpy()


def in_the_child(users: int, items: int) -> None:
    """Figures as JSON."""
    draw, generator = torch.Generator().manual_seed(0), np.random.default_rng(0)
    points = normalize(torch.randn(users, HIDDEN, generator=draw), dim=1)
    catalogue = normalize(torch.randn(items, HIDDEN, generator=draw), dim=1)
    # Items of one's own, for validation and for the test come from different parts: a masked test item is never ranked.
    parts = ((OWN, 0, items // 2), (1, items // 2, items * 3 // 4), (1, items * 3 // 4, items))
    rows = [
        Ragged(np.arange(0, users * each + 1, each), generator.integers(first, end, users * each))
        for each, first, end in parts
    ]
    started = time.perf_counter()
    found = rank(scored(points, catalogue), np.arange(users), Split(*rows))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    started = time.perf_counter()
    for _ in scored(points, catalogue):
        pass
    product = time.perf_counter() - started
    recall = float(found.metrics["recall@20"].mean())
    print(json.dumps({"seconds": seconds, "product": product, "peak": peak, "recall@20": recall}))


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=5)
    at, (users, items) = machine(), (500, 1_000) if chosen.quick else (USERS, ITEMS)
    runs = [in_child(__file__, CHILD, users=users, items=items) for _ in range(chosen.repeats)]
    seconds, product = spread([run["seconds"] for run in runs]), spread([run["product"] for run in runs])
    over, peak = spread([run["seconds"] / run["product"] for run in runs]), spread([run["peak"] / 1e9 for run in runs])
    speed = spread([2e-9 * users * items * HIDDEN / run["product"] for run in runs])
    lines = [
        ["ranking, matrix product included", seconds.text(" s", 2), goal_text(seconds.median, SECONDS)],
        ["the matrix product alone", product.text(" s", 2), ""],
        ["the matrix product alone", speed.text(" GFLOP/s", 0), ""],
        ["ranking / the matrix product alone", over.text(digits=2), ""],
        ["peak memory", peak.text(" GB", 2), goal_text(peak.most, BYTES / 1e9)],
    ]
    figures = {
        "users": users, "items": items, "hidden": HIDDEN, "runs": runs,
        "seconds": goal(seconds.median, SECONDS), "ratio": over, "peak": goal(peak.most * 1e9, BYTES),
    }  # fmt: skip
    text = f"{users:,} users, {items:,} items, hidden size {HIDDEN}, float32.\n\n"
    text += table(["what", "median (least–most)", "goal"], lines)
    write("ranking", "Full ranking of encoded users", text, figures, at, chosen.results)


if __name__ == "__main__":
    if CHILD in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument(CHILD, action="store_true", dest="child")
        parser.add_argument("--users", type=int)
        parser.add_argument("--items", type=int)
        parsed = parser.parse_args()
        in_the_child(parsed.users, parsed.items)
    else:
        main()

"""Whether a model that trains and ranks in bfloat16 recommends as one in float32 does.

RecFormer on MiniLM over ml-1m, centralized, with the settings and the budget of ``paper_table.py``: the same samples in
the same order, once in each number format, measured on the same users. Differences are of those in pairs. Each run is
kept, and a second call goes on where the first stopped.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import round_logs
from measuring import RESULTS, machine, table, write
from paper_groups import Group, groups
from paper_numbers import over_all

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.scoring.intervals import paired_difference
from pplr_audit.training import run_job
from pplr_audit.training.utility import user_scores as per_user

METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
FORMATS = ("float32", "bfloat16")


def told(group: Group, seed: int, precision: str) -> scenario.Scenario:
    chosen = group.scenario(seed)
    return chosen.model_copy(
        update={
            "name": f"{precision}-{seed}",
            "model": chosen.model.model_copy(update={"precision": precision}),
            "training": chosen.training.model_copy(update={"strategy": "centralized", "rivals": None}),
        }
    )


def measured(group: Group, seed: int, precision: str, root: Path) -> tuple[per_user.UserScores, float]:
    chosen = told(group, seed, precision)
    result = audit.train(chosen, root / chosen.name)
    logs = round_logs.by_strategy(result.directory)[chosen.training.label]
    return run_job.user_scores(result.directory), round_logs.seconds(logs)


def less(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], users: np.ndarray
) -> dict[str, tuple[float, float, float]]:
    """Of one format less another, in pairs: the mean difference and its interval, by metric."""
    found = {m: paired_difference(one[m], other[m], users, seed=0) for m in METRICS}
    return {m: (each.value, each.low, each.high) for m, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the synthetic market and one seed; nothing is written")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "precision-utility")
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    asked = parser.parse_args()
    at, group = machine(), groups(asked.quick)[0]
    scores: dict[str, list[Mapping[str, np.ndarray]]] = {precision: [] for precision in FORMATS}
    people: list[np.ndarray] = []
    seconds: dict[str, list[float]] = {precision: [] for precision in FORMATS}
    for seed in range(1 if asked.quick else asked.seeds):
        for precision in FORMATS:
            found, spent = measured(group, seed, precision, asked.runs / ("quick" if asked.quick else "full"))
            scores[precision].append(found.scores[found.strategy])
            seconds[precision].append(spent)
        people.append(found.users)
    lines, differences = [], {}
    for seed, users in enumerate(people):
        one, other = (scores[precision][seed] for precision in FORMATS)
        for name, each in zip(FORMATS, (one, other), strict=True):
            lines.append([f"{name}, seed {seed}", *(f"{each[m].mean():.4f}" for m in METRICS)])
        differences[f"bfloat16 minus float32, seed {seed}"] = less(other, one, users)
    together = {}
    for m in METRICS:
        each = over_all([{"value": d[m][0], "ci": d[m][1:]} for d in differences.values()])
        together[m] = (each.value, each.low, each.high)
    differences["bfloat16 minus float32, all seeds"] = together
    lines += [
        [name, *(f"{v:+.4f} [{low:+.4f}, {high:+.4f}]" for v, low, high in each.values())]
        for name, each in differences.items()
    ]
    text = f"{group.name}, centralized, {len(people[0]):,} test users for each seed, 95 % intervals over users. The"
    text += " interval for all seeds is over users and seeds (Student's, or over users alone if that is wider).\n\n"
    text += table(["what", *METRICS], lines)
    figures = {"differences": differences, "seconds_of_training": seconds}
    into = asked.results or (None if asked.quick else RESULTS)
    write("precision_utility", "The same training in two number formats", text, figures, at, into)


if __name__ == "__main__":
    main()

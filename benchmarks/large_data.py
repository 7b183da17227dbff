"""Twenty million ratings in CSV, as MovieLens ships them, to clients' histories: wall time and peak memory by step.

Each run is a fresh process that reads ratings.csv and movies.csv, splits by leave-one-out, assigns users to clients by
k-means on matrix-factorization embeddings, tosses the coins and builds the training samples: all that stands before a
model. The second case is a million users of ten items each, from memory: partition, coins and samples alone. The peak
is the kernel's figure of the process, imports included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measuring import arguments, goal, goal_text, machine, spread, table, write

from pplr_audit import scenario
from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.load import load
from pplr_audit.data.population import populate
from pplr_audit.data.samples import training_samples
from pplr_audit.data.split import split

SECONDS, BYTES = 60.0, 2e9
USERS, ITEMS, ROWS = 138_000, 27_000, 20_000_000
CHILD = "--in-the-child"


def ratings(folder: Path, rows: int, users: int, items: int) -> int:
    """Write ratings.csv (users together, power-law popularity, a fifth of the times out of order) and movies.csv."""
    rng = np.random.default_rng(0)
    share = rng.pareto(1.2, users) + 0.3
    owner = np.repeat(np.arange(1, users + 1), np.maximum(4, (share / share.sum() * rows).astype(int)))[:rows]
    popular = 1 / np.arange(1, items + 1) ** 0.8
    frame = pl.DataFrame(
        {
            "userId": owner,
            "movieId": rng.choice(items, len(owner), p=popular / popular.sum()) * 7 + 1,
            "rating": rng.integers(1, 11, len(owner)) / 2,
            "timestamp": 800_000_000 + np.arange(len(owner)) * 30 + rng.integers(0, 2000, len(owner)),
        }
    )
    frame.write_csv(folder / "ratings.csv")
    titles = [f'The "{n}th" Movie, A ({1900 + n % 120})' for n in range(items)]
    movies = pl.DataFrame({"movieId": np.arange(items) * 7 + 1, "title": titles, "genres": ["Comedy|Drama"] * items})
    movies.write_csv(folder / "movies.csv")
    return len(owner)


def many_users(users: int, items: int) -> Dataset:
    """``users`` users of ten items each, most of them of one of 50 shelves."""
    rng = np.random.default_rng(0)
    shelf = np.repeat(rng.integers(0, 50, users), 10)
    values = np.where(rng.random(users * 10) < 0.8, shelf * (items // 50) + rng.integers(0, items // 50, users * 10), 0)
    names = tuple(map(str, range(items)))
    return Dataset(
        "many", Catalogue(names, names, ("",) * items), tuple(map(str, range(users))),
        Ragged(np.arange(0, users * 10 + 1, 10), values), None, {}, "",
    )  # fmt: skip


def in_the_child(folder: str, users: int) -> None:
    """Read ``folder``, or (empty) make ``users`` users in memory, and go on to the samples; figures as JSON."""
    data = scenario.Data(path=folder or "synthetic", audit_users=min(100_000, users // 2))
    began = time.perf_counter()
    seconds = {}

    def lap(name: str) -> None:
        nonlocal began
        seconds[name], began = time.perf_counter() - began, time.perf_counter()

    dataset = load(data, 0) if folder else many_users(users, 10_000)
    lap("reading" if folder else "")
    seconds.pop("", None)
    parts = split(dataset, data.split)
    lap("splitting")
    population = populate(dataset, parts, data, 0)
    lap("clients and coins")
    total = 0
    for client in range(len(population.clients)):
        mine = np.flatnonzero((population.client_of == client) & (population.member == 1))
        total += len(training_samples(parts, mine, data.history, data.samples))
    lap("samples")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows, people = len(dataset.items.values), len(dataset.users)
    print(json.dumps({"seconds": seconds, "peak": peak, "rows": rows, "users": people, "samples": total}))


def measure(folder: str, users: int) -> dict[str, Any]:
    command = [sys.executable, __file__, CHILD, folder, "--users", str(users)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["seconds"]["in total"] = sum(found["seconds"].values())
    return found


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=5)
    at = machine()
    rows, users, many = (200_000, 1_400, 10_000) if chosen.quick else (ROWS, USERS, 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        count = ratings(Path(name), rows, users, ITEMS // (20 if chosen.quick else 1))
        size = (Path(name) / "ratings.csv").stat().st_size
        cases = {
            f"{count / 1e6:.1f} M ratings in {size / 1e6:,.0f} MB of CSV": (name, users),
            f"{many / 1e6:g} M users": ("", many),
        }
        runs: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
        for _ in range(chosen.repeats):
            for case, arguments_ in cases.items():
                runs[case].append(measure(*arguments_))
    lines, figures = [], {}
    for case, found in runs.items():
        for step in found[0]["seconds"]:
            lines.append([case, step, spread([run["seconds"][step] for run in found]).text(" s", 1), ""])
        seconds, peak = spread([r["seconds"]["in total"] for r in found]), spread([r["peak"] / 1e9 for r in found])
        lines[-1][-1] = goal_text(seconds.median, SECONDS)
        lines.append([case, "peak memory", peak.text(" GB", 2), goal_text(peak.most, BYTES / 1e9)])
        figures[case] = {"runs": found, "seconds": goal(seconds.median, SECONDS), "peak": goal(peak.most * 1e9, BYTES)}
    text = table(["what", "step", "median (least–most)", "goal"], lines)
    write("large_data", "From a large file to clients' histories", text, figures, at, chosen.results)


if __name__ == "__main__":
    if CHILD in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument(CHILD, dest="folder")
        parser.add_argument("--users", type=int)
        in_the_child(**vars(parser.parse_args()))
    else:
        main()

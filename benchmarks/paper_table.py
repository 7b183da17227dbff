"""PPLR beside its rivals on real data: recommendations, balance between clients, and which differences exceed noise.

Every cell of the table is one strategy on one data set with one recommender and one seed: five clients by k-means,
1,024 training samples, five rounds, at most 2,000 test users. The cells of one seed are one run of pplr-audit with
rivals, so they share clients, samples, test users and the order of batches. It takes hours. Runs are kept, and a second
call continues where the first stopped (``--minutes`` ends it early). The page is written after each run and says which
cells have run. A run that fails is named at the end and stops no other. ``--complete`` trains nothing: it adds what
kept files lack from the run directories. The item table of ``recformer`` is always the base model's
(``refresh_rounds: 0``).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paper_mixing
import round_logs
from measuring import RESULTS
from paper_groups import Group, groups, slug
from paper_page import FLOORS, page

from pplr_audit import pipeline as audit
from pplr_audit.errors import InputError, RunError
from pplr_audit.scoring.intervals import paired_difference
from pplr_audit.training.utility.user_scores import UserScores

PAGE = RESULTS / "paper_table.md"
RUNS = Path("runs") / "paper-table"
KEPT = RESULTS / "paper_table"
"""What has run stays in the repository, so that another machine goes on from there."""
SEEDS = (0, 1, 2)


def documents(kept: Path, group: Group, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What has run of a group, by seed."""
    paths = {seed: kept / f"{slug(group, seed)}.json" for seed in seeds}
    there = {seed: path.read_text(encoding="utf-8") for seed, path in paths.items() if path.is_file()}
    return {seed: json.loads(text) for seed, text in there.items()}


def strangers(kept: Path, chosen: Sequence[Group]) -> list[str]:
    """Kept files of no run that there is with today's settings."""
    known = {slug(group, seed) for group in chosen for seed in SEEDS}
    return sorted(path.stem for path in kept.glob("*.json") if path.stem not in known)


def write(kept: Path, group: Group, seed: int, document: Mapping[str, Any]) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{slug(group, seed)}.json").write_text(json.dumps(document) + "\n", encoding="utf-8")


def run(root: Path, kept: Path, group: Group, seed: int) -> None:
    """Train and measure what is left of one run, and keep what the page is made of."""
    started, directory = time.perf_counter(), root / slug(group, seed)
    code = noted(directory)
    found = audit.train(group.scenario(seed), directory).document
    document = {part: found[part] for part in ("run", "utility", "balance", "differences")}
    write(kept, group, seed, {**document, "code": code, **logged(directory)})
    print(f"{group.name}, seed {seed}: {time.perf_counter() - started:.0f} s in this call", flush=True)


def logged(directory: Path) -> dict[str, Any]:
    """Of a run: the seconds that each strategy trained, the last mixing of PPLR and of what is left of it, and how far
    each strategy is above the references."""
    logs = round_logs.by_strategy(directory)
    return {
        "training_seconds": {name: round(round_logs.seconds(each), 3) for name, each in logs.items()},
        "mixing": {name: paper_mixing.kept(each[-1]) for name, each in logs.items() if name.split()[0] == "pplr"},
        "references": over_references(round_logs.user_scores(directory)),
    }


def over_references(found: UserScores) -> list[dict[str, Any]]:
    """Each strategy less what it must beat, the same users in pairs."""
    rows = []
    for name, metrics in found.scores.items():
        for floor in (each for each in FLOORS if name not in FLOORS and each in found.scores):
            for metric, scores in metrics.items():
                less = paired_difference(scores, found.scores[floor][metric], found.users, seed=0)
                ci = [less.low, less.high]
                rows.append({"strategy": name, "against": floor, "metric": metric, "value": less.value, "ci": ci})
    return rows


def complete(root: Path, kept: Path, chosen: Sequence[Group], seeds: Sequence[int]) -> None:
    """Add what files of an older version lack, where the run's directory is still there."""
    for group in chosen:
        for seed, document in documents(kept, group, seeds).items():
            directory = root / slug(group, seed)
            if {"mixing", "training_seconds", "references"} <= document.keys():
                continue
            if not directory.is_dir():
                print(f"{group.name}, seed {seed}: no {directory}")
                continue
            try:
                found = logged(directory)
            except InputError as error:
                print(f"{group.name}, seed {seed}: {error}")
                continue
            write(kept, group, seed, {**document, **found})
            print(f"{group.name}, seed {seed}: completed from {directory}")


def noted(directory: Path) -> list[str]:
    """The commits whose code a run was made with, this call's last; ``unknown`` where a call did not note it."""
    file = directory.parent / f"{directory.name}.code"
    before = file.read_text(encoding="utf-8").split() if file.is_file() else ["unknown"] * directory.is_dir()
    package = Path(audit.__file__).parent
    git = ["git", "-C", str(package)]
    commit, changed = (
        subprocess.run([*git, *rest, "--", "."], capture_output=True, text=True, check=False).stdout.strip()
        for rest in (("log", "-1", "--format=%h"), ("status", "--porcelain"))
    )
    now = (commit or "no-git") + "+" * bool(changed)
    code = [*before, *([now] if before[-1:] != [now] else [])]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(code) + "\n", encoding="utf-8")
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a synthetic market and one seed; the page is printed")
    parser.add_argument("--runs", type=Path, default=RUNS, help=f"where runs are kept (default: {RUNS})")
    parser.add_argument("--kept", type=Path, help=f"where their figures are kept (default: {KEPT}; --quick: --runs)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further run after so many")
    parser.add_argument("--only", default="", help="groups whose name holds this text")
    parser.add_argument("--complete", action="store_true", help="only complete kept files from --runs; nothing trains")
    parser.add_argument(
        "--results", type=Path, help="the page (default: paper_table.md in benchmarks/results; --quick: printed)"
    )
    asked = parser.parse_args()
    started = time.monotonic()
    seeds = SEEDS[:1] if asked.quick else SEEDS
    chosen = groups(asked.quick)
    into = asked.results or (None if asked.quick else PAGE)
    kept = asked.kept or (asked.runs if asked.quick else KEPT)
    failed: list[str] = []

    def text() -> str:
        found = {group.name: documents(kept, group, seeds) for group in chosen}
        return page(chosen, found, seeds, strangers(kept, chosen), failed)

    if asked.complete:
        complete(asked.runs, kept, chosen, seeds)
    for seed in () if asked.complete else seeds:  # a first seed of everything before a second of anything
        for group in chosen:
            if asked.only not in group.name or seed in documents(kept, group, [seed]):
                continue
            if time.monotonic() - started > 60 * asked.minutes:
                break
            try:
                run(asked.runs, kept, group, seed)
            except (InputError, RunError) as error:
                failed.append(f"{group.name}, seed {seed}: {error}")
                print(failed[-1], file=sys.stderr, flush=True)
            if into is not None:
                into.write_text(text(), encoding="utf-8")
    if into is None:
        print(text())
    else:
        into.write_text(text(), encoding="utf-8")
        print(into)
    if failed:
        raise SystemExit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()

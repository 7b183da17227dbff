"""Wall time and peak memory of whole audits by this checkout and by another one, side by side.

Both sides take turns, each in fresh processes: the quickstart from an empty cache and again from the cache that this
left, and ml-100k on a folder of weights where both folders are given. The other checkout is any clone with the same
dependencies, so that one environment runs both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from measuring import interleaved, machine, ratios, spread, table, write
from quickstart import Memory

HERE = Path(__file__).parents[1]
GOALS = {"quickstart, empty cache": 1 / 2, "quickstart, warm cache": 1 / 3, "ml-100k": 1 / 2}
"""Most of the other checkout's wall time."""
SMALLER = ("data.market={users: 120, items: 48, tastes: 3}", "training.rounds=1", "data.test_users=20")


@dataclass(frozen=True)
class Case:
    """One audit: what is run, and whether the cache is emptied before."""

    name: str
    scenario: str
    settings: tuple[str, ...] = ()
    cold: bool = False


def cases(chosen: argparse.Namespace) -> list[Case]:
    """The audits that the options ask for; the quickstart with an empty cache leaves the cache for the warm one."""
    smaller = SMALLER if chosen.quick else ()
    found = [
        Case("quickstart, empty cache", "quickstart", smaller, cold=True),
        Case("quickstart, warm cache", "quickstart", smaller),
    ]
    if chosen.data and chosen.model:
        settings = (
            f"data.path={chosen.data}",
            f"model.backbone={chosen.model}",
            "training.rounds=1",
            "audit.victims=40",
        )
        found.append(Case("ml-100k", "ml-100k", settings))
    return [case for case in found if case.name in (chosen.only or GOALS)]


def audit(checkout: Path, case: Case, cache: Path, peaks: list[float], threads: int | None) -> float:
    """Run an audit by the code of ``checkout``; return its seconds and add its peak of memory, in bytes, to ``peaks``.

    Memory is that of the command and of all below it, as `quickstart.Memory` samples it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = [word for setting in case.settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "pplr_audit", "run", case.scenario, "--out", str(folder / "run"), *sets]
        command += [] if threads is None else ["--threads", str(threads)]
        where = folder / "cache" if case.cold else cache
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PPLR_AUDIT_CACHE": str(where)}
        began = time.perf_counter()
        child = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
        memory = Memory(psutil.Process(child.pid))
        memory.start()
        code = child.wait()
        seconds = time.perf_counter() - began
        memory.stop()
        if code:
            raise SystemExit(f"{checkout}: the command ended with {code}")
    peaks.append(float(max(total for _, total in memory.samples)))
    print(f"{case.name}, {checkout.name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return seconds


def measured(case: Case, other: Path, chosen: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Seconds and peaks of both sides, turn by turn; one turn that is thrown away fills the cache of a warm case."""
    with tempfile.TemporaryDirectory() as name:
        peaks: dict[str, list[float]] = {"other": [], "this": []}
        sides = {
            side: partial(audit, checkout, case, Path(name) / side, peaks[side], chosen.threads)
            for side, checkout in (("other", other), ("this", HERE))
        }
        seconds = interleaved(sides, chosen.repeats, warm_up=0 if case.cold else 1)
    return {"seconds": seconds, "peak_bytes": {side: found[-chosen.repeats :] for side, found in peaks.items()}}


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="the other checkout, whose code is compared with")
    parser.add_argument("--data", type=Path, help="folder of ml-100k; with --model, ml-100k is measured too")
    parser.add_argument("--model", type=Path, help="folder of a causal language model for ml-100k")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--threads", type=int, help="threads of both sides; default: each side chooses")
    parser.add_argument("--only", action="append", choices=[*GOALS], help="one of the audits; may be given again")
    parser.add_argument("--quick", action="store_true", help="a smaller market, to see that it works")
    parser.add_argument("--results", type=Path, help="folder to write to; default: nothing is written")
    chosen = parser.parse_args(given)
    for name in ("checkout", "data", "model"):
        path = getattr(chosen, name)
        if path is not None:
            setattr(chosen, name, path.resolve())
    if not (chosen.checkout / "pplr_audit").is_dir():
        parser.error(f"{chosen.checkout}: there is no folder pplr_audit (accepted: a checkout of this project)")
    return chosen


def main() -> None:
    chosen = options()
    at = machine()
    figures, rows = {}, []
    for case in cases(chosen):
        found = figures[case.name] = measured(case, chosen.checkout, chosen)
        seconds, peak = found["seconds"], found["peak_bytes"]
        ratio = spread(ratios(seconds["this"], seconds["other"]))
        goal = GOALS[case.name]
        rows.append(
            [
                case.name, spread(seconds["other"]).text(" s", 1), spread(seconds["this"]).text(" s", 1),
                f"{ratio.text(digits=2)}, goal ≤ {goal:.2f}: {'met' if ratio.median <= goal else 'not met'}",
                *(spread([value / 1e9 for value in peak[side]]).text(" GB", 2) for side in ("other", "this")),
            ]
        )  # fmt: skip
    head = ["audit", "other checkout", "this checkout", "this / other, turn by turn", "peak, other", "peak, this"]
    text = f"{chosen.repeats} turns, in alternating order, each in fresh processes.\n\n{table(head, rows)}"
    write("against", "Whole audits beside another checkout", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()

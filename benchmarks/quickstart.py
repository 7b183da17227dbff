"""Time and memory of ``pplr-audit run quickstart`` by phase, in a fresh process with an empty cache.

A child process runs the real command, with a `Progress` that says when each phase begins and ends; this process adds up
the resident memory of the child and all below it every 50 ms. Empty cache means that the tiny Llama is trained too.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from measuring import arguments, goal, goal_text, machine, spread, table, write

SECONDS, BYTES = 180.0, 2e9
EVERY = 0.2
CHILD = "--in-the-child"
AROUND = "starting and ending"
"""What lies in no phase: imports, reading the scenario, the table at the end."""


@dataclass(frozen=True)
class Phase:
    """From and to by the clock that both processes share."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True)
class Measured:
    """One run of the command."""

    seconds: float
    peak: int
    """Of the sampled sums, in bytes."""
    own_peak: int
    """Of the child alone, by the kernel: what the samples may have missed."""
    phases: dict[str, dict[str, float]]


class Stamps:
    """A `pplr_audit.runs.progress.Progress` that writes each outermost phase as a line of JSON when it ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._depth = 0

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Any]:
        del total
        began = time.time()
        self._depth += 1
        try:
            yield lambda n=1, note="": None
        finally:
            self._depth -= 1
            if not self._depth:
                with self._file.open("a", encoding="utf-8") as lines:
                    print(json.dumps({"name": name, "began": began, "ended": time.time()}), file=lines)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


def in_the_child(folder: Path, settings: list[str]) -> None:
    """The command itself, in this process; at its end the kernel's own figure of the memory it took."""
    from pplr_audit.cli import main as cli
    from pplr_audit.runs import progress

    try:
        with patch.object(progress, "to", lambda stream: Stamps(folder / "phases.jsonl")):
            sys.argv = ["pplr-audit", "run", "quickstart", "--out", str(folder / "run"), *settings]
            cli.main()
    finally:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (folder / "peak").write_text(str(kilobytes * 1024))


class Memory(threading.Thread):
    """Samples the memory of a process and of all below it until it has ended; pages that they share count once."""

    def __init__(self, root: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._over = threading.Event()
        self.samples: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self._over.wait(EVERY):
            total = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [self._root, *self._root.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += _own_and_shared(process)
            self.samples.append((time.time(), total))

    def stop(self) -> None:
        self._over.set()
        self.join()


def _own_and_shared(process: psutil.Process) -> int:
    """Bytes of a process, of pages that it shares with others its part; where a system does not tell, all of them."""
    found = process.memory_full_info()
    return int(getattr(found, "pss", found.rss))


def measure(settings: list[str]) -> Measured:
    """One run from an empty cache, in folders that are thrown away."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.time()
        child = subprocess.Popen(
            [sys.executable, __file__, CHILD, str(folder), *settings],
            env={**os.environ, "PPLR_AUDIT_CACHE": str(folder / "cache")},
            stdout=subprocess.DEVNULL,
        )
        memory = Memory(psutil.Process(child.pid))
        memory.start()
        code = child.wait()
        ended = time.time()
        memory.stop()
        if code:
            raise SystemExit(f"the command ended with {code}")
        lines = (folder / "phases.jsonl").read_text(encoding="utf-8").splitlines()
        phases = [Phase(**json.loads(line)) for line in lines]
        own_peak = int((folder / "peak").read_text())
    found = {p.name: {"seconds": p.ended - p.began, "peak": _peak(memory.samples, p)} for p in phases}
    rest = ended - began - sum(phase["seconds"] for phase in found.values())
    outside = [s for s in memory.samples if not any(p.began <= s[0] <= p.ended for p in phases)]
    found[AROUND] = {"seconds": rest, "peak": max((total for _, total in outside), default=0)}
    return Measured(ended - began, max(total for _, total in memory.samples), own_peak, found)


def _peak(samples: list[tuple[float, int]], phase: Phase) -> int:
    """The most memory within a phase; of one shorter than the sampling, the sample nearest to it."""
    inside = [total for moment, total in samples if phase.began <= moment <= phase.ended]
    return max(inside) if inside else min(samples, key=lambda s: abs(s[0] - phase.ended))[1]


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=5)
    settings = []
    if chosen.quick:
        for smaller in ("data.market={users: 120, items: 48, tastes: 3}", "training.rounds=1", "data.test_users=20"):
            settings += ["--set", smaller]
    at = machine()
    runs = [measure(settings) for _ in range(chosen.repeats)]

    seconds = spread([run.seconds for run in runs])
    peak = spread([float(max(run.peak, run.own_peak)) for run in runs])
    figures = {
        "seconds": {"over_runs": seconds, "goal": goal(seconds.median, SECONDS)},
        "peak_bytes": {"over_runs": peak, "goal": goal(peak.most, BYTES)},
        "runs": runs,
    }
    rows = []
    for phase in runs[0].phases:
        spent = spread([run.phases[phase]["seconds"] for run in runs])
        held = spread([run.phases[phase]["peak"] / 1e9 for run in runs])
        rows.append([phase, spent.text(" s", digits=1), held.text(" GB", digits=2)])
    rows.append(["**in total**", seconds.text(" s", digits=1), spread([v / 1e9 for v in _peaks(runs)]).text(" GB", 2)])
    text = (
        f"{chosen.repeats} runs{' of a smaller market' if chosen.quick else ''}, each in a fresh process with an empty"
        f" cache. Median time in s: {goal_text(seconds.median, SECONDS)}. Peak memory in GB, worst run:"
        f" {goal_text(peak.most / 1e9, BYTES / 1e9)}.\n\n"
        + table(["phase", "time, median (least–most)", "peak memory, median (least–most)"], rows)
    )
    write("quickstart", "The quickstart: time and memory by phase", text, figures, at, chosen.results)


def _peaks(runs: list[Measured]) -> list[float]:
    return [float(max(run.peak, run.own_peak)) for run in runs]


if __name__ == "__main__":
    if CHILD in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument(CHILD, dest="folder", type=Path)
        known, others = parser.parse_known_args()
        in_the_child(known.folder, others)
    else:
        main()

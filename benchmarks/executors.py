"""Eight trainings by each executor, side by side in one call: serial with one and with two threads, processes.

Each turn trains the same scenario in a fresh directory, in a process of its own, and the turns alternate, so that a
busy moment of the machine hits all alike. The table has medians; goals are ratios.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measuring import arguments, goal_text, interleaved, machine, ratios, spread, table, write

RIVALS = (
    "[fedavg, local, fedprox, ditto, {pplr: {ablate: [speed]}}, {pplr: {ablate: [similarity]}}, "
    "{pplr: {ablate: [heating]}}]"
)
"""With the run's own training eight of them."""
ALONE, TWO, BESIDE = "serial, 1 thread", "serial, 2 threads", "processes, 1 thread each"
WAYS = {ALONE: ("serial", 1), TWO: ("serial", 2), BESIDE: ("processes", 1)}


def once(executor: str, threads: int, users: int, rounds: int) -> float:
    """Seconds of one call."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"training.rivals={RIVALS}", f"training.rounds={rounds}", f"data.market.users={users}"]
        command = [
            sys.executable, "-m", "pplr_audit", "train", "quickstart", "--out", str(Path(folder) / "run"),
            "--threads", str(threads), "--executor", executor, *(word for each in settings for word in ("--set", each)),
        ]  # fmt: skip
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ)
        return time.perf_counter() - started


def main() -> None:
    given = arguments(__doc__ or "", 5)
    at = machine()
    users, rounds = (200, 1) if given.quick else (800, 1)
    once("serial", 1, users, 1)  # the base model's cache
    sides = {name: partial(once, *way, users, rounds) for name, way in WAYS.items()}
    seconds = interleaved(sides, given.repeats)
    rows, figures = [], {}
    for name, values in seconds.items():
        found, ratio = spread(values), spread(ratios(seconds[BESIDE], values)).median
        figures[name] = {"seconds": values, "processes_take": ratio}
        rows.append((name, found.text(" s", 1), "" if name == BESIDE else f"{ratio:.2f}"))
    text = (
        f"Quickstart's market with {users} users, {rounds} rounds, by turns; processes take of serial with one thread "
        f"{goal_text(figures[ALONE]['processes_take'], 0.6)}, of serial with two "
        f"{goal_text(figures[TWO]['processes_take'], 1.0)}.\n\n"
    )
    text += table(("way", "time, median (least-most)", "processes take of it"), rows)
    write("executors", "Eight trainings by each executor", text, figures, at, given.results)


if __name__ == "__main__":
    main()

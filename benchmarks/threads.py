"""Training with other work beside it: the threads that are chosen, against one and against two.

Beside nothing, one and two busy loops, `pplr-audit train` of a small quickstart runs in a process of its own: with one
thread, with two, and with those that it chooses itself; and with two that wait by spinning, as it was before. The tiny
Llama is trained once, beforehand. Compared is the time of the phase "training", turn by turn.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import arguments, goal, goal_text, interleaved, machine, ratios, spread, table, write

AT_MOST = 1.5
PHASE = "training"
SIDES: dict[str, tuple[list[str], dict[str, str]]] = {
    "one thread": (["--threads", "1"], {}),
    "two threads": (["--threads", "2"], {}),
    "chosen": ([], {}),
}
SPINNING = (["--threads", "2"], {"OMP_WAIT_POLICY": "ACTIVE"})
SIZE = ["--set", "data.market={users: 600, items: 160, tastes: 5}", "--set", "data.test_users=50"]
QUICK = ["--set", "data.market={users: 120, items: 48, tastes: 3}", "--set", "data.test_users=20"]
ROUNDS = ["--set", "training.rounds=1"]


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """Other programs that want a core each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def trained(size: list[str], options: list[str], environment: dict[str, str], cache: Path) -> dict[str, Any]:
    """Train in a fresh process; answers the run's manifest."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        subprocess.run(
            [sys.executable, "-m", "pplr_audit", "train", "quickstart", "--out", str(run), *size, *ROUNDS, *options],
            env={**ours, "PPLR_AUDIT_CACHE": str(cache), **environment}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        return manifest


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=5)
    at, size = machine(), QUICK if chosen.quick else SIZE
    loops_beside = (0, 1) if chosen.quick else (0, 1, 2)
    figures: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        trained(size, ["--threads", "1"], {}, cache)  # the tiny Llama, once for all
        for loops in loops_beside:
            picked: list[int] = []

            def timed(
                options: list[str], environment: dict[str, str], picked: list[int] = picked, loops: int = loops
            ) -> float:
                with busy(loops):
                    manifest = trained(size, options, environment, cache)
                if not options:
                    picked.append(manifest["compute"][0]["threads"])
                return float(manifest["seconds"][PHASE])

            sides = {name: lambda way=way: timed(*way) for name, way in SIDES.items()}
            found = interleaved(sides, chosen.repeats)
            found["two, spinning"] = [timed(*SPINNING)]  # once: it may take minutes
            better = [min(pair) for pair in zip(found["one thread"], found["two threads"], strict=True)]
            ratio = spread(ratios(found["chosen"], better))
            figures[str(loops)] = {
                "seconds": {name: spread(values) for name, values in found.items()},
                "chosen_threads": picked, "ratio": ratio, "goal": goal(ratio.median, AT_MOST),
            }  # fmt: skip
            cells = [spread(found[name]).text(" s", 1) for name in (*SIDES, "two, spinning")]
            rows.append([str(loops), *cells, ", ".join(map(str, picked)), ratio.text("×", 2)])
    worst = max(each["goal"]["value"] for each in figures.values())
    head = ["busy loops beside it", *SIDES, "two, spinning", "threads chosen", "chosen / the better of one and two"]
    text = (
        f"Time of the training phase, median (least–most) of {chosen.repeats} turns. The chosen number of threads takes"
        f" at most {worst:.2f} times as long as the better of one and two threads (median of turns),"
        f" {goal_text(worst, AT_MOST)}.\n\n" + table(head, rows)
    )
    write("threads", "Threads beside other work", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()

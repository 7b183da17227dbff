"""How long the commands take that only talk: help, and each list. As subprocesses, files in the page cache."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measuring import arguments, goal, goal_text, interleaved, machine, spread, table, write

AT_MOST = 0.5
KINDS = ("attacks", "defenses", "scenarios", "models", "readers", "strategies")


def command() -> list[str]:
    """The installed script beside this interpreter, else the module."""
    script = Path(sys.executable).with_name("pplr-audit")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pplr_audit"]


def timed(call: list[str]) -> Callable[[], float]:
    """Answers the seconds of one call from start to exit."""

    def once() -> float:
        started = time.perf_counter()
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return once


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=21)
    at, repeats = machine(), 3 if chosen.quick else chosen.repeats
    calls = {"--help": ["--help"], **{f"list {kind}": ["list", kind] for kind in KINDS}}
    sides = {f"pplr-audit {name}": timed([*command(), *rest]) for name, rest in calls.items()}
    sides["python alone"] = timed([sys.executable, "-c", "pass"])
    spent = {name: spread(each) for name, each in interleaved(sides, repeats, warm_up=1).items()}
    figures = {
        name: {"seconds": s, "goal": goal(s.median, AT_MOST) if name != "python alone" else None}
        for name, s in spent.items()
    }
    rows = [
        [f"`{name}`", s.text(" s"), goal_text(s.median, AT_MOST) if name != "python alone" else ""]
        for name, s in spent.items()
    ]
    text = f"{repeats} interleaved calls of each command.\n\n" + table(
        ["command", "median (least–most)", "goal in s"], rows
    )
    write("startup", "Start-up time of commands that only print", text, {"commands": figures}, at, chosen.results)


if __name__ == "__main__":
    main()

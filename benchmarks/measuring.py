"""What the measurements share: turns taken in one process, medians with their spread, the machine, the two files."""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MEASURED = ("pplr_audit", "attacks", "defenses", "benchmarks/*.py")
"""Folders and files whose code the figures are of."""


@dataclass(frozen=True)
class Spread:
    """A median, the quartiles beside it, and the ends."""

    median: float
    quartiles: tuple[float, float]
    least: float
    most: float
    n: int

    def text(self, unit: str = "", digits: int = 3) -> str:
        return f"{self.median:.{digits}f}{unit} ({self.least:.{digits}f}–{self.most:.{digits}f}, n={self.n})"


def spread(values: Sequence[float]) -> Spread:
    """The median of ``values``, its quartiles, smallest and largest."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Spread(statistics.median(values), (low, high), min(values), max(values), len(values))


def in_child(script: str, flag: str, **options: int) -> dict[str, Any]:
    """What ``script`` prints in a process of its own, as JSON: a peak of memory is one process's."""
    command = [sys.executable, script, flag, *(str(part) for name, n in options.items() for part in (f"--{name}", n))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def interleaved(sides: Mapping[str, Callable[[], float]], turns: int, warm_up: int = 0) -> dict[str, list[float]]:
    """Let the sides take turns, in the opposite order every other turn, so that no side profits from its place.

    Args:
        sides: each does its work once and answers what it measured.
        warm_up: turns whose answers are thrown away.
    """
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warm_up, turns):
        for name in sides if turn % 2 == 0 else reversed(list(sides)):
            value = sides[name]()
            if turn >= 0:
                measured[name].append(value)
    return measured


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Turn by turn: what slows the machine down for a while slows both sides of a ratio."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def goal(value: float, at_most: float) -> dict[str, Any]:
    """The figure beside its goal."""
    return {"value": value, "at_most": at_most, "met": value <= at_most}


def goal_text(value: float, at_most: float) -> str:
    return f"≤ {at_most:g}: {'met' if value <= at_most else 'not met'}"


def command() -> str:
    """The command that runs this measurement, without the folders on the way to a file."""
    options = [re.sub("[^=]*/", "", word) for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *options])


def commit() -> str:
    """The commit whose code is measured, with ``+`` where the package or the benchmarks differ from it."""
    root = Path(__file__).parents[1]
    found, changed = (
        subprocess.run(["git", "-C", str(root), *rest], capture_output=True, text=True, check=False).stdout.strip()
        for rest in (("log", "-1", "--format=%h"), ("status", "--porcelain", "--", *MEASURED))
    )
    return (found or "no-git") + "+" * bool(changed)


def machine() -> dict[str, Any]:
    """The machine and the software that the figures hold for. ``load`` says how busy it was with other things."""
    import torch

    from pplr_audit import __version__
    from pplr_audit.runs.environment import hardware, libraries

    return {
        "command": command(),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **hardware(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "libraries": libraries(),
        "pplr_audit": __version__,
    }


def arguments(description: str, repeats: int, **choices: Sequence[str]) -> argparse.Namespace:
    """``--quick``, ``--repeats`` and ``--results``, as every measurement takes them, and its own choices by name, of
    which the first stands where nothing is said."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small form that shows that the script works")
    parser.add_argument("--repeats", type=int, help=f"default: {repeats}")
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    for name, accepted in choices.items():
        parser.add_argument(f"--{name}", choices=accepted, default=accepted[0])
    parsed = parser.parse_args()
    if parsed.results is None and not parsed.quick:
        parsed.results = RESULTS
    if parsed.repeats is None:
        parsed.repeats = 1 if parsed.quick else repeats
    return parsed


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def write(
    name: str, title: str, text: str, figures: Mapping[str, Any], at: Mapping[str, Any], into: Path | None
) -> None:
    """Print what was found, and write ``NAME.json`` and ``NAME.md`` into a folder (None: only print).

    Args:
        at: the machine, described before the measurement began.
    """
    libraries = ", ".join(f"{library} {version}" for library, version in at["libraries"].items())
    where = (
        f"{at['cpu']}, {at['cores']} cores, {at['memory_bytes'] / 1e9:.0f} GB, {at['threads']} threads,"
        f" load {at['load']} at the start; {at['platform']}; Python {at['python']}, {libraries}; pplr-audit"
        f" {at['pplr_audit']}; {at['date']}.\n\nCommand: `{at['command']}`. Commit: {at['commit']}."
    )
    document = f"# {title}\n\n{text}\n\n{where}\n"
    print(document)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
        written = {"machine": dict(at), **figures}
        plain = json.dumps(written, indent=2, ensure_ascii=False, default=asdict, allow_nan=False)
        (into / f"{name}.json").write_text(plain + "\n", encoding="utf-8")
        (into / f"{name}.md").write_text(document, encoding="utf-8")

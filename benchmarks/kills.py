"""A small run killed by SIGKILL at random moments, continued each time, against a run that was never killed.

A life begins when the process holds the run directory (importing has nothing to lose) and ends after a time drawn
evenly between nothing and what an undisturbed run takes from there; every other life is drawn ten times shorter, so
that runs are also killed several times in a row. After each kill every recorded
file is checked against its checksum. A run that comes to its end is compared, and the next one begins, until there were
as many kills as asked for.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama
from measuring import arguments, machine, spread, table, write

from pplr_audit import scenario as scenarios
from pplr_audit.data.load import load
from pplr_audit.errors import InputError
from pplr_audit.runs.directory import LOCK
from pplr_audit.runs.store import RUN, TRAINING, Store
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training.run_job import FOLDER

SEED = 0


@dataclass(frozen=True)
class Kill:
    """One life and where it ended."""

    run: int
    life: int
    seconds: float
    files: int
    """Recorded files at that moment, each of which held what its checksum says."""
    last: str
    """The newest of them."""


def scenario_of(folder: Path) -> Scenario:
    """Seconds from start to end: 3 clients, 3 rounds, 4 blocks with random weights."""
    return Scenario.model_validate(
        {
            "name": "kills",
            "data": {
                "market": {"users": 120, "items": 48, "tastes": 3}, "clients": 3, "history": 4, "audit_users": 80,
                "test_users": 30,
            },
            "model": {"backbone": str(folder), "beams": 1, "max_tokens": 256},
            "training": {"rounds": 3, "batch_size": 8},
            "audit": {"victims": 20, "attacks": [{"ridge": {"prompts": 64, "held_out": 8}}, "loss"]},
        }
    )  # fmt: skip


def begin(file: Path, run: Path) -> "subprocess.Popen[bytes]":
    """The real command in a process of its own; comes back when it holds the run directory."""
    command = [sys.executable, "-m", "pplr_audit", "run", str(file), "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            if (run / LOCK).read_text() == f"{process.pid}\n":
                break
        except FileNotFoundError:
            pass
        time.sleep(0.005)
    return process


def finish(process: "subprocess.Popen[bytes]") -> None:
    if process.wait():
        raise SystemExit(f"the command ended with {process.returncode}")


def recorded(run: Path) -> list[str]:
    """All recorded files, the newest last, each read and checked. A run killed as it began has none."""
    names = []
    for root, kind in ((run, RUN), *((folder, TRAINING) for folder in sorted((run / FOLDER).glob("*")))):
        try:
            with Store.load(root, kind=kind) as store:
                for name in store.paths():
                    store.read_bytes(name)
                    names.append(str((root / name).relative_to(run)))
        except InputError as error:
            if "killed as it began" not in str(error) and "it has no" not in str(error):
                raise
    return sorted(names, key=lambda name: (run / name).stat().st_mtime_ns)


def comparable(run: Path) -> list[Any]:
    """Findings, utility and costs without the times."""
    document = json.loads((run / "findings.json").read_text(encoding="utf-8"))
    findings = [{**row, "seconds": 0} for row in document["findings"]]
    costs = [{**row, "seconds_per_round": 0, "measured": 0} for row in document["costs"]]
    return [findings, document["utility"], costs]


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=10)
    at, wanted = machine(), 2 if chosen.quick else chosen.repeats
    draw = random.Random(SEED)
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PPLR_AUDIT_CACHE"] = str(folder / "cache")
        scenario = scenario_of(folder / "llama")
        llama.save(folder / "llama", load(scenario.data, scenario.seed).catalogue, layers=4, hidden=32)
        file = folder / "scenario.yaml"
        file.write_text(scenarios.dump(scenario), encoding="utf-8")

        undisturbed = begin(file, folder / "undisturbed")
        began = time.perf_counter()
        finish(undisturbed)
        takes = time.perf_counter() - began
        expected = comparable(folder / "undisturbed")

        number, same = 0, 0
        while len(kills) < wanted:
            number += 1
            run, life = folder / f"run-{number}", 0
            while True:
                life += 1
                process = begin(file, run)
                seconds = draw.uniform(0, takes / (10 if life % 2 == 0 else 1))
                if len(kills) < wanted:
                    try:
                        process.wait(seconds)
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                        files = recorded(run)
                        kills.append(Kill(number, life, seconds, len(files), files[-1] if files else "nothing yet"))
                        continue
                finish(process)
                break
            if comparable(run) != expected:
                raise SystemExit(f"run {number} ended with other findings; its kills: {kills}")
            recorded(run)
            same += 1

    lived = spread([kill.seconds for kill in kills])
    figures = {
        "takes": takes, "kills": [vars(kill) for kill in kills], "runs": number, "runs_with_the_same_findings": same
    }  # fmt: skip
    text = (
        f"{len(kills)} kills in {number} runs of about {takes:.1f} s. All {same} runs ended with the findings, utility"
        " and costs of a run that was never killed. After every kill, all recorded files were complete. Time until a"
        f" kill, median (least–most): {lived.text(' s', digits=1)}.\n\n"
    )
    rows = [[str(k.run), str(k.life), f"{k.seconds:.2f} s", str(k.files), f"`{k.last}`"] for k in kills]
    text += table(["run", "start", "killed after", "complete files", "newest file"], rows)
    write("kills", "Runs killed at random moments and continued", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()

"""Trial imports of the needed libraries and plugins, in a process that may die of them."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pplr_audit.cli.doctor.check import Trial
from pplr_audit.cli.doctor.libraries import MAIN_JOB, modules_needed
from pplr_audit.runs.progress import Advance
from pplr_audit.scenario import plugins

SECONDS = 120.0
"""After so long without an answer an import counts as one that does not end."""


def targets() -> list[str]:
    """Every needed library that is installed, the main job itself, and every plugin."""
    found = [point.value for kind in plugins.KINDS for point in plugins.points(kind)]
    return [*modules_needed(), MAIN_JOB, *dict.fromkeys(found)]


def try_imports(targets: Sequence[str], advance: Advance, seconds: float = SECONDS) -> Trial:
    """Import each of ``targets``; where one takes the process down, go on behind it in another."""
    trial = Trial()
    while not trial.accelerator:
        left = [target for target in targets if target not in trial.errors]
        began, died = _attempt(left, trial, advance, seconds)
        if began:
            trial.errors[began] = died
        elif not trial.accelerator:
            trial.accelerator = {"error": f"asking torch for it {died}"}
    return trial


def _attempt(targets: list[str], trial: Trial, advance: Advance, seconds: float) -> tuple[str, str]:
    """One process: the target that it died of (nothing where it was none), and how it ended."""
    command = [sys.executable, str(Path(__file__).with_name("import_probe.py"))]
    asked = json.dumps({"path": [place or "." for place in sys.path], "targets": targets})
    began, late = "", threading.Event()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            process.stdin.write(asked)
            process.stdin.close()
            for line in _lines(process.stdout):
                if "began" in line:
                    began = line["began"]
                elif "ended" in line:
                    trial.errors[line["ended"]], began = line["error"], ""
                    advance(1, line["ended"])
                else:
                    trial.accelerator = line["accelerator"]
        except BrokenPipeError:
            pass  # it died before it read; how is in its exit code
        finally:
            timer.cancel()
    return (
        began,
        f"does not end within {seconds:g} s" if late.is_set() else f"ends the process: {_words(process.returncode)}",
    )


def _lines(printed: Any) -> Iterator[dict[str, Any]]:
    for line in printed:
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last one, cut short by a death


def _words(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"

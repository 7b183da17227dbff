"""The command line in processes of their own that can be killed, forked from one that has imported everything.

Importing takes longer than the small runs that most tests need. The process forked from computes nothing, so no thread
of it can be lost on the way. For the exit of a real interpreter use `subprocess` instead.
"""

import os
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, get_context
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

PRELOAD = ["pplr_audit.cli.main", "pplr_audit.pipeline", "peft", "sklearn.linear_model"]


def command_line(arguments: Sequence[str], folder: Path, failpoint: str = "") -> CompletedProcess[str]:
    """Run ``pplr-audit`` in ``folder`` with one thread; a negative exit code is the signal that it died of."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    said = [folder / f".{os.getpid()}.{name}" for name in ("stdout", "stderr")]
    child = context.Process(target=_run, args=([*arguments], str(folder), failpoint, [*map(str, said)]))
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    told = [file.read_text() for file in said]
    for file in said:
        file.unlink()
    return CompletedProcess([*arguments], -1 if code is None else code, *told)


def _run(arguments: list[str], folder: str, failpoint: str, files: list[str]) -> None:
    from pplr_audit.cli.main import main
    from pplr_audit.runs import failpoints

    for stream, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    failpoints.choose(failpoint)
    os.chdir(folder)
    sys.argv = ["pplr-audit", *arguments]
    main()

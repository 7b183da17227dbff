"""Folders for what is needed only while it is read: they go when the reading ends, however it ends."""

import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

PREFIX = "pplr-audit-"
_NAME = re.compile(rf"{PREFIX}([1-9]\d{{0,6}})-\w+")
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for the owner alone.

    It is removed at the end, after an error, and when SIGINT, SIGTERM or SIGHUP ends the process. What a killed process
    left is removed at the next start (`sweep`).
    """
    sweep()
    with _unwound_by_signals(), ExitStack() as ending:
        # The name tells whose it is: see `sweep`.
        place = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
        ending.callback(shutil.rmtree, place, ignore_errors=True)
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        ending.callback(os.close, held)
        with suppress(OSError):  # Not every file system has locks.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield place


def within(place: Path) -> tuple[str, ...]:
    """The parts of a path below this process's scratch folder."""
    made = next(at for at, part in enumerate(place.parts) if part.startswith(f"{PREFIX}{os.getpid()}-"))
    return place.parts[made + 1 :]


def sweep() -> None:
    """Remove the scratch folders that killed processes left.

    Only folders, never links, of the own user, under our own kind of name, whose process is gone. The lock keeps those
    of processes that cannot be seen from here: another container may share the folder of temporary files.
    """
    folder, left = tempfile.gettempdir(), []
    with suppress(OSError), os.scandir(folder) as entries:
        left = [each.name for each in entries if (found := _NAME.fullmatch(each.name)) and not _lives(int(found[1]))]
    for name in left:
        with suppress(OSError):
            _remove_unheld(os.path.join(folder, name))


def _remove_unheld(path: str) -> None:
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(held).st_uid == os.getuid():
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(held)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as SIGINT does, where they would end the process on the spot.

    Who ignores them or has a handler keeps that. Only the main thread can set handlers.
    """
    main = threading.current_thread() is threading.main_thread()
    ours = [each for each in _ENDING if main and signal.getsignal(each) == signal.SIG_DFL]

    def unwind(number: int, _: FrameType | None) -> NoReturn:
        for each in ours:  # A second one does not disturb the cleaning up.
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        for each in ours:
            signal.signal(each, unwind)
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)

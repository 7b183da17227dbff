"""The folder that a run lies in: free for a run or not, locked for one process, swept after a kill."""

import contextlib
import fcntl
import os
from pathlib import Path

from pplr_audit.errors import NO_SPACE, InputError, RunError
from pplr_audit.runs import ledger as ledgers
from pplr_audit.runs.atomic import TEMPORARY
from pplr_audit.runs.files import open_file

LOCK = ".pplr-audit.lock"


def require_free_or_run(root: Path) -> None:
    """Refuse a directory that holds something else, before anything is put into it."""
    if not root.exists():
        return
    if not root.is_dir():
        raise InputError(f"{root}: not a directory; choose another with --out DIR")
    try:
        found = {entry.name for entry in os.scandir(root)}
    except OSError as error:
        raise InputError(f"{root}: cannot be read: {error.strerror}; choose another with --out DIR") from None
    # The lock and the ledger come first into a new run: with nothing more, a kill came right after.
    others = {name for name in found if name != LOCK and not name.endswith(TEMPORARY)}
    if others and ledgers.NAME not in others:
        raise InputError(
            f"{root}: not empty and not a run of pplr-audit; nothing was touched; choose another with --out DIR"
        )


def locked(root: Path) -> int:
    """Take the run for this process until the descriptor is closed. Raises InputError if another one has it."""
    try:
        fd = open_file(root, LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise refused(root, "cannot be written", error) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise InputError(f"{root}: another process is running it (id {owner}); wait for it or stop it") from None
    except OSError as error:
        os.close(fd)
        raise InputError(f"{root}: no lock on this file system: {error.strerror}; choose another --out DIR") from None
    with contextlib.suppress(OSError):  # a full disk: the lock holds without saying whose it is
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def refused(root: Path, what: str, error: OSError) -> InputError | RunError:
    """A directory that cannot be had is a wrong choice; a disk that is full is not."""
    if error.errno in NO_SPACE:
        return RunError(f"{root}: {what}: {error.strerror}")
    return InputError(f"{root}: {what}: {error.strerror}; choose another with --out DIR")


def sweep(root: Path) -> None:
    """Remove what a kill left unfinished."""
    for _, _, files, folder in os.fwalk(root, follow_symlinks=False):
        for name in files:
            if name.startswith(".") and name.endswith(TEMPORARY):
                os.unlink(name, dir_fd=folder)

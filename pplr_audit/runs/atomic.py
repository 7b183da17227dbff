"""Files that are whole at every moment: written beside, brought to the disk, then renamed over."""

import os
from pathlib import Path

from pplr_audit.errors import RunError

TEMPORARY = ".pplr-audit-tmp"
"""How the names of unfinished files end; what a kill left of them is swept when the run is opened."""


def write_whole(path: Path, data: bytes) -> None:
    """Replace the file at ``path`` at once: whoever looks finds the old bytes or the new, also after a power cut.

    Raises RunError (a full disk, no permission); then what was there stays whole and no rest is left.
    """
    with Pending(path, data) as pending:
        pending.rename()


class Pending:
    """New bytes for a file, on the disk under another name in the same folder until ``rename``."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")

    def __enter__(self) -> "Pending":
        try:
            make_folder(self._path.parent)
            fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                write_all(fd, self._data)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._temporary.unlink(missing_ok=True)
            raise unwritable(self._path, error) from error
        return self

    def rename(self) -> None:
        try:
            os.replace(self._temporary, self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __exit__(self, *_: object) -> None:
        self._temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> RunError:
    """What to tell of a file of the run that the disk refuses."""
    return RunError(f"{path}: cannot be written: {error.strerror}; what was there is whole, the same command continues")


def write_all(fd: int, data: bytes) -> None:
    """``os.write`` until all is written: one call may take only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, each one lasting through a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in ``folder`` last through a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Files that are whole at every moment: written beside, brought to the disk, then renamed over."""

import contextlib
import errno
import os
from pathlib import Path

from pplr_audit.errors import InputError, RunError
from pplr_audit.runs.files import PRIVATE_FILE, PRIVATE_FOLDER, folder_of

TEMPORARY = ".pplr-audit-tmp"
"""Ending of the names of unfinished files; what a kill left of them is swept when the run is opened."""


def write_whole(root: Path, name: str, data: bytes) -> None:
    """Replace the file ``name`` below ``root`` at once: whoever looks finds the old bytes or the new, also after a
    power cut.

    Raises RunError (a full disk, no permission); then what was there stays whole and no rest is left. Raises InputError
    where a folder on the way is a link.
    """
    with Pending(root, name, data) as pending:
        pending.rename()


class Pending:
    """New bytes for a file, on the disk under another name in the same folder until ``rename``.

    Folders that are missing are made. A link in the file's place is replaced and never followed.
    """

    def __init__(self, root: Path, name: str, data: bytes) -> None:
        self._root, self._name, self._data = root, name, data
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Pending":
        with contextlib.ExitStack() as stack:
            try:
                self._folder, self._last = stack.enter_context(folder_of(self._root, self._name, make=True))
                self._temporary = f".{self._last}.{os.getpid()}{TEMPORARY}"
                self._remove_temporary()
                stack.callback(self._remove_temporary)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = os.open(self._temporary, flags, PRIVATE_FILE, dir_fd=self._folder)
                try:
                    write_all(fd, self._data)
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                raise unwritable(self._root / self._name, error) from error
            self._open = stack.pop_all()
        return self

    def rename(self) -> None:
        try:
            os.replace(self._temporary, self._last, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError as error:
            raise unwritable(self._root / self._name, error) from error

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _remove_temporary(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._folder)


def unwritable(path: Path, error: OSError) -> RunError | InputError:
    """Return the error about a file of the run that the disk refuses."""
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
        return InputError(f"{path}: cannot be written: {error.strerror}; a run has a regular file there")
    return RunError(f"{path}: cannot be written: {error.strerror}; what was there is whole, the same command continues")


def write_all(fd: int, data: bytes) -> None:
    """``os.write`` until all is written: one call may take only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_private_folder(folder: Path) -> None:
    """Make ``folder``, for its owner alone, and those above it, each one lasting through a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
        sync_folder(folder.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in ``folder`` last through a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

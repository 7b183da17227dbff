"""The one place that opens files of a run directory: it may come from a stranger, and is data like any other.

Only regular files are opened, never through a link, neither the file's own nor that of a folder on the way to it from
the run directory; a pipe does not block. What is read is bounded by what the run recorded or by a limit of ours. What
is made is for its owner alone.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from pplr_audit.errors import InputError

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
LARGEST_TEXT = 2**28
"""Bytes of the largest text that is read: JSON, and the lists of checksums and of events."""
_ALWAYS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TooLarge(InputError):
    """A file is larger than it can be in a run."""


def inside(path: str) -> str:
    """The one spelling of a path inside a run directory. Raises InputError where it could leave it."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise InputError(f"{path!r}: not a path inside the run directory")
    return "/".join(parts)


@contextmanager
def folder_of(root: Path, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open folder that the file ``name`` of the run lies in, and the file's own name there.

    Args:
        make: make the folders that are missing, each one lasting through a power cut.

    Raises:
        InputError: a folder on the way is a link, or no folder.
        FileNotFoundError: it is missing.
        OSError: the disk refuses.
    """
    *folders, last = inside(name).split("/")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # how the user names the run is the user's choice
    try:
        for depth, folder in enumerate(folders):
            try:
                inner = _open_folder(fd, folder, make)
            except NotADirectoryError:
                raise InputError(
                    f"{root.joinpath(*folders[: depth + 1])}: a link or a file; a run has a folder there"
                ) from None
            os.close(fd)
            fd = inner
        yield fd, last
    finally:
        os.close(fd)


def open_file(root: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file ``name`` of the run; with ``os.O_CREAT`` it is made where it is missing.

    Raises:
        InputError: it is a link, a folder, a pipe or a device; or, to be written, a file with a second name, which may
            lie outside.
        FileNotFoundError: it is missing.
        OSError: the disk refuses.
    """
    file = root / name
    with folder_of(root, name) as (folder, last):
        try:  # a look first: to open a device can act on it
            _require_regular(file, os.stat(last, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        fd = os.open(last, flags | _ALWAYS, PRIVATE_FILE, dir_fd=folder)
    try:
        found = os.fstat(fd)
        _require_regular(file, found)
        if flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink > 1:
            raise InputError(
                f"{file}: has a second name elsewhere, which would change with it; copy the run and use it"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_file(root: Path, name: str, most: int = LARGEST_TEXT) -> bytes:
    """The bytes of the regular file ``name`` of the run. Raises as `open_file`, and TooLarge if they are too many."""
    with os.fdopen(open_file(root, name), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise TooLarge(f"{root / name}: {size:,} bytes, where a run has at most {most:,}")
        return file.read(size)  # what is appended meanwhile is not of this reading


def keep_private(root: Path) -> str | None:
    """Take a run directory that others may enter away from them; what to tell where that cannot be done."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _open_to_others(fd):
            return None
        with suppress(OSError):
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & PRIVATE_FOLDER)
        if not _open_to_others(fd):
            return None
        return (
            f"{root}: other users of this machine can read it (mode {stat.S_IMODE(os.fstat(fd).st_mode):o}), and it "
            "holds users' histories; its mode cannot be changed"
        )
    finally:
        os.close(fd)


def _open_to_others(fd: int) -> bool:
    return bool(os.fstat(fd).st_mode & 0o077)


def _open_folder(fd: int, name: str, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=fd)
    except FileNotFoundError:
        if not make:
            raise
    os.mkdir(name, PRIVATE_FOLDER, dir_fd=fd)
    os.fsync(fd)
    return os.open(name, _FOLDER, dir_fd=fd)


def _require_regular(file: Path, found: os.stat_result) -> None:
    kinds = (
        (stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    )  # fmt: skip
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in kinds if is_kind(found.st_mode)), "a device")
        raise InputError(f"{file}: {kind}; a run has a regular file there")

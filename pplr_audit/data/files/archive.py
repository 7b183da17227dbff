"""A zip as GroupLens and others ship it, unpacked for as long as it is read; bounded."""

import io
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pplr_audit.data.files.scratch import scratch, within
from pplr_audit.data.files.streams import EXPANSION, FREE
from pplr_audit.errors import InputError

MEMBERS = 10_000
"""Files and folders that a zip may hold; data sets have a dozen."""
DIRECTORY = 1 << 22
"""Bytes of a zip's list of members: Python reads it whole, and makes ten times as much of it."""
CHUNK = 1 << 20
"""Bytes unpacked at a time."""


class _Bounded(io.FileIO):
    """A file of which nothing is read at once that is larger than a list of members may be."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > DIRECTORY:
            raise _TooMany
        return super().read(size) or b""


class _TooMany(Exception):
    """The list of members is longer than those of data sets are."""


@contextmanager
def unzipped(path: Path) -> Iterator[Path]:
    """The folder in which the files of the zip stand; of a zip with one folder or one file alone, that.

    A zip in the zip is not unpacked. Raises InputError for a damaged zip, one that has more members or unpacks to more
    than is plausible or than there is room for, one with two members of one name, one with a password. Errors about a
    file in it name the zip.
    """
    with scratch() as made:
        root = made / path.stem
        try:
            _unpack(path, root)
            inside = list(root.iterdir())
            yield inside[0] if len(inside) == 1 else root
        except InputError as error:
            raise InputError(str(error).replace(str(root), str(path))) from None


def inside_of(archive: Path, unpacked: Path) -> Path:
    """Return the name of a file in ``archive`` for messages, once it is no longer unpacked."""
    return archive.joinpath(*within(unpacked)[1:])


def _unpack(path: Path, root: Path) -> None:
    root.mkdir()
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            _unpack_members(archive, _wanted(archive, path), path, root)
    except _TooMany:
        raise InputError(f"{path}: holds too many files (accepted: up to {MEMBERS:,})") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: the zip file is damaged ({error})") from None
    except RuntimeError:
        raise InputError(f"{path}: the zip file asks for a password (accepted: one without)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or error})") from None


def _wanted(archive: zipfile.ZipFile, path: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to unpack, by where: none that is hidden or leads out of the folder."""
    if len(archive.infolist()) > MEMBERS:
        raise _TooMany
    wanted: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        # Old tools of Windows part folders by backslashes, which the format does not have (APPNOTE 4.4.17).
        name = member.filename.replace("\\", "/")
        place = PurePosixPath(name)
        leads_out = place.is_absolute() or ".." in place.parts or not place.parts or place.parts[0][1:2] == ":"
        if name.endswith("/") or leads_out or any(part.startswith((".", "__MACOSX")) for part in place.parts):
            continue
        if place in wanted:
            raise InputError(f"{path}: holds {place} twice (accepted: each file once)")
        wanted[place] = member
    return wanted


def _unpack_members(
    archive: zipfile.ZipFile, wanted: dict[PurePosixPath, zipfile.ZipInfo], path: Path, root: Path
) -> None:
    most = max(FREE, EXPANSION * path.stat().st_size)
    room = shutil.disk_usage(root.parent).free
    said = sum(member.file_size for member in wanted.values())
    if min(said, most) > room:
        raise InputError(f"{path}: unpacks to {said} bytes, for which there is no room in {root.parent.parent}")
    total = 0
    for place, member in wanted.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as packed, target.open("xb") as file:
            while piece := packed.read(CHUNK):
                total += len(piece)
                if total > most:
                    raise InputError(
                        f"{path}: unpacks to more than {EXPANSION} times its size (accepted: up to that, or up to "
                        f"{FREE >> 20} MB; if the file is right, unpack it first)"
                    )
                file.write(piece)

"""A zip as GroupLens and others ship it, unpacked for as long as it is read; bounded."""

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pplr_audit.data.readers.streams import EXPANSION, FREE, PIECE
from pplr_audit.errors import InputError

PREFIX = "pplr-audit-"


@contextmanager
def unzipped(path: Path) -> Iterator[Path]:
    """The folder in which the files of the zip stand; of a zip with one folder or one file alone, that.

    Raises InputError for a damaged zip, one that unpacks to more than is plausible or than there is room for, one with
    a password. Errors about a file in it name the zip.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as made:
        root = Path(made).resolve() / path.stem
        try:
            _unpack(path, root)
            inside = list(root.iterdir())
            yield inside[0] if len(inside) == 1 else root
        except InputError as error:
            raise InputError(str(error).replace(str(root), str(path))) from None


def inside_of(archive: Path, unpacked: Path) -> Path:
    """How a file that stood in ``archive`` is called once it is no longer unpacked."""
    parts = unpacked.parts
    made = next(at for at, part in enumerate(parts) if part.startswith(PREFIX))
    return archive.joinpath(*parts[made + 2 :])


def _unpack(path: Path, root: Path) -> None:
    most = max(FREE, EXPANSION * path.stat().st_size)
    total = 0
    root.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            room = shutil.disk_usage(root.parent).free
            said = sum(member.file_size for member in archive.infolist())
            if min(said, most) > room:
                raise InputError(f"{path}: unpacks to {said} bytes, for which there is no room in {root.parent.parent}")
            for member in archive.infolist():
                target = (root / member.filename).resolve()
                hidden = any(part.startswith((".", "__MACOSX")) for part in Path(member.filename).parts)
                if member.is_dir() or hidden or not target.is_relative_to(root):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, target.open("wb") as file:
                    while piece := packed.read(PIECE):
                        total += len(piece)
                        if total > most:
                            raise InputError(
                                f"{path}: unpacks to more than {EXPANSION} times its size (accepted: up to that, or up "
                                f"to {FREE >> 20} MB; if the file is right, unpack it first)"
                            )
                        file.write(piece)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: the zip file is damaged ({error})") from None
    except RuntimeError:
        raise InputError(f"{path}: the zip file asks for a password (accepted: one without)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or error})") from None

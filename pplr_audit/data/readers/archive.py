"""A zip as GroupLens and others ship it, unpacked for as long as it is read; bounded."""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pplr_audit.data.readers.streams import EXPANSION, FREE, PIECE
from pplr_audit.errors import InputError


@contextmanager
def unzipped(path: Path) -> Iterator[Path]:
    """The folder in which the files of the zip stand; of a zip with one folder alone, that folder.

    Raises InputError for a damaged zip, one that unpacks to more than is plausible or than there is room for, one with
    a password. Errors about a file in it name the zip.
    """
    with tempfile.TemporaryDirectory(prefix="pplr-audit-") as made:
        root = Path(made).resolve() / path.stem
        try:
            _unpack(path, root)
            inside = list(root.iterdir())
            yield inside[0] if len(inside) == 1 and inside[0].is_dir() else root
        except InputError as error:
            raise InputError(str(error).replace(str(root), str(path))) from None


def _unpack(path: Path, root: Path) -> None:
    most = max(FREE, EXPANSION * path.stat().st_size)
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            room = shutil.disk_usage(root.parent).free
            said = sum(member.file_size for member in archive.infolist())
            if min(said, most) > room:
                raise InputError(f"{path}: unpacks to {said} bytes, for which there is no room in {root.parent.parent}")
            for member in archive.infolist():
                target = (root / member.filename).resolve()
                if member.is_dir() or not target.is_relative_to(root):
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
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: the zip file is damaged ({error})") from None
    except RuntimeError:
        raise InputError(f"{path}: the zip file asks for a password (accepted: one without)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or error})") from None

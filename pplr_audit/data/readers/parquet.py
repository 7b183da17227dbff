"""Parquet: typed columns, read as they are."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import polars.selectors as cs

from pplr_audit.data.dataset import Source
from pplr_audit.data.readers.streams import unpacked
from pplr_audit.data.readers.tables import Gathering, Kind, Table, named
from pplr_audit.errors import InputError

ROWS = 1 << 22
"""Rows put into their form at a time."""
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def read_parquet(path: Path, kinds: Mapping[str, Kind]) -> Table:
    """The columns that ``kinds`` names.

    Raises InputError for a file that is missing, damaged or no Parquet, for a missing column, for a column or a value
    that is not of its kind, and for a file without rows.
    """
    known = columns_of(path)
    for name in kinds:
        named(known, str(path), name)
    try:
        frame = pl.read_parquet(path, columns=list(kinds), use_pyarrow=False, memory_map=False)
    except BROKEN as error:
        raise _damaged(path, error) from None
    gathering = Gathering(path, kinds, unit="row")
    for start in range(0, len(frame), ROWS):
        gathering.add(_plain(frame[start : start + ROWS], kinds), start + 1)
    sha, size = hashlib.sha256(), 0
    for piece in unpacked(path):
        sha.update(piece)
        size += len(piece)
    return gathering.table(Source.of(path, "parquet", size, sha.digest()))


def columns_of(path: Path) -> list[str]:
    """The column names. Raises InputError for a file that is missing or no Parquet."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return list(pl.read_parquet_schema(path))
    except BROKEN as error:
        raise _damaged(path, error) from None


def _plain(frame: pl.DataFrame, kinds: Mapping[str, Kind]) -> pl.DataFrame:
    """Categories as their text; lists of text, where text is wanted, as one string with ``|`` between."""
    lists = [name for name, kind in frame.schema.items() if kind == pl.List(pl.String) and kinds[name] == "text"]
    return frame.with_columns(cs.categorical().cast(pl.String), *(pl.col(name).list.join("|") for name in lists))


def _damaged(path: Path, error: BaseException) -> InputError:
    text = str(error).strip().splitlines()
    return InputError(f"{path}: cannot be read as Parquet ({text[0] if text else type(error).__name__})")

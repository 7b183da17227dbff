"""Parquet: typed columns, read as they are."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import polars.selectors as cs

from pplr_audit.data.dataset import Source
from pplr_audit.data.files.columns import Gathering, Kind, Table, named
from pplr_audit.data.files.parquet_footer import NoFooter, RowGroup, row_groups
from pplr_audit.data.files.streams import EXPANSION, FREE, unpacked
from pplr_audit.errors import InputError

ROWS = 1 << 22
"""Rows read at a time, where a group of rows is not larger."""
VALUE = 8
"""Bytes that a value takes in memory at least."""
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def read_parquet(path: Path, kinds: Mapping[str, Kind]) -> Table:
    """The columns that ``kinds`` names, some groups of rows at a time.

    Raises InputError for a file that is missing, damaged or no Parquet, for one that unpacks to more than is plausible,
    for a missing column, for a column or a value that is not of its kind, and for a file without rows.
    """
    known = columns_of(path)
    for name in kinds:
        named(known, str(path), name)
    groups, most = _bounded(path, len(kinds))
    gathering, total = Gathering(path, kinds, unit="row"), 0
    for start, count in _stretches(groups):
        try:
            frame = pl.scan_parquet(path, glob=False).select(kinds.keys()).slice(start, count).collect()
        except BROKEN as error:
            raise _damaged(path, error) from None
        frame = frame.with_columns(cs.categorical().cast(pl.String))
        total += _text_bytes(frame)
        if total > most:
            raise _too_large(path)
        gathering.add(_plain(frame, kinds), start + 1)
    sha, size = hashlib.sha256(), 0
    for piece in unpacked(path):
        sha.update(piece)
        size += len(piece)
    return gathering.table(Source.of(path, "parquet", size, sha.digest()), known)


def head(path: Path, rows: int) -> pl.DataFrame:
    """The first rows, all columns as they are. Raises InputError as reading does."""
    columns_of(path)
    try:
        frame = pl.read_parquet(path, n_rows=rows, use_pyarrow=False, memory_map=False)
    except BROKEN as error:
        raise _damaged(path, error) from None
    return frame.with_columns(cs.categorical().cast(pl.String))


def _bounded(path: Path, columns: int) -> tuple[list[RowGroup], int]:
    """The groups of rows, and the bytes that the file may unpack to: as `streams.unpacked`.

    Raises InputError where the file itself says that it holds more. A row counts eight bytes a column at least:
    repeated values take none of the file, but of the memory.
    """
    try:
        groups, most = row_groups(path), max(FREE, EXPANSION * path.stat().st_size)
    except (NoFooter, OSError) as error:
        raise _damaged(path, error) from None
    if max(sum(group.size for group in groups), VALUE * columns * sum(group.rows for group in groups)) > most:
        raise _too_large(path)
    return groups, most


def _stretches(groups: Sequence[RowGroup]) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each piece to read: whole groups up to ROWS, or pieces of a larger one."""
    start = count = 0
    for group in groups:
        if count and count + group.rows > ROWS:
            yield start, count
            start, count = start + count, 0
        count += group.rows
        while count > ROWS:
            yield start, ROWS
            start, count = start + ROWS, count - ROWS
    if count:
        yield start, count


def _text_bytes(frame: pl.DataFrame) -> int:
    """Bytes of all texts, each counted as often as it stands there: a file may hold a repeated one once."""
    lists = [column.explode() for column in frame if column.dtype == pl.List(pl.String)]
    return sum(int(column.str.len_bytes().sum()) for column in [*frame.select(pl.col(pl.String)), *lists])


def _too_large(path: Path) -> InputError:
    return InputError(
        f"{path}: unpacks to more than {EXPANSION} times its size (accepted: up to that, or up to {FREE >> 20} MB; if "
        "the file is right, write it as CSV)"
    )


def columns_of(path: Path) -> list[str]:
    """The column names. Raises InputError for a file that is missing or no Parquet."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        row_groups(path)  # A footer beyond measure is refused before polars reads it.
        return list(pl.read_parquet_schema(path))
    except (NoFooter, *BROKEN) as error:
        raise _damaged(path, error) from None


def _plain(frame: pl.DataFrame, kinds: Mapping[str, Kind]) -> pl.DataFrame:
    """Lists of text, where text is wanted, as one string with ``|`` between."""
    lists = [name for name, kind in frame.schema.items() if kind == pl.List(pl.String) and kinds[name] == "text"]
    return frame.with_columns(*(pl.col(name).list.join("|") for name in lists))


def _damaged(path: Path, error: BaseException) -> InputError:
    text = str(error).strip().splitlines()
    return InputError(f"{path}: cannot be read as Parquet ({text[0] if text else type(error).__name__})")

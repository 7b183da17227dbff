"""Delimited text (CSV, TSV and their kin), read block by block; a broken row is named by its line."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from jaxtyping import Int

from pplr_audit.data.files.columns import Gathering, Kind, OtherColumns, Table, each_once, named
from pplr_audit.data.files.messages import listed
from pplr_audit.data.files.streams import LONGEST_RECORD, Block, Escaped, NotText, Stream, not_text, occurrences
from pplr_audit.errors import InputError

UNIT_SEPARATOR = "\x1f"
T = TypeVar("T")


@dataclass(frozen=True)
class Dialect:
    """The way in which the rows of a file are written."""

    separator: str = ","
    quoted: bool = True
    """Fields may stand in quotation marks, doubled where one belongs to the field (RFC 4180)."""
    header: Sequence[str] | None = None
    """The columns, where the first line does not say them."""
    titled: bool = False
    """True if, with ``header``, the first line is no row all the same."""
    encodings: Sequence[str] = ("utf-8",)
    escaped: bool = False
    """A quotation mark that belongs to a quoted field has a backslash before it; a file that shows it is read so."""
    blanks: bool = False
    """Fields begin behind the blanks that follow a separator; a file whose header shows it is read so."""


def read_delimited(path: Path, dialect: Dialect, kinds: Mapping[str, Kind] | None = None) -> Table:
    """The columns that ``kinds`` names, or all of them as text.

    Raises InputError for a file that is missing, empty or not text, for a doubled or missing column, a row of another
    width, a value that is not of its kind, a file without rows.
    """
    return first_fitting(path, dialect.encodings, _either_way(dialect, lambda *way: _read(path, kinds, *way)))


def columns_of(path: Path, dialect: Dialect) -> list[str]:
    """The header of a delimited file. Raises InputError as reading does."""
    if dialect.header is not None:
        return list(dialect.header)

    def first(dialect: Dialect, encoding: str) -> list[str]:
        return _header(next(_blocks(_stream(path, dialect, encoding), dialect)), dialect, path)[0]

    return first_fitting(path, dialect.encodings, _either_way(dialect, first))


def width_of(path: Path, dialect: Dialect) -> int:
    """Count the fields of the first record. Raises InputError as reading does."""

    def first(dialect: Dialect, encoding: str) -> int:
        block = next(_blocks(_stream(path, dialect, encoding), dialect))
        try:
            return len(next(_rows(block, dialect), []))
        except csv.Error as error:
            raise InputError(f"{path}, line {block.line}: {error} (accepted: quotation marks in pairs)") from None

    return first_fitting(path, dialect.encodings, _either_way(dialect, first))


def head(path: Path, dialect: Dialect, rows: int) -> pl.DataFrame:
    """The first rows, all columns as text. Raises InputError as reading does."""

    def first(dialect: Dialect, encoding: str) -> pl.DataFrame:
        block, columns = next(_blocks(_stream(path, dialect, encoding), dialect)), list(dialect.header or ())
        if dialect.header is None:
            columns, dialect = _header(block, dialect, path)
        if dialect.header is None or dialect.titled:
            block = _without_first_record(block, dialect)
        if not block.data:
            raise InputError(f"{path}: no rows (accepted: at least one)")
        return _parse(block, columns, dialect, path).head(rows)

    return first_fitting(path, dialect.encodings, _either_way(dialect, first))


def first_lines(path: Path, encodings: Sequence[str], most: int = 1000) -> list[str]:
    """The first lines as they stand. Raises InputError as reading does."""

    def first(encoding: str) -> list[str]:
        return next(iter(Stream(path, encoding))).data.decode().split("\n", most)[:most]

    return first_fitting(path, encodings, first)


def first_fitting(path: Path, encodings: Sequence[str], read: Callable[[str], T]) -> T:
    """Read the file by ``read`` in the first encoding that fits.

    Raises InputError where none does, and where one fits but for a few bytes: read in the next, all of it would change.
    """
    worst: NotText | None = None
    for encoding in encodings:
        try:
            return read(encoding)
        except NotText as wrong:
            worst = worst or wrong
            if wrong.damaged:
                break
    assert worst is not None, "there is at least one encoding"
    raise not_text(path, encodings, worst)


def _either_way(dialect: Dialect, read: Callable[[Dialect, str], T]) -> Callable[[str], T]:
    """``read`` with the dialect as it is, and once more where the file turns out to escape quotation marks."""

    def tried(encoding: str) -> T:
        try:
            return read(dialect, encoding)
        except Escaped:
            return read(replace(dialect, escaped=True), encoding)

    return tried


def _stream(path: Path, dialect: Dialect, encoding: str) -> Stream:
    return Stream(path, encoding, quoted=dialect.quoted, escaped=dialect.escaped)


def _blocks(stream: Stream, dialect: Dialect) -> Iterator[Block]:
    """The blocks with quotation marks inside quoted fields doubled."""
    for block in stream:
        yield replace(block, data=_doubled(block.data, dialect.separator)) if dialect.escaped else block


def _read(path: Path, kinds: Mapping[str, Kind] | None, dialect: Dialect, encoding: str) -> Table:
    stream = _stream(path, dialect, encoding)
    columns, gathering = list(dialect.header or ()), None
    for block in _blocks(stream, dialect):
        if gathering is None:
            if dialect.header is None:
                columns, dialect = _header(block, dialect, path)
            if dialect.header is None or dialect.titled:
                block = _without_first_record(block, dialect)
            for name in kinds or ():
                named(columns, f"{path}, line 1", name)
            gathering = Gathering(path, kinds or dict.fromkeys(columns, "text"))
        if block.data:
            frame = _parse(block, columns, dialect, path)
            gathering.add(frame, block.line, _line_of_rows(frame, block))
    assert gathering is not None, "a stream of no block raises"
    return gathering.table(stream.source, columns)


def _header(block: Block, dialect: Dialect, path: Path) -> tuple[list[str], Dialect]:
    """The columns, and the dialect as the header shows it to be."""
    try:
        columns = next(_rows(block, dialect), [])
        if any(name.startswith(" ") for name in columns[1:]):
            dialect = replace(dialect, blanks=dialect.separator != " ")
            columns = next(_rows(block, dialect), [])
    except csv.Error as error:
        raise InputError(f"{path}, line {block.line}: {error} (accepted: a header, quotation marks in pairs)") from None
    columns = [name.strip() for name in columns]
    if not any(columns):
        raise InputError(f"{path}, line {block.line}: an empty line (accepted: a header)")
    each_once(columns, f"{path}, line {block.line}")
    return columns, dialect


def _without_first_record(block: Block, dialect: Dialect) -> Block:
    end = block.data.find(b"\n") + 1
    while dialect.quoted and block.data.count(b'"', 0, end) % 2:
        end = block.data.find(b"\n", end) + 1
    return Block(block.line + block.data.count(b"\n", 0, end), block.data[end:], block.whole)


def _parse(block: Block, columns: Sequence[str], dialect: Dialect, path: Path) -> pl.DataFrame:
    data, separator = block.data, dialect.separator
    if len(separator.encode()) > 1:
        # polars splits at one byte.
        if UNIT_SEPARATOR.encode() in data:
            raise InputError(f"{path}: holds the control character 0x1f (accepted: text)")
        data, separator = data.replace(separator.encode(), UNIT_SEPARATOR.encode()), UNIT_SEPARATOR
    quotes = dialect.quoted and b'"' in data and len(dialect.separator.encode()) == 1
    if quotes and (dialect.blanks or _inside(separator).search(data)):
        return _exactly(block, columns, dialect, path)
    try:
        frame = pl.read_csv(
            data, has_header=False, schema=dict.fromkeys(columns, pl.String), separator=separator,
            quote_char='"' if quotes else None, missing_columns="insert", infer_schema=False,
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        # A quotation mark inside a field that does not begin with one is refused by polars alone.
        return _exactly(block, columns, dialect, path)
    # A short row and an empty last field look alike to polars: the separators tell them apart.
    exact = not quotes and occurrences(data, separator.encode()) == block.lines * (len(columns) - 1)
    if not exact or len(frame) != block.lines:
        empty = frame[columns[-1]].null_count() if quotes and len(columns) > 1 else 1
        if empty:
            _refuse_wrong_row(block, columns, dialect, path)
    return frame.fill_null("")


def _exactly(block: Block, columns: Sequence[str], dialect: Dialect, path: Path) -> pl.DataFrame:
    """Row by row: polars passes over a quotation mark that stands where none may."""
    _refuse_wrong_row(block, columns, dialect, path)
    return pl.DataFrame(list(_rows(block, dialect)), dict.fromkeys(columns, pl.String), orient="row")


@cache
def _inside(separator: str) -> re.Pattern[bytes]:
    """A quotation mark alone that neither begins nor ends a field."""
    other = b'[^"\n' + re.escape(separator.encode()) + b"]"
    return re.compile(other + b'"' + other)


@cache
def _quoted(separator: str) -> re.Pattern[bytes]:
    """A quoted field with backslashes in it; their meaning is that of the sign behind them."""
    apart = b"[\n" + re.escape(separator.encode()) + b"]"
    inner = rb'[^"\\]*(?:(?:\\.|"")[^"\\]*)*'
    return re.compile(b"(?:(?<=" + apart + rb')|\A)"(' + inner + b')"(?=' + apart + rb"|\Z)", re.DOTALL)


def _doubled(data: bytes, separator: str) -> bytes:
    r"""Quoted fields as RFC 4180 has them.

    >>> print(_doubled(rb'1,"a \"b\" \\ c"', ",").decode())
    1,"a ""b"" \ c"
    """

    def field(found: re.Match[bytes]) -> bytes:
        inner = re.sub(rb'\\(["\\])', lambda sign: b'""' if sign[1] == b'"' else sign[1], found[1])
        return b'"' + inner + b'"'

    return _quoted(separator).sub(field, data)


def _line_of_rows(frame: pl.DataFrame, block: Block) -> Int[np.ndarray, "rows"] | None:
    """Lines from the block's first to each row's, where fields hold line ends."""
    if len(frame) == block.lines:
        return None
    inside = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True))).to_series().to_numpy()
    ends = np.cumsum(inside + 1)
    return np.concatenate(([0], ends[:-1])).astype(np.int64)


def _refuse_wrong_row(block: Block, columns: Sequence[str], dialect: Dialect, path: Path) -> None:
    """Raises InputError for the first row of another width, or with a quotation mark where none may stand."""
    rows, line = _rows(block, dialect), block.line
    last = block.line + block.lines - 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            if b'\\"' in block.data and not dialect.escaped:
                raise Escaped from None
            raise InputError(
                f"{path}, line {line}: {error} (accepted: fields in quotation marks, those inside doubled)"
            ) from None
        if row is None:
            return
        at, line = line, line + 1 + sum(field.count("\n") for field in row)
        if len(row) == len(columns) and (row != [""] or (len(columns) == 1 and row)):
            continue
        found = "an empty line" if row in ([], [""]) else f"{len(row)} column{'s' if len(row) > 1 else ''}"
        cut = (
            ": the file ends in the middle of a line"
            if not block.whole and at == last and len(row) < len(columns)
            else ""
        )
        shown = {"\t": "tabs", ",": "commas"}.get(dialect.separator, repr(dialect.separator))
        # Where no header names the columns, their number in the first line is all that tells another data set.
        other = at == 1 and dialect.header is not None and not cut
        raise (OtherColumns if other else InputError)(
            f"{path}, line {at}: {found}{cut} (accepted: {len(columns)} columns separated by {shown}: "
            f"{listed(columns)})"
        )


def _rows(block: Block, dialect: Dialect) -> Iterator[list[str]]:
    """The rows of a block, one after the other: slow and exact."""
    text = block.data.decode()
    if not dialect.quoted:
        yield from (line.split(dialect.separator) for line in text.removesuffix("\n").split("\n"))
        return
    limit = csv.field_size_limit(LONGEST_RECORD)
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=dialect.separator, strict=True,
                              skipinitialspace=dialect.blanks)  # fmt: skip
    finally:
        csv.field_size_limit(limit)

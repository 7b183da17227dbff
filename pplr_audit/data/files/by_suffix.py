"""A table of any usual form, told by the ending of its name."""

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from pplr_audit.data.files import delimited, json_lines, parquet
from pplr_audit.data.files.columns import Kind, Table
from pplr_audit.data.files.delimited import Dialect
from pplr_audit.data.files.messages import quote
from pplr_audit.data.files.streams import unpacked
from pplr_audit.data.files.timestamps import NUMBER, form_of
from pplr_audit.errors import InputError

SEPARATORS = (",", "\t", ";", "|", "::")
HEAD = 10_000
"""Rows from which it is told what the columns are."""
ACCEPTED = ".csv, .tsv, .txt, .dat, .jsonl, .ndjson or .json, each also as .gz, .parquet or .pq"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r'"(?:[^"]|"")*"|"(?:[^"\\]|""|\\.)*"')
_ENDING = re.compile(r"\.(?:(?:csv|tsv|txt|dat|jsonl|ndjson|json)(?:\.gz)?|parquet|pq)$", re.IGNORECASE)


def stem(path: Path) -> str | None:
    """The name without the ending of a table; None where it has none."""
    found = _ENDING.search(path.name)
    return None if found is None else path.name[: found.start()]


class Formats:
    """Reads delimited text, JSON lines and Parquet.

    Args:
        separator: of delimited text; None takes the commonest of comma, tab, semicolon, bar and ``::`` in the
            first line.
        encodings: of delimited text, the first that fits.
        quoted: whether fields of delimited text may stand in quotation marks; None: in CSV yes, in tab separated files
            where the first lines show that they do.
    """

    def __init__(self, separator: str | None, encodings: Sequence[str], quoted: bool | None = None) -> None:
        self._separator, self._encodings, self._quoted = separator, encodings, quoted

    def columns(self, path: Path, header: bool | None = None) -> list[str]:
        """The names of the columns. Raises InputError as reading does.

        Args:
            header: of delimited text, whether the first line holds the names; where it does not, they are the positions
                from 1. None: it does, and is refused where it looks like a row.
        """
        form = _form(path)
        if form == "text":
            found = delimited.columns_of(path, self._dialect(path, header))
            if header is None:
                _refuse_row(found, path)
            return found
        return parquet.columns_of(path) if form == "parquet" else json_lines.columns_of(path)

    def headed(self, path: Path) -> bool:
        """True if a file has its columns' names in a first line that could be a row."""
        return _form(path) == "text"

    def head(self, path: Path, header: bool | None = None) -> pl.DataFrame:
        """The first rows with all columns. Raises InputError as reading does."""
        form = _form(path)
        if form == "text":
            return delimited.head(path, self._dialect(path, header), HEAD)
        return parquet.head(path, HEAD) if form == "parquet" else json_lines.head(path)

    def read(self, path: Path, kinds: Mapping[str, Kind], header: bool | None = None) -> Table:
        """These columns. Raises InputError for an ending that is none of a table, and as reading any file does."""
        form = _form(path)
        if form == "text":
            return delimited.read_delimited(path, self._dialect(path, header), kinds)
        return parquet.read_parquet(path, kinds) if form == "parquet" else json_lines.read_json_lines(path, kinds)

    def _dialect(self, path: Path, header: bool | None) -> Dialect:
        lines = delimited.first_lines(path, self._encodings)
        separator = self._separator or max(SEPARATORS, key=lines[0].count)
        quoted = self._quoted
        if quoted is None:
            quoted = (separator != "\t" and len(separator.encode()) == 1) or _quotes(lines, separator)
        dialect = Dialect(separator, quoted=quoted, encodings=self._encodings)
        if header is not False:
            return dialect
        return replace(dialect, header=[str(at + 1) for at in range(delimited.width_of(path, dialect))])


def _refuse_row(columns: Sequence[str], path: Path) -> None:
    """Raises InputError for a first line that holds numbers or dates, unless it numbers the columns."""
    numbered = [name for name in columns if name]
    if numbered in ([str(at + first) for at in range(len(numbered))] for first in (0, 1)):
        return
    for name in columns:
        what = "a number" if _NUMBER.fullmatch(name) else "a date" if form_of(pl.Series([name])) != NUMBER else None
        if what is not None:
            raise no_header(path, f"{quote(name)} is {what}")


def no_header(path: Path, why: str) -> InputError:
    """Return the error about a file whose first line seems to be a row."""
    return InputError(
        f"{path}, line 1: this does not look like a header, because {why} (accepted: "
        "{table: {header: false, user: 1, item: 2}} with the columns by position; or {table: {header: true}} if this "
        "line is the header)"
    )


def _quotes(lines: Sequence[str], separator: str) -> bool:
    """True if quotation marks are quotes and not letters of a title: all that begin a field are, and one is sure."""
    fields = [[field for field in line.split(separator) if field.startswith('"')] for line in lines]
    opened = [field for line in fields for field in line]
    whole = all(_WHOLE.fullmatch(field) for field in opened)
    return whole and (bool(fields[0]) or any('""' in field[1:-1] or '\\"' in field[1:-1] for field in opened))


def _form(path: Path) -> str:
    if stem(path) is None and _binary(path):
        raise InputError(f"{path}: a file of unknown form (accepted: text, or a name that ends with {ACCEPTED})")
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending in ("parquet", "pq"):
        return "parquet"
    return "json" if ending in ("jsonl", "ndjson", "json") else "text"


def _binary(path: Path) -> bool:
    """True if a file is no text: it holds a zero byte and has no mark of UTF-16."""
    start = next(unpacked(path), b"")[:4096]
    return b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))

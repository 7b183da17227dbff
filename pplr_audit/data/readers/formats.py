"""A table of any usual form, told by the ending of its name."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pplr_audit.data.readers import delimited, json_lines, parquet
from pplr_audit.data.readers.delimited import Dialect
from pplr_audit.data.readers.tables import Kind, Table
from pplr_audit.errors import InputError

SEPARATORS = (",", "\t", ";", "|")
ACCEPTED = ".csv, .tsv, .txt, .jsonl, .ndjson or .json, each also as .gz, .parquet or .pq"
_ENDING = re.compile(r"\.(?:(?:csv|tsv|txt|jsonl|ndjson|json)(?:\.gz)?|parquet|pq)$", re.IGNORECASE)


def stem(path: Path) -> str | None:
    """The name without the ending of a table; None where it has none."""
    found = _ENDING.search(path.name)
    return None if found is None else path.name[: found.start()]


class Formats:
    """Reads delimited text, JSON lines and Parquet.

    Args:
        separator: of delimited text; None takes the commonest of comma, tab, semicolon and bar in the first line.
        encodings: of delimited text, the first that fits.
    """

    def __init__(self, separator: str | None, encodings: Sequence[str]) -> None:
        self._separator, self._encodings = separator, encodings

    def columns(self, path: Path) -> list[str]:
        """The names of the columns. Raises InputError as reading does."""
        form = _form(path)
        if form == "text":
            return delimited.columns_of(path, self._dialect(path))
        return parquet.columns_of(path) if form == "parquet" else json_lines.columns_of(path)

    def read(self, path: Path, kinds: Mapping[str, Kind]) -> Table:
        """These columns. Raises InputError for an ending that is none of a table, and as reading any file does."""
        form = _form(path)
        if form == "text":
            return self._text(path, kinds)
        return parquet.read_parquet(path, kinds) if form == "parquet" else json_lines.read_json_lines(path, kinds)

    def _text(self, path: Path, kinds: Mapping[str, Kind]) -> Table:
        dialect = self._dialect(path)
        if dialect.separator != "\t":
            return delimited.read_delimited(path, dialect, kinds)
        # Some write quotation marks into tab separated files as into CSV, some as letters like any other.
        with contextlib.suppress(InputError):
            return delimited.read_delimited(path, replace(dialect, quoted=True), kinds)
        return delimited.read_delimited(path, dialect, kinds)

    def _dialect(self, path: Path) -> Dialect:
        separator = self._separator
        if separator is None:
            line = delimited.columns_of(path, Dialect("\n", quoted=False, encodings=self._encodings))[0]
            separator = max(SEPARATORS, key=line.count)
        return Dialect(separator, quoted=separator != "\t", encodings=self._encodings)


def _form(path: Path) -> str:
    if stem(path) is None:
        raise InputError(f"{path}: a file of unknown form (accepted: a name that ends with {ACCEPTED})")
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending in ("parquet", "pq"):
        return "parquet"
    return "text" if ending in ("csv", "tsv", "txt") else "json"

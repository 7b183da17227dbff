"""A table of any usual form, told by the ending of its name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pplr_audit.data.readers import delimited, json_lines, parquet
from pplr_audit.data.readers.delimited import Dialect
from pplr_audit.data.readers.tables import Kind, Table
from pplr_audit.errors import InputError

SEPARATORS = (",", "\t", ";", "|")
ACCEPTED = ".csv, .tsv, .txt, .jsonl, .ndjson or .json, each also as .gz, .parquet or .pq"
_WHOLE = re.compile(r'"(?:[^"]|"")*"|"(?:[^"\\]|""|\\.)*"')
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
        quoted: whether fields of delimited text may stand in quotation marks; None: in CSV yes, in tab separated files
            where the first lines show that they do.
    """

    def __init__(self, separator: str | None, encodings: Sequence[str], quoted: bool | None = None) -> None:
        self._separator, self._encodings, self._quoted = separator, encodings, quoted

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
            return delimited.read_delimited(path, self._dialect(path), kinds)
        return parquet.read_parquet(path, kinds) if form == "parquet" else json_lines.read_json_lines(path, kinds)

    def _dialect(self, path: Path) -> Dialect:
        lines = delimited.first_lines(path, self._encodings)
        separator = self._separator or max(SEPARATORS, key=lines[0].count)
        quoted = self._quoted
        if quoted is None:
            quoted = (separator != "\t" and len(separator.encode()) == 1) or _quotes(lines, separator)
        return Dialect(separator, quoted=quoted, encodings=self._encodings)


def _quotes(lines: Sequence[str], separator: str) -> bool:
    """Whether quotation marks are quotes and not letters of a title: all that begin a field are, and one is sure."""
    fields = [[field for field in line.split(separator) if field.startswith('"')] for line in lines]
    opened = [field for line in fields for field in line]
    whole = all(_WHOLE.fullmatch(field) for field in opened)
    return whole and (bool(fields[0]) or any('""' in field[1:-1] or '\\"' in field[1:-1] for field in opened))


def _form(path: Path) -> str:
    if stem(path) is None:
        raise InputError(f"{path}: a file of unknown form (accepted: a name that ends with {ACCEPTED})")
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending in ("parquet", "pq"):
        return "parquet"
    return "text" if ending in ("csv", "tsv", "txt") else "json"

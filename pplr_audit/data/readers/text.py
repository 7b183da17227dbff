"""Text files read whole, cut into columns, with errors that name the line. Columns are lists: no loop over rows."""

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.errors import InputError


@dataclass(frozen=True)
class Lines:
    """A text file without its line ends; ``lines[0]`` is line 1."""

    path: Path
    lines: list[str]
    digest: bytes
    """SHA-256 over the name, the length and the bytes of the file."""

    def at(self, index: int) -> str:
        """How an error begins that is about ``lines[index]``."""
        return f"{self.path}, line {index + 1}"


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length; ``skipped`` lines (the header) stand before the first row."""

    source: Lines
    columns: Mapping[str, list[str]]
    skipped: int

    def __len__(self) -> int:
        return len(self.source.lines) - self.skipped

    def at(self, row: int) -> str:
        """How an error begins that is about this row."""
        return self.source.at(row + self.skipped)


def read_lines(path: Path, encodings: Sequence[str] = ("utf-8-sig",)) -> Lines:
    """The lines of a text file, in the first of ``encodings`` that fits; line ends are ``\\n`` or ``\\r\\n``.

    Raises InputError if the file is missing, unreadable, empty, or in none of the encodings.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not content.strip():
        raise InputError(f"{path}: the file is empty")
    name = path.name.encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(b"%b\0%d\0%b" % (name, len(content), content)).digest()
    text = _decode(path, content, encodings).replace("\r\n", "\n").removesuffix("\n")
    return Lines(path, text.split("\n"), digest)


def read_table(lines: Lines, separator: str, header: Sequence[str] | None = None) -> Table:
    """The lines as columns. The first line is the header, unless ``header`` says what the columns of every line are.

    Raises InputError for a doubled column, for a table without rows, and for the first line of another width.
    """
    names = tuple(header) if header is not None else tuple(lines.lines[0].split(separator))
    skipped = 0 if header is not None else 1
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{lines.at(0)}: the column {twice!r} is there twice (accepted: each once)")
    rows = lines.lines[skipped:]
    if not rows:
        raise InputError(f"{lines.path}: no rows after the header (accepted: at least one)")
    widths = np.fromiter(map(methodcaller("count", separator), rows), np.int64, len(rows)) + 1
    wrong = np.flatnonzero(widths != len(names))
    if len(wrong):
        row = int(wrong[0])
        found = "an empty line" if not rows[row] else f"{widths[row]} column{'s' if widths[row] > 1 else ''}"
        cut = ": the file ends in the middle of a line" if row == len(rows) - 1 and widths[row] < len(names) else ""
        raise InputError(
            f"{lines.at(row + skipped)}: {found}{cut} (accepted: {len(names)} columns "
            f"separated by {separator!r}: {listed(names)})"
        )
    flat = separator.join(rows).split(separator)
    return Table(lines, {name: flat[i :: len(names)] for i, name in enumerate(names)}, skipped)


def column(table: Table, *names: str) -> list[str]:
    """The first of these columns that the table has. Raises InputError that names the nearest one it has."""
    for name in names:
        if name in table.columns:
            return table.columns[name]
    wanted = " or ".join(repr(name) for name in names)
    near = difflib.get_close_matches(names[0], table.columns, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    found = listed(table.columns)
    raise InputError(
        f"{table.source.at(0)}: no column {wanted}{hint} (found: {found}; accepted: a header with {wanted})"
    )


def numbers(table: Table, name: str) -> Float[np.ndarray, "rows"]:
    """A column as numbers. Raises InputError for the first that is no finite number."""
    values = table.columns[name]
    try:
        parsed = np.array(values, dtype=np.float64)
    except ValueError:
        parsed = np.fromiter(map(_number, values), np.float64, len(values))
    wrong = np.flatnonzero(~np.isfinite(parsed))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{table.at(row)}: {name} is {quote(values[row])} (accepted: a finite number)")
    return parsed


def unique(table: Table, name: str) -> dict[str, int]:
    """Id to row. Raises InputError for an id that is empty or stands in two rows."""
    values = table.columns[name]
    rows = dict(zip(values, range(len(values)), strict=True))
    if "" in rows:
        raise InputError(f"{table.at(values.index(''))}: {name} is empty (accepted: an id)")
    if len(rows) < len(values):
        last = np.fromiter(map(rows.__getitem__, values), np.int64, len(values))
        row = int(np.flatnonzero(last != np.arange(len(values)))[0])
        again = values.index(values[row], row + 1)
        raise InputError(
            f"{table.at(again)}: {name} {quote(values[row])} is there already, in line {row + table.skipped + 1} "
            "(accepted: each id once)"
        )
    return rows


def codes(values: Sequence[str], known: Mapping[str, int]) -> Int[np.ndarray, "values"]:
    """The number of each id; -1 for an id that is not known."""
    try:
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))
    except KeyError:
        return np.array([known.get(value, -1) for value in values], dtype=np.int64)


def quote(value: str) -> str:
    """A value as an error shows it: on one line, and not too long."""
    return repr(value if len(value) <= 40 else value[:37] + "...")


def listed(names: Iterable[str]) -> str:
    """Names as an error shows them: on one line, and not too many."""
    shown = [name if name.isprintable() and len(name) <= 40 else quote(name) for name in names]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def fingerprint(sources: Iterable[Lines]) -> str:
    """SHA-256 in hex over the files read, in the order given."""
    return hashlib.sha256(b"".join(source.digest for source in sources)).hexdigest()


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("nan")


def _decode(path: Path, content: bytes, encodings: Sequence[str]) -> str:
    where = 0
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            where = error.start
    line = content.count(b"\n", 0, where) + 1
    accepted = " or ".join(encoding.removesuffix("-sig").upper() for encoding in encodings)
    raise InputError(f"{path}, line {line}: byte 0x{content[where]:02x} is not text (accepted: {accepted})")

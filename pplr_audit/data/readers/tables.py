"""A table as read: columns by what they are for, and errors that name the line. No loop over rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Source
from pplr_audit.data.readers import times
from pplr_audit.data.readers.ids import Ids
from pplr_audit.data.readers.wording import listed, nearest, quote
from pplr_audit.errors import InputError

Kind = Literal["text", "id", "number", "time"]
"""``id``: numbers, beside the different ids. ``number``: float32. ``time``: float64, in seconds since 1970 or without a
unit."""
NOT_TEXT = (pl.List, pl.Array, pl.Struct, pl.Binary, pl.Object)


@dataclass(frozen=True)
class Span:
    """Where the rows of one block stand in the file."""

    row: int
    line: int
    within: Int[np.ndarray, "rows"] | None = None
    """Lines from ``line`` to each row, where a row is not just a line."""


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length."""

    source: Source
    frame: pl.DataFrame
    """Text as String, ids as UInt32 (see ``ids``), numbers as Float32, times as Float64."""
    ids: Mapping[str, Ids]
    spans: Sequence[Span]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, name: str) -> bool:
        return name in self.frame.columns

    def at(self, row: int) -> str:
        """How an error begins that is about this row."""
        span = next(span for span in reversed(self.spans) if span.row <= row)
        return f"{self.source.path}, {self.unit} {_line(span, row - span.row)}"

    def texts(self, name: str) -> list[str]:
        """A text column."""
        return self.frame[name].to_list()

    def numbers(self, name: str) -> Float[np.ndarray, "rows"]:
        """A column of numbers or times."""
        return self.frame[name].to_numpy()

    def codes(self, name: str) -> Int[np.ndarray, "rows"]:
        """A column of ids: the place of each in ``ids[name].names``."""
        return self.frame[name].to_numpy()


class Gathering:
    """Puts a table together from blocks of rows, each column in the form of its kind.

    Args:
        kinds: by column name; other columns are left out.
    """

    def __init__(self, path: Path, kinds: Mapping[str, Kind], unit: str = "line") -> None:
        self.path, self.kinds, self.unit = path, kinds, unit
        self.ids = {name: Ids() for name, kind in kinds.items() if kind == "id"}
        self._frames: list[pl.DataFrame] = []
        self._spans: list[Span] = []
        self._rows = 0

    def add(self, block: pl.DataFrame, line: int, within: Int[np.ndarray, "rows"] | None = None) -> None:
        """Rows whose first one stands in ``line``. Raises InputError for a value that is not of its column's kind."""
        span = Span(self._rows, line, within)
        self._spans.append(span)
        self._rows += len(block)
        self._frames.append(pl.DataFrame({name: self._column(block[name], span) for name in self.kinds}))

    def table(self, source: Source) -> Table:
        """All that was added. Raises InputError where that is no row."""
        if not self._rows:
            raise InputError(f"{self.path}: no rows (accepted: at least one)")
        # Left in its blocks: putting millions of rows together here would hold all of them twice.
        frame = pl.concat(self._frames, rechunk=False)
        self._frames.clear()
        # The unit of a time is told by the largest of the whole column.
        units = [
            pl.Series(name, times.in_seconds(frame[name].to_numpy())) for name, k in self.kinds.items() if k == "time"
        ]
        table = Table(source, frame.with_columns(units), self.ids, self._spans, self.unit)
        for name, kind in self.kinds.items():
            for row in times.in_future(table.numbers(name)) if kind == "time" else ():
                when = np.datetime64(int(min(table.numbers(name)[row], 2**55 / 1e6)), "s")
                raise InputError(f"{table.at(row)}: {name} is {when}, in the future (accepted: {times.ACCEPTED})")
        return table

    def _column(self, values: pl.Series, span: Span) -> pl.Series:
        kind = self.kinds[values.name]
        if isinstance(values.dtype, NOT_TEXT):
            raise InputError(
                f"{self.path}: the column {values.name!r} is of type {values.dtype} (accepted: {_accepted(kind)})"
            )
        if kind == "text":
            return values.cast(pl.String).fill_null("")
        if kind == "id":
            if values.dtype.is_float() or values.dtype == pl.Boolean:
                raise InputError(
                    f"{self.path}: the column {values.name!r} is of type {values.dtype} (accepted: {_accepted(kind)})"
                )
            self._refuse(np.flatnonzero(values.is_null() | (values.cast(pl.String) == "")), values, span, "an id")
            return self.ids[values.name].code(values).alias(values.name)
        found = times.seconds(values) if kind == "time" else times.numbers(values)
        self._refuse(np.flatnonzero(np.isnan(found)), values, span, _accepted(kind))
        return pl.Series(values.name, found, dtype=pl.Float64 if kind == "time" else pl.Float32)

    def _refuse(self, wrong: Int[np.ndarray, "wrong"], values: pl.Series, span: Span, accepted: str) -> None:
        if len(wrong):
            row = int(wrong[0])
            value = values[row]
            what = "empty" if value is None or value == "" else quote(value if isinstance(value, str) else f"{value}")
            raise InputError(
                f"{self.path}, {self.unit} {_line(span, row)}: {values.name} is {what} (accepted: {accepted})"
            )


def named(columns: Iterable[str], where: str, *names: str) -> str:
    """The first of ``names`` that is a column. Raises InputError, ``where`` first, with the nearest column."""
    known = list(columns)
    for name in names:
        if name in known:
            return name
    wanted = " or ".join(repr(name) for name in names)
    raise InputError(
        f"{where}: no column {wanted}{nearest(names[0], known)} (found: {listed(known)}; accepted: a header with "
        f"{wanted})"
    )


def each_once(columns: Sequence[str], where: str) -> None:
    """Raises InputError, ``where`` first, for a column name that is there twice."""
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise InputError(f"{where}: the column {quote(twice)} is there twice (accepted: each once)")


def unique(table: Table, name: str) -> dict[str, int]:
    """Id (of a text column) to row. Raises InputError for an id that is empty or stands in two rows."""
    values = table.texts(name)
    rows = dict(zip(values, range(len(values)), strict=True))
    if "" in rows:
        raise InputError(f"{table.at(values.index(''))}: {name} is empty (accepted: an id)")
    if len(rows) < len(values):
        last = np.fromiter(map(rows.__getitem__, values), np.int64, len(values))
        row = int(np.flatnonzero(last != np.arange(len(values)))[0])
        again = values.index(values[row], row + 1)
        there = table.at(row).rpartition(" ")[2]
        raise InputError(
            f"{table.at(again)}: {name} {quote(values[row])} is there already, in {table.unit} {there} "
            "(accepted: each id once)"
        )
    return rows


def _line(span: Span, row: int) -> int:
    return span.line + (row if span.within is None else int(span.within[row]))


def _accepted(kind: Kind) -> str:
    assert kind in get_args(Kind)
    return {"text": "text", "id": "text or whole numbers", "number": "a finite number", "time": times.ACCEPTED}[kind]

"""A table as read: columns by what they are for, and errors that name the line. No loop over rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl
import polars.selectors as cs
from jaxtyping import Bool, Float, Int

from pplr_audit.data.dataset import Source
from pplr_audit.data.files import timestamps as times
from pplr_audit.data.files.ids import Ids
from pplr_audit.data.files.messages import listed, nearest, quote
from pplr_audit.errors import InputError

Kind = Literal["text", "id", "label", "number", "time"]
"""``text`` and ``id``: without the blanks around it; ids are numbers beside the different ids, and labels are ids
that may be empty. ``number``: float32.
``time``: float64, in seconds since 1970 or without a unit."""
LARGEST = float(np.finfo(np.float32).max)
ATTRIBUTE = "attribute of the user"
"""Role of a column that says something about users."""
NESTED = (pl.List, pl.Array, pl.Struct, pl.Binary, pl.Object)
NO_NUMBER = (*NESTED, pl.Boolean, pl.Duration, pl.Time)


class OtherColumns(InputError):
    """The columns of a file are not those that its reader expects: it may be a file of another data set."""


@dataclass(frozen=True)
class Span:
    """Position of a block's rows in the file."""

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
    left_out: int = 0
    """Rows that were left out for want of an id or a time."""
    columns: Sequence[str] = ()
    """All that the file has, those that were not read among them."""

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, name: str) -> bool:
        return name in self.frame.columns

    def at(self, row: int) -> str:
        """Return the beginning of an error about this row."""
        span = next(span for span in reversed(self.spans) if span.row <= row)
        return f"{self.source.path}, {self.unit} {_line(span, row - span.row)}"

    def read_as(self, roles: Mapping[str | None, str], others: str = "") -> Source:
        """The file, with what each of its columns was read as.

        Args:
            roles: column to role.
            others: the role of all other columns; none says that they were not used.
        """
        return replace(self.source, columns={name: roles.get(name, others) for name in self.columns})

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
        lenient: rows without an id or a time are left out and counted, instead of refused.
    """

    def __init__(self, path: Path, kinds: Mapping[str, Kind], unit: str = "line", *, lenient: bool = False) -> None:
        self.path, self.kinds, self.unit, self.lenient = path, kinds, unit, lenient
        self._forms: dict[str, str] = {}
        self._left_out = 0
        self.ids = {name: Ids() for name, kind in kinds.items() if kind in ("id", "label")}
        self._frames: list[pl.DataFrame] = []
        self._spans: list[Span] = []
        self._rows = 0

    def add(self, block: pl.DataFrame, line: int, within: Int[np.ndarray, "rows"] | None = None) -> None:
        """Rows whose first one stands in ``line``. Raises InputError for a value that is not of its column's kind."""
        written = [name for name, kind in self.kinds.items() if kind != "number"]
        block = block.with_columns((cs.string() & cs.by_name(written)).str.strip_chars())
        if self.lenient:
            needed = [name for name, kind in self.kinds.items() if kind in ("id", "time")]
            there = block.select(pl.all_horizontal(_there(pl.col(name)) for name in needed)).to_series()
            if not there.all():
                places = np.flatnonzero(there.to_numpy())
                within = places if within is None else within[places]
                self._left_out += len(block) - len(places)
                block = block.filter(there)
        span = Span(self._rows, line, within)
        self._spans.append(span)
        self._rows += len(block)
        self._frames.append(pl.DataFrame({name: self._column(block[name], span) for name in self.kinds}))

    def table(self, source: Source, columns: Sequence[str] | None = None) -> Table:
        """All that was added. Raises InputError where that is no row.

        Args:
            columns: all that the file has; none says that all are read.
        """
        if not self._rows:
            raise InputError(f"{self.path}: no rows (accepted: at least one)")
        # Left in its blocks: putting millions of rows together here would hold all of them twice.
        frame = pl.concat(self._frames, rechunk=False)
        self._frames.clear()
        times_ = [name for name, kind in self.kinds.items() if kind == "time"]
        all_ = tuple(self.kinds if columns is None else columns)
        table = Table(source, frame, self.ids, self._spans, self.unit, self._left_out, all_)
        for name in times_:
            self._refuse_times(
                table, name, times.other_unit(table.numbers(name)), "in another unit than the other times"
            )
        converted = [pl.Series(name, times.in_seconds(table.numbers(name))) for name in times_]
        table = replace(table, frame=frame.with_columns(converted))
        for name in times_:
            self._refuse_times(table, name, times.in_future(table.numbers(name)), "in the future")
        return table

    def _refuse_times(self, table: Table, name: str, wrong: Bool[np.ndarray, "rows"], what: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            value = float(table.numbers(name)[row])
            shown = (
                str(np.datetime64(int(value), "s"))
                if what == "in the future" and value < 2**55 / 1e6
                else f"{value:.0f}"
            )
            raise InputError(f"{table.at(row)}: {name} is {shown}, {what} (accepted: {times.ACCEPTED})")

    def _column(self, values: pl.Series, span: Span) -> pl.Series:
        kind = self.kinds[values.name]
        wrong = {"text": NESTED, "label": NESTED, "id": (*NO_NUMBER, pl.Float32, pl.Float64)}.get(kind, NO_NUMBER)
        if isinstance(values.dtype, wrong) or (kind == "number" and values.dtype in times.CLOCK):
            raise InputError(
                f"{self.path}: the column {values.name!r} is of type {values.dtype} (accepted: {_accepted(kind)})"
            )
        if kind == "text":
            return values.cast(pl.String).fill_null("")
        if kind == "label":
            return self.ids[values.name].code(values.cast(pl.String).fill_null("")).alias(values.name)
        if kind == "id":
            self._refuse(np.flatnonzero(~_there_in(values)), values, span, "an id")
            return self.ids[values.name].code(values).alias(values.name)
        if kind == "number":
            found = times.numbers(values)
            found[np.abs(found) > LARGEST] = np.nan
            self._refuse(np.flatnonzero(np.isnan(found) & ~self._may_lack(values)), values, span, _accepted(kind))
            return pl.Series(values.name, found, dtype=pl.Float32)
        form = self._forms.setdefault(values.name, times.form_of(values)) if len(values) else times.NUMBER
        if form == times.AMBIGUOUS:
            raise InputError(
                f"{self.path}, {self.unit} {_line(span, 0)}: {values.name} is {quote(str(values[0]))}, and it is "
                "unclear which part is the month, the day or the year (accepted: dates such as 2018-07-07)"
            )
        found = times.seconds(values, form)
        self._refuse(np.flatnonzero(np.isnan(found)), values, span, _accepted(kind))
        return pl.Series(values.name, found, dtype=pl.Float64)

    def _may_lack(self, values: pl.Series) -> Bool[np.ndarray, "rows"]:
        """True for each value that may be missing: a rating is not needed where the source is read leniently."""
        return ~_there_in(values) if self.lenient else np.zeros(len(values), dtype=bool)

    def _refuse(self, wrong: Int[np.ndarray, "wrong"], values: pl.Series, span: Span, accepted: str) -> None:
        if len(wrong):
            row = int(wrong[0])
            value = values[row]
            what = "empty" if value is None or value == "" else quote(value if isinstance(value, str) else f"{value}")
            raise InputError(
                f"{self.path}, {self.unit} {_line(span, row)}: {values.name} is {what} (accepted: {accepted})"
            )


def _there(column: pl.Expr) -> pl.Expr:
    return column.is_not_null() & (column.cast(pl.String) != "")


def _there_in(values: pl.Series) -> Bool[np.ndarray, "rows"]:
    found: np.ndarray = values.to_frame("value").select(_there(pl.col("value"))).to_series().to_numpy()
    return found


def named(columns: Iterable[str], where: str, *names: str) -> str:
    """The first of ``names`` that is a column. Raises OtherColumns, ``where`` first, with the nearest column."""
    known = list(columns)
    for name in names:
        if name in known:
            return name
    wanted = " or ".join(repr(name) for name in names)
    raise OtherColumns(
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
    return {
        "text": "text",
        "label": "text",
        "id": "text or whole numbers",
        "number": "a finite number",
        "time": times.ACCEPTED,
    }[kind]

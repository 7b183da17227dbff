"""The time column of a table: the finest of those that look like times, and never one that nobody asked for."""

import re
import time
from collections.abc import Collection, Mapping

import numpy as np
import polars as pl

from pplr_audit.data.files import timestamps as times
from pplr_audit.data.files.messages import listed
from pplr_audit.errors import InputError

USUAL = ("timestamp", "time", "ts", "datetime", "date", "created_at", "event_time", "unixreviewtime")
"""Names, in small letters, of a column that says when; with a unit behind it, too."""
_UNIT = re.compile(r"_?(?:ms|us|ns|s|sec|secs|seconds|millis|milliseconds|micros|nanos|unix|utc)$")
_IDENTIFIER = re.compile(r"(?:id|isbn|ean|upc|phone|zip)s?$", re.IGNORECASE)
OLDEST = 631_152_000.0
"""1990: an interaction that a machine noted is younger."""
UNITS = (times.DAY, 3600.0, 60.0, 1.0, 1e-3)


def clock(head: pl.DataFrame, taken: Collection[str | None], path: object) -> str | None:
    """The column by which a history is ordered; None where no column looks like a time.

    Among columns of usual names the finest counts. Raises InputError where only columns of other names look like times,
    or where one of them is finer than the days of the usual one.

    Args:
        head: the first rows of the table.
        taken: columns that are something else.
    """
    free = [name for name in head.columns if name not in taken]
    units = {name: unit for name in free if (unit := resolution(head[name])) is not None}
    usual = sorted((name for name in free if _place(name) is not None), key=lambda name: _place(name) or 0)
    chosen = None
    if usual:
        # A column of a usual name that holds no time is an error of the source, and said where it is read.
        chosen = usual[0] if usual[0] not in units else min(usual, key=lambda name: units.get(name, np.inf))
    coarsest = np.inf if chosen is None else units.get(chosen, 0.0)
    finer = [name for name, unit in units.items() if name not in usual and unit < coarsest]
    if finer and coarsest >= times.DAY:
        beside = "" if chosen is None else f": {chosen!r} has days only"
        raise InputError(
            f"{path}: it is unclear which column is the time{beside} (these look like times: {listed(finer)}; "
            "accepted: data.reader: {table: {timestamp: COLUMN}}, or {timestamp: false} for the order of the rows)"
        )
    return chosen


def resolution(values: pl.Series) -> float | None:
    """The largest unit, in seconds, of which all these times are multiples; None for a column that is no time.

    >>> resolution(pl.Series(["20220408", "20220407"])), resolution(pl.Series(["3", "5"]))
    (86400.0, None)
    """
    if values.dtype not in times.CLOCK and not (values.dtype == pl.String or values.dtype.is_numeric()):
        return None
    values = values.drop_nulls()
    if values.dtype == pl.String:
        values = values.str.strip_chars()
        values = values.filter(values != "")
    form = times.form_of(values)
    if form == times.AMBIGUOUS:
        return times.DAY
    found = times.seconds(values, form)
    if not len(found) or np.isnan(found).any():
        return None
    if values.dtype not in times.CLOCK and form == times.NUMBER:
        if _IDENTIFIER.search(values.name) or ((found >= 1900) & (found <= 2100)).all():
            return None
        found = times.in_seconds(found)
        if found.min() < OLDEST or found.max() > time.time() + times.DAY:
            return None
    return next((unit for unit in UNITS if np.allclose(found / unit, np.round(found / unit), rtol=0, atol=1e-4)), 1e-6)


def _place(name: str) -> int | None:
    """Return the place of a name among the usual ones, its unit aside."""
    known: Mapping[str, int] = {usual: at for at, usual in enumerate(USUAL)}
    small = name.lower()
    return known.get(small, known.get(_UNIT.sub("", small)))

"""Points in time as their publishers write them, made into seconds since 1970."""

import time
from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

FORMATS = (
    None,  # ISO 8601 in its usual forms, a date alone among them
    "%a %b %d %H:%M:%S %z %Y",
    "%m %d, %Y",
    "%B %d, %Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
)
"""Tried in this order; the first that fits the first value must fit all."""
ACCEPTED = "a number of seconds, milliseconds, microseconds or nanoseconds since 1970, or a date such as 2018-07-07"
# A number of seconds this large is past the year 5000, so it counts smaller units.
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
DAY = 86_400.0


def numbers(values: pl.Series) -> Float[np.ndarray, "rows"]:
    """Each value as a number; NaN for what is none (text, infinity, nothing)."""
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    parsed = values.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(parsed), parsed, np.nan)


def seconds(values: pl.Series) -> Float[np.ndarray, "rows"]:
    """Numbers as they are (see `in_seconds`), dates as seconds since 1970; NaN for what is neither."""
    if values.dtype in (pl.Date, pl.Datetime):
        return _epoch(values)
    parsed = numbers(values)
    if values.dtype != pl.String or not len(values) or not np.isnan(parsed).all():
        return parsed
    for form in FORMATS:
        try:
            dates = values.str.to_datetime(form, strict=False, time_unit="us", time_zone=None if form else "UTC")
        except pl.exceptions.PolarsError:
            continue
        if dates[0] is not None:
            return _epoch(dates)
    return parsed


def in_seconds(values: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Numbers of a unit that their size tells (milliseconds, microseconds, nanoseconds) as seconds."""
    largest = np.abs(values).max(initial=0.0)
    return values / next((unit for least, unit in UNITS if largest >= least), 1.0)


def in_future(values: Float[np.ndarray, "rows"]) -> Sequence[int]:
    """The first row whose time, in seconds, lies more than a day ahead of the clock; nothing where there is none."""
    return [int(row) for row in np.flatnonzero(values > time.time() + DAY)[:1]]


def _epoch(dates: pl.Series) -> Float[np.ndarray, "rows"]:
    return dates.dt.epoch("us").cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6

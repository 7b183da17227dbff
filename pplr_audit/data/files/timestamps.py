"""Points in time as their publishers write them, made into seconds since 1970. A column has one form throughout."""

import re
import time

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f%z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%a %b %d %H:%M:%S %z %Y",
    "%B %d, %Y",
    "%m %d, %Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M:%S",
    *(
        f"{day}{hour}"
        for day in ("%m/%d/%y", "%d/%m/%y", "%y/%m/%d", "%m-%d-%y", "%d-%m-%y", "%y-%m-%d", "%d.%m.%y")
        for hour in ("", " %H:%M", " %H:%M:%S")
    ),
)
"""Formats of dates, after `_plain`. The month, the day or the year first: told by the values, or refused.

``%y`` is a year of two digits: 70 to 99 are 1970 to 1999, and 00 to 69 are 2000 to 2069.
"""
FIRST_YEAR = 1000
"""The first of four digits: of ``98`` polars makes the year 98 where ``%Y`` is asked for."""
SEVERAL_NUMBERS = re.compile(r"\d\D+\d")
"""Each of the forms has several numbers with something between them."""
NUMBER, AMBIGUOUS = "number", "ambiguous"
ACCEPTED = "a number of seconds, milliseconds, microseconds or nanoseconds since 1970, or a date such as 2018-07-07"
# A number of seconds from here on is past the year 5000, so it counts smaller units.
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
DAY = 86_400.0
CLOCK = (pl.Date, pl.Datetime)


def numbers(values: pl.Series) -> Float[np.ndarray, "rows"]:
    """Each value as a number; NaN for what is none (text, infinity, nothing)."""
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    parsed = values.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(parsed), parsed, np.nan)


def form_of(values: pl.Series) -> str:
    """Return the form of a column of times: NUMBER, one of FORMATS, or AMBIGUOUS if parts could change places.

    The form is one that all values fit, or else one that the first fits, so that an error is about the first that does
    not.
    """
    if values.dtype != pl.String or not len(values) or not np.isnan(numbers(values[:1])).all():
        return NUMBER
    if not SEVERAL_NUMBERS.search(values[0] or ""):  # most columns are no times: no form need be tried
        return NUMBER
    able = [form for form in FORMATS if _dates(values[:1], form).null_count() == 0]
    fitting = [form for form in able if _dates(values, form).null_count() == 0]
    if len(fitting) > 1:
        # A year taken for a day, or the other way round, often ends up in the future.
        fitting = [form for form in fitting if not in_future(_epoch(_dates(values, form))).any()] or fitting
    if len({tuple(_epoch(_dates(values[:1000], form))) for form in fitting}) > 1:
        return AMBIGUOUS
    return next(iter(fitting or able), NUMBER)


def seconds(values: pl.Series, form: str) -> Float[np.ndarray, "rows"]:
    """Dates as seconds since 1970 (UTC unless they say a zone), numbers as they are; NaN for what is of no ``form``."""
    if values.dtype in CLOCK:
        return _epoch(values)
    return numbers(values) if form == NUMBER else _epoch(_dates(values, form))


def in_seconds(values: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Numbers of a unit that their size tells (milliseconds, microseconds, nanoseconds) as seconds.

    Whole numbers that are all years, or all days written as 20180707, are those years and days.
    """
    if len(values) and (values == np.floor(values)).all():
        whole = values.astype(np.int64) if np.abs(values).max() < 2**62 else np.zeros(1, np.int64)
        if ((whole >= 1900) & (whole <= 2100)).all():
            return (whole - 1970).astype("datetime64[Y]").astype("datetime64[s]").astype(np.float64)
        month, day = whole // 100 % 100, whole % 100
        if ((whole // 10_000 >= 1900) & (whole // 10_000 <= 2100) & (month >= 1) & (month <= 12) & (day >= 1)).all():
            months = ((whole // 10_000 - 1970) * 12 + month - 1).astype("datetime64[M]").astype("datetime64[D]")
            return (months + (day - 1)).astype("datetime64[s]").astype(np.float64)
    largest = np.abs(values).max(initial=0.0)
    return values / next((unit for least, unit in UNITS if largest >= least), 1.0)


def other_unit(values: Float[np.ndarray, "rows"]) -> Bool[np.ndarray, "rows"]:
    """True for each number that counts another unit than the largest one, by its size; 0 fits every unit."""
    bounds = sorted(least for least, _ in UNITS)
    kinds = np.digitize(np.abs(values), bounds)
    return np.asarray((kinds != kinds.max(initial=0)) & (values != 0))


def in_future(values: Float[np.ndarray, "rows"]) -> Bool[np.ndarray, "rows"]:
    """True for each time, in seconds, that lies more than a day ahead of the clock."""
    return np.asarray(values > time.time() + DAY)


def _plain(values: pl.Series) -> pl.Series:
    """Strip what says UTC, and put a blank between day and hour."""
    bare = values.str.strip_chars().str.replace(r"\s*(?:Z|UTC|GMT)$", "")
    return bare.str.replace(r"^(\d{4}-\d{2}-\d{2})T", "$1 ")


def _dates(values: pl.Series, form: str) -> pl.Series:
    plain = _plain(values)
    if "%H" not in form:
        found = plain.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    else:
        found = plain.str.to_datetime(form, strict=False, time_unit="us")
    if "%z" in form:
        found = found.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return found.set(found.dt.year() < FIRST_YEAR, None)


def _epoch(dates: pl.Series) -> Float[np.ndarray, "rows"]:
    found: np.ndarray = dates.dt.epoch("us").cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6
    return found

"""Points in time: one form a column, one unit a column, and nothing guessed where a guess could be wrong."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from pplr_audit.data.files import streams
from pplr_audit.data.files.timestamps import AMBIGUOUS, form_of, in_seconds, seconds
from pplr_audit.data.load import read
from pplr_audit.errors import InputError

ABC = "item,title\na,A\nb,B\nc,C\n"


def moments(values):
    form = form_of(pl.Series(values))
    return [datetime.fromtimestamp(each, UTC).isoformat() for each in seconds(pl.Series(values), form)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2018-07-07 22:09:11"], ["2018-07-07T22:09:11+00:00"]),
        (["2019-10-01 00:00:00 UTC"], ["2019-10-01T00:00:00+00:00"]),
        (["2017-02-09T09:33:59Z"], ["2017-02-09T09:33:59+00:00"]),
        (["2017-02-09T09:33:59.5Z"], ["2017-02-09T09:33:59.500000+00:00"]),
        (["2017-02-09T09:33:59+02:00"], ["2017-02-09T07:33:59+00:00"]),
        (["Thu Feb 09 09:33:59 -0800 2017"], ["2017-02-09T17:33:59+00:00"]),
        (["09 13, 2009"], ["2009-09-13T00:00:00+00:00"]),
        (["Jan 5, 2018", "March 6, 2018"], ["2018-01-05T00:00:00+00:00", "2018-03-06T00:00:00+00:00"]),
        (["12/31/2017", "01/02/2018"], ["2017-12-31T00:00:00+00:00", "2018-01-02T00:00:00+00:00"]),
        (["01/02/2018", "31/12/2017"], ["2018-02-01T00:00:00+00:00", "2017-12-31T00:00:00+00:00"]),
        (["05/05/2018"], ["2018-05-05T00:00:00+00:00"]),
        (["1500000000"], ["2017-07-14T02:40:00+00:00"]),
    ],
)  # fmt: skip
def test_a_form_is_told_by_all_values(values, expected):
    assert moments(values) == expected


def test_dates_whose_month_and_day_could_change_places_are_not_guessed(write):
    assert form_of(pl.Series(["01/02/2018", "03/04/2018"])) == AMBIGUOUS
    with pytest.raises(InputError, match=r"line 2: date is '01/02/2018', and it is unclear which part is the month"):
        read(str(toy(write, "date", ["01/02/2018", "03/04/2018"])), "auto")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["11/23/97", "02/28/03"], ["1997-11-23", "2003-02-28"]),
        (["11/23/99", "1/15/00"], ["1999-11-23", "2000-01-15"]),
        (["23/11/97", "28/02/00"], ["1997-11-23", "2000-02-28"]),
        (["97-11-23", "00-02-28"], ["1997-11-23", "2000-02-28"]),
        (["23.11.97", "28.02.00"], ["1997-11-23", "2000-02-28"]),
        (["11/23/97 10:20", "2/28/03 9:05"], ["1997-11-23", "2003-02-28"]),
        (["12/31/70"], ["1970-12-31"]),
        (["28/02/15", "14/03/15", "15/04/14"], ["2015-02-28", "2015-03-14", "2014-04-15"]),
    ],
)  # fmt: skip
def test_a_year_of_two_digits_is_of_1970_to_2069(values, expected):
    assert [moment[:10] for moment in moments(values)] == expected


def test_years_of_two_digits_stand_in_order_in_a_history(write):
    folder = write({"interactions.csv": "user,item,date\n1,b,3/14/00\n1,c,2/28/03\n1,a,11/23/97\n", "items.csv": ABC})
    found = read(str(folder), "auto")
    assert [found.catalogue.ids[item] for item in found.items[0]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["11/23/1997", "2/28/00"], r"line 3: date is '2/28/00' \(accepted: a number of seconds"),
        (["11/23/97", "2/28/2003"], r"line 3: date is '2/28/2003' \(accepted: a number of seconds"),
        (["0000-01-01", "1999-01-01"], r"line 2: date is '0000-01-01' \(accepted: a number of seconds"),
        (["11/23/998", "11/23/997"], r"line 2: date is '11/23/998' \(accepted: a number of seconds"),
        (["03/04/05", "05/06/07"], r"line 2: date is '03/04/05', and it is unclear which part is the month"),
        (["15/04/20"], r"line 2: date is '15/04/20', and it is unclear which part is the month, the day or the year"),
        (["12/31/68"], r"line 2: date is 2068-12-31.*, in the future"),
    ],
)
def test_a_year_that_could_be_another_is_refused_by_line(write, values, said):
    with pytest.raises(InputError, match=said):
        read(str(toy(write, "date", values)), "auto")


def toy(write, column, values):
    rows = "".join(f'1,a,"{value}"\n' for value in values)
    return write({"interactions.csv": f"user_id,item_id,{column}\n{rows}", "items.csv": "item_id,title\na,A\n"})


def test_the_form_of_the_first_rows_holds_for_all_others(write, monkeypatch):
    monkeypatch.setattr(streams, "PIECE", 40)
    days = ["12/31/2017", "12/30/2017", "01/02/2018", "01/03/2018"]
    found = read(str(toy(write, "date", days)), "auto")
    assert [datetime.fromtimestamp(each, UTC).strftime("%m/%d/%Y") for each in found.times] == sorted(
        days, key=lambda day: (day[6:], day)
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1_500_000_000, 0], [1_500_000_000, 0]),
        ([1_500_000_000_123], [1_500_000_000.123]),
        ([1_500_000_000_123_456], [1_500_000_000.123456]),
        ([1_500_000_000_123_456_000], [1_500_000_000.123456]),
        ([20180707, 20180708], [1_530_921_600, 1_531_008_000]),
        ([2018, 1970], [1_514_764_800, 0]),
        ([1, 2, 3], [1, 2, 3]),
    ],
)
def test_units_are_told_by_size(values, expected):
    assert in_seconds(np.array(values, float)).tolist() == pytest.approx(expected)


def test_two_units_in_one_column_are_refused_by_line(write):
    with pytest.raises(InputError, match=r"line 3: ts is 1600000000, in another unit than the other times"):
        read(str(toy(write, "ts", [1_500_000_000_000, 1_600_000_000])), "auto")


def test_times_out_of_order_are_put_in_order(write):
    rows = "".join(f"1,{item},{time}\n" for item, time in (("c", 30), ("a", 10), ("b", 20)))
    folder = write({"interactions.csv": f"user,item,ts\n{rows}", "items.csv": "item,title\na,A\nb,B\nc,C\n"})
    found = read(str(folder), "auto")
    assert [found.catalogue.ids[item] for item in found.items[0]] == ["a", "b", "c"]

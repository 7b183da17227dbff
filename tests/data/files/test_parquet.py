"""Parquet is bounded before it is read, and read in groups of rows."""

import io
import random

import numpy as np
import polars as pl
import pytest

from pplr_audit.data.files import parquet
from pplr_audit.data.files.parquet_footer import NoFooter, row_groups
from pplr_audit.data.load import read
from pplr_audit.errors import InputError
from tests.data.forms import FORMS, TOY

ITEMS = b"item_id,title\na,A\nb,B\n"


def packed(frame, **options):
    file = io.BytesIO()
    frame.write_parquet(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("rows", [1, 7, 100, 1001])
@pytest.mark.parametrize("size", [100, 1000])
def test_the_footer_gives_the_groups_of_rows_and_their_bytes(tmp_path, rows, size):
    numbers = np.random.default_rng(0).integers(0, 2**62, rows)
    frame = pl.DataFrame({"n": numbers, "t": [f"{number:20d}" for number in numbers], "b": [True] * rows})
    path = tmp_path / "x.parquet"
    path.write_bytes(packed(frame, row_group_size=size, compression="uncompressed", metadata={"k": "v" * 300}))
    groups = row_groups(path)
    assert [group.rows for group in groups] == [min(size, rows - start) for start in range(0, rows, size)]
    total = sum(group.size for group in groups)
    # Nothing repeats and nothing is packed: the numbers and texts themselves, and then pages' heads and the footer.
    assert 28 * rows <= total < path.stat().st_size
    path.write_bytes(packed(frame, row_group_size=size, compression="zstd"))
    assert [group.rows for group in row_groups(path)] == [group.rows for group in groups]


def test_a_damaged_footer_is_refused_or_read_and_never_breaks_down(tmp_path):
    whole = packed(pl.DataFrame({"user": ["1"] * 9, "item": ["a"] * 9, "time": [9] * 9}), row_group_size=2)
    length = int.from_bytes(whole[-8:-4], "little")
    path, rng = tmp_path / "x.parquet", random.Random(0)
    refused = 0
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content) - 8 - length, len(content) - 4)] = rng.randrange(256)
        path.write_bytes(content)
        try:
            assert all(group.rows >= 0 for group in row_groups(path))
        except NoFooter:
            refused += 1
    assert refused > 500


def test_a_file_that_says_that_it_unpacks_beyond_measure_is_not_read(monkeypatch, write):
    monkeypatch.setattr(parquet, "FREE", 1 << 20)
    monkeypatch.setattr(pl, "scan_parquet", None)
    zeros = packed(pl.DataFrame({"user": ["x" * (1 << 21)], "item": ["a"]}), compression="zstd")
    path = write({"interactions.parquet": zeros, "items.csv": ITEMS})
    with pytest.raises(InputError, match=r"interactions\.parquet: unpacks to more than 250 times its size"):
        read(str(path), "auto")


def test_rows_that_take_no_bytes_are_bounded_too(monkeypatch, write):
    monkeypatch.setattr(parquet, "FREE", 1 << 20)
    monkeypatch.setattr(pl, "scan_parquet", None)
    same = pl.DataFrame({"user": pl.repeat(1, 3_000_000, eager=True), "item": pl.repeat("a", 3_000_000, eager=True)})
    content = packed(same, compression="zstd")
    assert len(content) < 100_000
    with pytest.raises(InputError, match="unpacks to more than 250 times its size"):
        read(str(write({"interactions.parquet": content, "items.csv": ITEMS})), "auto")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
def test_a_text_that_stands_once_and_is_meant_a_thousand_times_is_counted_a_thousand_times(monkeypatch, write, kind):
    monkeypatch.setattr(parquet, "FREE", 1 << 22)
    text = "long" * 5_000
    wares = pl.DataFrame({"item_id": range(1000), "title": ["A"] * 1000}).with_columns(
        pl.Series("categories", [text] * 1000, dtype=kind)
    )
    content = packed(wares, compression="zstd")
    assert sum(group.size for group in row_groups_of(content, write)) < 1 << 20
    files = {"interactions.csv": "user_id,item_id\n1,1\n", "items.parquet": content}
    with pytest.raises(InputError, match=r"items\.parquet: unpacks to more than 250 times its size"):
        read(str(write(files)), "auto")


def test_texts_in_lists_are_counted_too():
    frame = pl.DataFrame({"n": [1, 2, 3], "t": ["é", None, "ab"], "l": [["abc", "d"], None, []]})
    assert parquet._text_bytes(frame) == 2 + 2 + 4


def row_groups_of(content, write):
    return row_groups(write({"items.parquet": content}) / "items.parquet")


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("group", [1, 3, 100])
def test_how_many_rows_are_read_at_a_time_changes_nothing(monkeypatch, write, rows, group):
    files = FORMS["table_parquet"](TOY)
    events = packed(pl.read_parquet(files["interactions.parquet"]), row_group_size=group)
    whole = read(str(write(files)), "auto")
    monkeypatch.setattr(parquet, "ROWS", rows)
    found = read(str(write({**files, "interactions.parquet": events})), "auto")
    assert found.users == whole.users
    assert found.items.values.tolist() == whole.items.values.tolist()
    assert found.times.tolist() == whole.times.tolist()
    assert found.catalogue == whole.catalogue


def test_a_wrong_value_is_named_by_its_row_in_any_group(monkeypatch, write):
    monkeypatch.setattr(parquet, "ROWS", 2)
    frame = pl.DataFrame({"user": ["x"] * 5, "item": ["a"] * 5, "timestamp": ["2020-01-01"] * 4 + ["soon"]})
    with pytest.raises(InputError, match=r"row 5: timestamp is 'soon'"):
        read(str(write({"interactions.parquet": packed(frame), "items.csv": ITEMS})), "auto")

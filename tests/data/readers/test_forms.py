"""Every form that a publisher ships, read to the same users, items and order."""

import csv
import gzip
import io
from dataclasses import replace
from itertools import pairwise
from unicodedata import normalize

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pplr_audit.data.load import detected, read
from pplr_audit.data.readers.recbole import MISSING
from pplr_audit.errors import InputError
from tests.data.forms import FORMS, START, TOY, Market

READER = {
    "ml_100k": "movielens", "ml_10m": "movielens", "ml_32m": "movielens", "amazon_2014": "amazon",
    "amazon_2018": "amazon", "amazon_2023": "amazon", "microlens_csv": "microlens", "microlens_tsv": "microlens",
    "steam": "steam", "yelp": "yelp", "goodreads": "goodreads", "recbole": "recbole", "sequences": "sequences",
    "table_csv": "table", "table_parquet": "table",
    "table_jsonl": "table",
}  # fmt: skip
ORDER_ONLY = ("microlens_tsv", "sequences")
NO_RATINGS = ("microlens_csv", "microlens_tsv", "steam", "sequences")
NO_CATEGORIES = ("microlens_csv", "microlens_tsv", "goodreads")


def histories(dataset):
    ids = dataset.catalogue.ids
    return {user: [ids[item] for item in dataset.items[row]] for row, user in enumerate(dataset.users)}


def titles(dataset):
    return dict(zip(dataset.catalogue.ids, dataset.catalogue.titles, strict=True))


def same_as(dataset, market):
    assert histories(dataset) == {user: list(items) for user, items in market.taken.items()}
    assert dataset.users == tuple(sorted(market.taken, key=int))
    known = {item for items in market.taken.values() for item in items}
    assert {item: title for item, title in titles(dataset).items() if item in known} == {
        item: title for item, title in market.titles.items() if item in known
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_detected_and_read_as_its_publisher_meant_it(write, form):
    folder = write(FORMS[form](TOY))
    assert detected(folder) == READER[form]
    dataset = read(str(folder), "auto")
    same_as(dataset, TOY)
    assert dataset.reader == READER[form]
    levels = {"Comedy|Drama"} if form not in NO_CATEGORIES else {""}
    assert set(dataset.catalogue.categories) == levels
    assert (dataset.times is None) == (form in ORDER_ONLY)
    if dataset.times is not None:
        # Within a user times rise, and they are seconds whatever the file's unit.
        times = [dataset.times[a:b] for a, b in pairwise(dataset.items.offsets)]
        assert all((np.diff(each) > 0).all() for each in times)
        assert 1.2e9 < dataset.times.min() <= dataset.times.max() < 1.6e9
        if form != "steam":
            assert dataset.times.min() == START
    assert (dataset.ratings is None) == (form in NO_RATINGS)
    if dataset.ratings is not None:
        assert dataset.ratings[0] in (2, 2.5)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "table_jsonl"])
def test_a_file_of_the_form_stands_for_its_folder(write, form):
    folder = write(FORMS[form](TOY))
    for file in folder.iterdir():
        if file.name not in ("tags.csv", "items.csv", "items.parquet"):
            assert read(str(file), READER[form]).digest == read(str(folder), "auto").digest


plain_text = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12
).map(lambda text: " ".join(text.split())).filter(bool)  # fmt: skip


@st.composite
def markets(draw):
    ids = draw(
        st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True).map(lambda found: list(map(str, found)))
    )
    users = draw(
        st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True).map(lambda found: list(map(str, found)))
    )
    taken = {user: draw(st.lists(st.sampled_from(ids), min_size=1, max_size=7)) for user in users}
    return Market({each: draw(plain_text) for each in ids}, taken)


def fits(form, title):
    """What the publisher's own form cannot hold."""
    if form == "ml_100k":
        return "|" not in title and all(ord(letter) < 256 for letter in title)
    if form == "recbole":
        return title not in MISSING and not title.startswith('"')
    return form != "ml_10m" or ("::" not in title and not title.startswith(":") and not title.endswith(":"))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(market=markets())
def test_any_market_comes_back_from_any_form(write, form, market):
    if not all(fits(form, title) for title in market.titles.values()):
        market = replace(market, titles={each: f"title {each}" for each in market.titles})
    expected = replace(market, titles={i: normalize("NFC", t) for i, t in market.titles.items()})
    same_as(read(str(write(FORMS[form](market))), READER[form]), expected)


def test_users_and_their_attributes_come_from_u_user(write):
    dataset = read(str(write(FORMS["ml_100k"](TOY))), "auto")
    assert dataset.attributes["age"] == ("21", "20", "22")
    assert dataset.attributes["occupation"] == ("student",) * 3


@pytest.mark.parametrize("missing", [b"null", b'""', b'" "', b"NaN"])
def test_reviews_of_items_without_a_title_are_left_out_and_counted(write, missing):
    files = FORMS["amazon_2023"](TOY)
    wares = files["meta_Toys.jsonl"].replace(b'"Toy Story (1995)"', missing)
    dataset = read(str(write({**files, "meta_Toys.jsonl": wares})), "auto")
    assert histories(dataset) == {"5": ["33"], "7": ["22", "33"], "9": ["22"]}
    assert dataset.notes == {"items_without_title": 1, "interactions_without_title": 3}


def test_an_item_table_of_another_data_set_is_refused(write):
    files = FORMS["amazon_2023"](TOY)
    other = FORMS["amazon_2023"](Market({"1": "A", "2": "B"}, {}))
    with pytest.raises(InputError, match=r"Toys\.jsonl, line 1: item '\d+' has no title; .* 7 of 7 .*of this data set"):
        read(str(write({**files, "meta_Toys.jsonl": other["meta_Toys.jsonl"]})), "auto")


def test_of_two_amazon_sets_in_a_folder_the_path_names_one(write):
    files = FORMS["amazon_2018"](TOY)
    folder = write(
        {**files, "Games_5.json.gz": files["Toys_5.json.gz"], "meta_Games.json.gz": files["meta_Toys.json.gz"]}
    )
    with pytest.raises(InputError, match=r"several files of reviews: Games_5\.json\.gz, Toys_5\.json\.gz"):
        read(str(folder), "auto")
    same_as(read(str(folder / "Games_5.json.gz"), "auto"), TOY)


def named(**columns):
    return {"table": columns}


def test_columns_of_a_table_are_named_where_their_names_do_not_tell(write):
    rows = [("who", "what", "at", "of"), *((u, i, t, f"{r}") for u, i, r, t in TOY.rows)]
    wares = [("nr", "label"), *TOY.titles.items()]
    folder = write({"log.txt": table(rows, ";"), "things.tsv": table(wares, "\t")})
    with pytest.raises(
        InputError, match=r"log\.txt: it is unclear which column is the user \(found: who, what, at, of; "
    ):
        read(str(folder / "log.txt"), "auto")
    reader = named(user="who", item="what", timestamp="at", items="things.tsv", title="label")
    with pytest.raises(InputError, match=r"things\.tsv, line 1: no column 'what' .*found: nr, label"):
        read(str(folder / "log.txt"), reader)
    folder = write({"things.tsv": table([("what", "label"), *TOY.titles.items()], "\t")})
    same_as(read(str(folder / "log.txt"), reader), TOY)


def test_quotation_marks_in_tab_separated_files_are_quotes_or_letters(write):
    for titles in ('"A, ""B"""\nC', '"A" B\n5" disk'):
        items = "".join(f"{n}\t{title}\n" for n, title in enumerate(titles.split("\n")))
        folder = write({"interactions.tsv": "user\titem\n1\t0\n1\t1\n", "items.tsv": f"item\ttitle\n{items}"})
        expected = ('A, "B"', "C") if "," in titles else ('"A" B', '5" disk')
        assert read(str(folder), "table").catalogue.titles == expected


def table(rows, separator):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def test_a_wrong_separator_is_hinted_at(write):
    folder = write({"interactions.csv": b"user_id,item_id\n1,2\n", "items.csv": b"item_id,title\n2,A\n"})
    with pytest.raises(InputError, match="only one column: is the separator right"):
        read(str(folder), named(separator=";"))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"user": [1.5], "item": ["a"]}, r"column 'user' is of type Float64 \(accepted: text or whole numbers\)"),
        ({"user": [["x"]], "item": ["a"]}, r"column 'user' is of type List\(String\)"),
        ({"user": ["x"], "item": [None]}, r"interactions\.parquet, row 1: item is empty"),
        (
            {"user": ["x"], "item": ["a"], "timestamp": ["soon"]},
            r"row 1: timestamp is 'soon' \(accepted: a number of seconds",
        ),
        ({"user": ["x"], "item": ["a"], "rating": [None]}, r"row 1: rating is empty \(accepted: a finite number\)"),
        ({"user": ["x"], "item": ["a"], "time": [4e9]}, r"row 1: time is 2096-.*, in the future"),
    ],
)
def test_parquet_of_the_wrong_types_is_refused_by_column_or_row(write, frame, said):
    file = io.BytesIO()
    pl.DataFrame(frame).write_parquet(file)
    with pytest.raises(InputError, match=said):
        read(str(write({"interactions.parquet": file.getvalue(), "items.csv": b"item_id,title\na,A\n"})), "auto")


@pytest.mark.parametrize("cut", [0, 3, 40, -9])
def test_a_damaged_parquet_is_refused_by_name(write, cut):
    files = FORMS["table_parquet"](TOY)
    files["interactions.parquet"] = files["interactions.parquet"][:cut]
    with pytest.raises(InputError, match=r"interactions\.parquet: (cannot be read as Parquet|the file is empty)"):
        read(str(write(files)), "auto")


def test_settings_that_a_reader_does_not_take_are_refused(write):
    folder = str(write(FORMS["table_csv"](TOY)))
    with pytest.raises(InputError, match=r"data\.reader: table: unknown setting 'usr'; did you mean 'user'\?"):
        read(folder, named(usr="x"))
    with pytest.raises(InputError, match=r"data\.reader: table: user is 0 \(accepted: text, or a position from 1\)"):
        read(folder, named(user=0))
    with pytest.raises(InputError, match=r"data\.reader: table: encoding is 'klingon'"):
        read(folder, named(encoding="klingon"))
    with pytest.raises(InputError, match=r"data\.reader: yelp: unknown setting 'user' \(accepted: none"):
        read(folder, {"yelp": {"user": "x"}})
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        read(folder, named(items="nothing.csv"))


def test_repeated_rows_of_an_item_table_count_once(write):
    files = FORMS["amazon_2018"](TOY)
    doubled = gzip.decompress(files["meta_Toys.json.gz"]) * 2
    dataset = read(str(write({**files, "meta_Toys.json.gz": doubled})), "auto")
    same_as(dataset, TOY)
    assert dataset.notes == {"item_rows_repeated": 3}

"""What the columns of any table are: by position, by name, by what they hold; or the user is asked."""

import io

import polars as pl
import pytest

from pplr_audit.data.load import read
from pplr_audit.errors import InputError

ITEMS = "item_id,title\na,Emma\nb,Ulysses\nc,Middlemarch\n"
BARE = "ann,a,4,1400000300\nbob,b,5,1400000200\nann,b,3,1400000100\n"


def histories(dataset):
    named = dataset.catalogue.titles
    return {user: [named[item] for item in dataset.items[row]] for row, user in enumerate(dataset.users)}


def roles(dataset):
    return {file.path.name: dict(file.columns) for file in dataset.sources}


BY_PLACE = {"user": 1, "item": 2, "rating": 3, "timestamp": 4}


@pytest.mark.parametrize("name", ["loans.csv", "loans.dat", "loans.data", "loans"])
def test_a_file_without_a_header_is_read_by_position(write, name):
    folder = write({name: BARE, "items.csv": ITEMS})
    found = read(str(folder / name), {"table": {**BY_PLACE, "header": ["items"]}})
    assert histories(found) == {"ann": ["Ulysses", "Emma"], "bob": ["Ulysses"]}
    assert found.ratings.tolist() == [3, 4, 5]
    assert roles(found)[name] == {"1": "user", "2": "item", "3": "rating", "4": "time"}


def test_no_file_of_the_set_has_a_header(write):
    folder = write({"loans.csv": BARE, "items.csv": "b,Ulysses\na,Emma\n", "users.csv": "ann,F\nbob,M\n"})
    found = read(str(folder), {"table": {**BY_PLACE, "header": False, "item_id": 1, "title": 2, "user_id": 1}})
    assert histories(found) == {"ann": ["Ulysses", "Emma"], "bob": ["Ulysses"]}
    assert found.attributes == {"2": ("F", "M")}


def test_positions_count_where_there_is_a_header_too(write):
    folder = write({"loans.csv": f"who,what,how,when\n{BARE}", "items.csv": ITEMS})
    assert histories(read(str(folder), {"table": BY_PLACE})) == {"ann": ["Ulysses", "Emma"], "bob": ["Ulysses"]}
    with pytest.raises(InputError, match=r"loans\.csv: user is column 5 of 4 \(accepted: 1 to 4\)"):
        read(str(folder), {"table": {**BY_PLACE, "user": 5}})


@pytest.mark.parametrize(
    ("rows", "reader", "why"),
    [
        (BARE, "auto", "'4' is a number"),
        (BARE, {"table": {"user": "ann", "item": "a"}}, "'4' is a number"),
        ("ann,a,2014-05-13\nbob,b,2014-05-14\n", "auto", "'2014-05-13' is a date"),
        ("ann\ta\t4.5\nbob\tb\t5.0\n", "auto", "'4.5' is a number"),
        ("ann,a\nbob,a\nann,b\n", {"table": {"user": "ann", "item": "a"}}, "'ann' is one of the ids"),
    ],
)
def test_a_first_row_is_not_dropped_as_a_header(write, rows, reader, why):
    name = "loans.tsv" if "\t" in rows else "loans.csv"
    folder = write({name: rows, "items.csv": ITEMS})
    with pytest.raises(
        InputError, match=rf"{name}, line 1: this does not look like a header, because {why}.*header: false"
    ):
        read(str(folder / name), reader)


def test_without_a_usual_name_the_message_says_what_to_do_without_a_header(write):
    folder = write({"loans.csv": "ann,a\nbob,b\n", "items.csv": ITEMS})
    with pytest.raises(InputError, match=r"it is unclear which column is the user .*if the first line is a row"):
        read(str(folder), "auto")


@pytest.mark.parametrize("wrong", [["loans"], [], "no", 0])
def test_a_header_of_a_table_that_there_is_not_is_refused(write, wrong):
    with pytest.raises(InputError, match=r"table: header is .* \(accepted: true, false, or a list of interactions, it"):
        read(str(write({"loans.csv": BARE})), {"table": {"header": wrong}})


def test_a_column_is_one_thing(write):
    folder = write({"loans.csv": f"who,what,how,when\n{BARE}", "items.csv": ITEMS})
    with pytest.raises(InputError, match=r"loans\.csv: the column 'who' cannot have two roles"):
        read(str(folder), {"table": {"user": "who", "item": 1}})


@pytest.mark.parametrize("role", ["user", "item", "rating", "timestamp", "title", "categories"])
def test_a_named_column_that_is_not_there_is_refused_although_another_has_a_usual_name(write, role):
    rows = "user,item,rating,time,title,genre\nann,a,4,1400000300,Emma,Novel\n"
    with pytest.raises(InputError, match=r"loans\.csv, line 1: no column 'wrong'.* \(found: user, item, "):
        read(str(write({"loans.csv": rows})), {"table": {role: "wrong"}})


@pytest.mark.parametrize("setting", ["user", "timestamp", "title", "items", "separator", "encoding"])
@pytest.mark.parametrize("value", [["who"], {"who": 1}])
def test_a_setting_that_holds_several_values_is_refused_by_name(write, setting, value):
    with pytest.raises(InputError, match=rf"data\.reader: table: {setting} is .*who.* \(accepted: text\)"):
        read(str(write({"loans.csv": BARE})), {"table": {setting: value}})


DAYS = ("2021-03-04", "2021-03-04", "2021-03-03")
MILLIS = (1614853000123, 1614850000456, 1614760000000)


def clocked(write, header, *columns):
    rows = "".join(
        f"ann,{item},{','.join(map(str, row))}\n" for item, row in zip("abc", zip(*columns, strict=True), strict=True)
    )
    return str(write({"interactions.csv": f"user_id,item_id,{header}\n{rows}", "items.csv": ITEMS}))


@pytest.mark.parametrize("header", ["date,time_ms", "date,timestamp_ms", "date,Time"])
def test_of_several_times_the_finest_counts(write, header):
    found = read(clocked(write, header, DAYS, MILLIS), "auto")
    assert histories(found) == {"ann": ["Middlemarch", "Ulysses", "Emma"]}
    assert found.times.max() == pytest.approx(1614853000.123)
    assert roles(found)["interactions.csv"]["date"] == ""


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seen", MILLIS), ("played_at", MILLIS), ("clock", MILLIS), ("seen", [m // 1000 for m in MILLIS]),
        ("played_at", DAYS), ("clock", ["3/14/21", "3/15/21", "1/2/21"]),
    ],
)  # fmt: skip
def test_a_time_of_another_name_is_asked_for(write, name, values):
    path = clocked(write, name, values)
    with pytest.raises(InputError, match=rf"it is unclear which column is the time \(these look like times: {name};"):
        read(path, "auto")
    by_name = read(path, {"table": {"timestamp": name}})
    assert by_name.times is not None
    assert histories(by_name)["ann"][0] == "Middlemarch"
    rows = read(path, {"table": {"timestamp": False}})
    assert rows.times is None
    assert histories(rows) == {"ann": ["Emma", "Ulysses", "Middlemarch"]}


def test_a_finer_time_of_another_name_beside_days_is_asked_for(write):
    path = clocked(write, "date,seen", DAYS, MILLIS)
    with pytest.raises(InputError, match=r"which column is the time: 'date' has days only \(these .*: seen;"):
        read(path, "auto")
    assert histories(read(path, {"table": {"timestamp": "seen"}}))["ann"][1] == "Ulysses"


@pytest.mark.parametrize(
    ("name", "values"), [("order_id", MILLIS), ("price", (3, 5, 4)), ("year", (1999, 2001, 2000)), ("note", "xyz")]
)
def test_numbers_that_are_no_times_are_not_asked_about(write, name, values):
    assert read(clocked(write, name, values), "auto").times is None


def test_tables_named_dat_with_tabs_and_a_header(write):
    folder = write(
        {
            "plays.dat": "userID\tbandID\tweight\n2\t51\t138\n3\t51\t1\n3\t52\t4\n",
            "bands.dat": "id\tname\turl\n51\tThe Band\tx\n52\tOther\ty\n",
        }
    )
    reader = {"table": {"user": "userID", "item": "bandID", "items": "bands.dat"}}
    for path in (folder, folder / "plays.dat"):
        found = read(str(path), reader)
        assert histories(found) == {"2": ["The Band"], "3": ["The Band", "Other"]}
    assert roles(found)["bands.dat"] == {"id": "item", "name": "title", "url": ""}


def test_two_colons_part_fields_of_a_table(write):
    folder = write({"plays.dat": "user::item::rating\nann::a::4\n", "items.dat": "item::title\na::Emma: a novel\n"})
    assert histories(read(str(folder), "auto")) == {"ann": ["Emma: a novel"]}


@pytest.mark.parametrize("setting", [{}, {"item_id": "id"}, {"item_id": 1}])
def test_the_item_table_may_call_the_id_otherwise(write, setting):
    rows = "userId,filmId,rating\n1,862,4\n1,884,5\n"
    folder = write({"interactions.csv": rows, "films.csv": "id,title,genres\n862,Emma,Drama\n884,Ulysses,Epic\n"})
    found = read(str(folder), {"table": {"item": "filmId", "items": "films.csv", **setting}})
    assert histories(found) == {"1": ["Emma", "Ulysses"]}


def test_ids_of_the_tables_are_named_where_nothing_tells_them(write):
    folder = write(
        {
            "interactions.csv": "userId,filmId\n1,862\n1,884\n2,884\n",
            "items.csv": "nr,title\n862,Emma\n884,Ulysses\n",
            "users.csv": "key,gender\n1,F\n2,M\n",
        }
    )
    with pytest.raises(InputError, match=r"items\.csv, line 1: no column 'filmId'"):
        read(str(folder), {"table": {"item": "filmId"}})
    with pytest.raises(
        InputError, match=r"users\.csv: it is unclear which column is the user .*\{table: \{user_id: COLUMN\}\}"
    ):
        read(str(folder), {"table": {"item": "filmId", "item_id": "nr"}})
    found = read(str(folder), {"table": {"item": "filmId", "item_id": "nr", "user_id": "key"}})
    assert (histories(found)["1"], found.attributes) == (["Emma", "Ulysses"], {"gender": ("F", "M")})


def test_a_file_that_is_no_text_is_of_unknown_form(write):
    folder = write({"things.xls": b"\xd0\xcf\x11\xe0\0\0\0\0", "items.csv": ITEMS})
    with pytest.raises(InputError, match=r"things\.xls: a file of unknown form \(accepted: text, or a name that ends"):
        read(str(folder / "things.xls"), "table")


ONE = "user_id,item_id,title\n1,a,Emma\n1,b,Ulysses\n"


@pytest.mark.parametrize(
    "others", [{}, {"README.txt": "a,b\n", "notes.md": "x", "config.json": "{}"}, {"x.png": b"\0"}]
)
def test_a_folder_with_one_table_and_other_files_is_read(write, others):
    assert histories(read(str(write({"loans 2021.csv": ONE, **others})), "auto")) == {"1": ["Emma", "Ulysses"]}


def test_of_two_tables_in_a_folder_it_asks_which(write):
    folder = write({"loans.csv": ONE, "more.tsv": ONE.replace(",", "\t")})
    with pytest.raises(InputError, match=r"several tables: loans\.csv, more\.tsv \(accepted: the path of the one"):
        read(str(folder), "auto")
    assert histories(read(str(folder / "more.tsv"), "auto")) == {"1": ["Emma", "Ulysses"]}


ROWS = (
    "user_id,item_id,title,gender,country,mood,shop,price\n"
    "1,a,Emma,F,NL,good,X,3\n2,a,Emma,M,NL,bad,X,3\n1,b,Ulysses,F,,bad,X,4\n2,b,Ulysses,M,NL,bad,X,4\n"
    "3,a,Emma,F,DE,bad,X,3\n"
)


@pytest.mark.parametrize("name", ["loans.csv", "loans.jsonl", "loans.parquet"])
def test_what_is_the_same_in_all_rows_of_a_user_is_an_attribute(write, name):
    frame, file = pl.read_csv(ROWS.encode()), io.BytesIO()
    (frame.write_csv if name.endswith("csv") else frame.write_ndjson if name.endswith("l") else frame.write_parquet)(
        file
    )
    found = read(str(write({name: file.getvalue()})), "auto")
    assert found.attributes == {"gender": ("F", "M", "F"), "country": ("NL", "NL", "DE")}
    assert roles(found)[name] == {
        "user_id": "user", "item_id": "item", "title": "title", "gender": "attribute of the user",
        "country": "attribute of the user", "mood": "", "shop": "", "price": "",
    }  # fmt: skip


def test_where_most_users_have_one_row_nothing_beside_it_is_an_attribute(write):
    rows = "user_id,item_id,title,mood\n1,a,Emma,x\n1,b,Ulysses,x\n2,a,Emma,y\n3,a,Emma,z\n"
    assert read(str(write({"loans.csv": rows})), "auto").attributes == {}

"""RecBole atomic files."""

import csv
import io

import numpy as np
import pytest

from pplr_audit.data.dataset import TEST, TRAIN, VALID
from pplr_audit.data.readers.recbole import RecBole
from pplr_audit.errors import InputError


def rows(dataset):
    ids = np.array(dataset.catalogue.ids)
    return {user: ids[dataset.items[row]].tolist() for row, user in enumerate(dataset.users)}


def refusal(folder):
    with pytest.raises(InputError) as caught:
        RecBole().read(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "accepted" in message or "no such file" in message or "empty" in message
    return message


def test_a_folder_becomes_users_items_and_attributes(write, recbole):
    dataset = RecBole().read(write(recbole))
    assert dataset.name == "toy"
    assert dataset.catalogue.ids == ("a", "b", "c")
    assert dataset.catalogue.titles == ("Toy Story", "GoldenEye", "Heat")
    assert dataset.catalogue.categories == ("Animation|Children's", "Action", "Action")
    assert dataset.users == ("9", "10")
    assert dataset.attributes == {"gender": ("F", "M"), "age": ("24", "53")}
    assert dataset.given is None


def test_items_come_in_time_order_and_equal_times_keep_the_order_of_the_file(write, recbole):
    assert rows(RecBole().read(write(recbole))) == {"9": ["a", "b", "c"], "10": ["b", "c", "a"]}


def test_without_timestamps_the_order_of_the_file_counts(write, recbole):
    inter = "user_id:token\titem_id:token\n1\tc\n1\ta\n1\tb\n"
    assert rows(RecBole().read(write({**recbole, "toy.inter": inter}))) == {"1": ["c", "a", "b"]}


def test_the_order_of_the_rows_says_nothing_where_times_differ(write, recbole):
    header, *lines = "u\ti\tt\n1\ta\t3\n2\tb\t9\n1\tb\t1\n2\tc\t4\n".splitlines()
    typed = "user_id:token\titem_id:token\ttimestamp:float"
    one = RecBole().read(write({**recbole, "toy.inter": "\n".join([typed, *lines]) + "\n"}))
    other = RecBole().read(write({**recbole, "toy.inter": "\n".join([typed, *lines[::-1]]) + "\n"}))
    assert rows(one) == rows(other)
    assert one.users == other.users
    assert header == "u\ti\tt"


LISTS = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
EVENTS = "user_id:token\titem_id:token\ttimestamp:float\n"


@pytest.mark.parametrize(
    "parts",
    [
        (LISTS + "1\ta\tb\n2\tc\ta\n", LISTS + "1\ta b\tc\n", LISTS + "2\tc a\tb\n1\ta b c\ta\n"),
        (EVENTS + "1\tb\t2\n1\ta\t1\n2\tc\t1\n2\ta\t5\n", EVENTS + "1\tc\t3\n", EVENTS + "2\tb\t9\n1\ta\t4\n"),
    ],
)
def test_train_valid_and_test_files_are_a_given_split(write, recbole, parts):
    named = dict(zip(("toy.train.inter", "toy.valid.inter", "toy.test.inter"), parts, strict=True))
    dataset = RecBole().read(write({name: text for name, text in {**recbole, **named}.items() if name != "toy.inter"}))
    assert dataset.name == "toy"
    assert rows(dataset) == {"1": ["a", "b", "c", "a"], "2": ["c", "a", "b"]}
    assert dataset.given.tolist() == [TRAIN, TRAIN, VALID, TEST, TRAIN, TRAIN, TEST]


def test_of_prefix_rows_the_longest_and_its_next_item_are_kept(write, recbole):
    inter = "user_id:token\titem_id_list:token_seq\titem_id:token\n1\ta\tb\n1\ta b\tc\n2\tc\ta\n1\ta b c\ta\n3\t\tb\n"
    dataset = RecBole().read(write({**recbole, "toy.inter": inter}))
    assert rows(dataset) == {"1": ["a", "b", "c", "a"], "2": ["c", "a"], "3": ["b"]}
    assert dataset.notes == {"prefix_rows": 2}


def test_any_of_the_three_files_names_the_source(write, recbole):
    folder = write(recbole)
    digests = {RecBole().read(path).digest for path in (folder, *(folder / name for name in recbole))}
    assert len(digests) == 1


def test_the_digest_changes_with_any_file(write, recbole):
    digest = RecBole().read(write(recbole)).digest
    for name in recbole:
        changed = {
            **recbole,
            name: recbole[name].replace("GoldenEye", "Goldfinger").replace("50", "51").replace("53", "5"),
        }
        assert RecBole().read(write(changed)).digest != digest, name


def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_line_end_change_nothing(write, recbole):
    plain = RecBole().read(write(recbole))
    windows = {name: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").rstrip().encode() for name, text in recbole.items()}
    other = RecBole().read(write(windows))
    assert rows(plain) == rows(other)
    assert plain.catalogue == other.catalogue
    assert plain.attributes == other.attributes


def test_a_user_without_attributes_has_empty_ones(write, recbole):
    dataset = RecBole().read(write({**recbole, "toy.user": "user_id:token\tgender:token\n10\tM\n"}))
    assert dataset.attributes == {"gender": ("", "M")}


@pytest.mark.parametrize(
    ("header", "title"),
    [("title", "T"), ("movie_title", "T"), ("book_title", "T"), ("name", "T"), ("name\ttitle", "U")],
)
def test_the_title_column_is_found(write, recbole, header, title):
    types = "\t".join(f"{name}:token_seq" for name in ("item_id", *header.split("\t")))
    row = ["T", "U"][: header.count("\t") + 1]
    item = (
        types.replace("item_id:token_seq", "item_id:token")
        + "\n"
        + "".join(f"{i}\t" + "\t".join(row) + "\n" for i in "abc")
    )
    assert RecBole().read(write({**recbole, "toy.item": item})).catalogue.titles == (title,) * 3


def test_titles_are_normal_form_and_stripped_but_otherwise_as_they_are(write, recbole):
    item = 'item_id:token\ttitle:token_seq\na\t Cafe\u0301 \nb\t"Q&amp;A" <b>x</b>  y\nc\t"Q&amp;A" <b>x</b>  y\n'
    titles = RecBole().read(write({**recbole, "toy.item": item})).catalogue.titles
    assert titles == ("Caf\u00e9", '"Q&amp;A" <b>x</b>  y', '"Q&amp;A" <b>x</b>  y')


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("toy.inter", "", "toy.inter: the file is empty"),
        ("toy.inter", INTER, "toy.inter: no rows"),
        ("toy.inter", "user_id\titem_id\n1\ta\n", "toy.inter, line 1: the column 'user_id' has no type"),
        (
            "toy.inter",
            "user:token\titem_id:token\n1\ta\n",
            "toy.inter, line 1: no column 'user_id' or 'session_id'; the nearest is 'user'",
        ),
        (
            "toy.inter",
            "user_id:token\titem:token\n1\ta\n",
            "toy.inter, line 1: no column 'item_id'; the nearest is 'item'",
        ),
        (
            "toy.inter",
            "user_id:token\tuser_id:token\n1\ta\n",
            "toy.inter, line 1: the column 'user_id:token' is there twice",
        ),
        ("toy.inter", "user_id:token\tuser_id:float\n1\ta\n", "toy.inter, line 1: the column 'user_id' is there twice"),
        ("toy.inter", INTER + "1\ta\t3\t4\n1\ta\t3\n1\tb\t3\t4\n", "toy.inter, line 3: 3 columns (accepted: 4 columns"),
        ("toy.inter", INTER + "1\ta\t3\t4\n1\ta\t3\t4\t5\n", "toy.inter, line 3: 5 columns (accepted: 4 columns"),
        (
            "toy.inter",
            INTER + "1\ta\t3\t4\n1\ta",
            "toy.inter, line 3: 2 columns: the file ends in the middle of a line",
        ),
        ("toy.inter", INTER + "1\ta\t3\t4\n\n1\ta\t3\t4\n", "toy.inter, line 3: an empty line"),
        ("toy.inter", INTER + "1\ta\t3\t4\n1\tb\t3\tnoon\n", "toy.inter, line 3: timestamp is 'noon'"),
        ("toy.inter", INTER + "1\ta\t3\tnan\n1\tb\t3\t3\n", "toy.inter, line 2: timestamp is 'nan'"),
        ("toy.inter", INTER + "1\ta\t3\t4\n1\tb\tgood\t5\n", "toy.inter, line 3: rating is 'good'"),
        (
            "toy.inter",
            INTER + "1\ta\t3\t4\n1\ty\t3\t5\n1\tz\t3\t5\n",
            "toy.inter: without a title are the items of 2 of 3 interactions (accepted: an item table of this data "
            "set; the one found has 3 items with a title)",
        ),
        ("toy.inter", INTER + "1\ta\t3\t4\n\tb\t3\t5\n", "toy.inter, line 3: user_id is empty"),
        (
            "toy.inter",
            INTER.encode() + b"1\ta\t3\t4\n1\t\xff\t3\t5\n",
            "toy.inter, line 3: byte 0xff is not text (accepted: UTF-8)",
        ),
        (
            "toy.inter",
            "user_id:token\titem_id_list:token_seq\titem_id:token\n1\ta b\tc\n1\tx q y\tc\n",
            "toy.inter: without a title are the items of 3 of 4 interactions (accepted",
        ),
        ("toy.item", "item_id:token\tgenre:token\na\tx\n", "toy.item, line 1: no column 'title'"),
        (
            "toy.item",
            "item_id:token\ttitle:token\na\tx\nb\ty\na\tz\n",
            "toy.item, line 4: item_id 'a' is there already, in line 2",
        ),
        ("toy.item", "item_id:token\ttitle:token\na\tx\n\ty\n", "toy.item, line 3: item_id is empty"),
        ("toy.item", "item_id:token\ttitle:token\na\tnan\nb\t \n", "toy.item: no item has an id and a title"),
        (
            "toy.item",
            "item_id:token\ttitle:token\na\tx\nb\ty\x07z\n",
            "toy.item, line 3: the title of item 'b' holds a control character",
        ),
        (
            "toy.user",
            "user_id:token\tage:token\n9\t1\n9\t2\n",
            "toy.user, line 3: user_id '9' is there already, in line 2",
        ),
        ("toy.user", "name:token\tage:token\n9\t1\n", "toy.user, line 1: no column 'user_id'"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(write, recbole, name, content, said):
    assert said in refusal(write({**recbole, name: content}))


def test_a_missing_item_table_is_named(write, recbole):
    assert "toy.item: no such file" in refusal(write({"toy.inter": recbole["toy.inter"]}))


def test_of_several_inter_files_one_has_to_be_named(write, recbole):
    folder = write({**recbole, "other.inter": recbole["toy.inter"]})
    assert "several .inter files: other.inter, toy.inter" in refusal(folder)
    assert RecBole().read(folder / "toy.inter").name == "toy"


NAN = ["nan", "NaN", "NULL", "None", "N/A", "<NA>"]


@pytest.mark.parametrize("missing", ["", " ", *NAN])
def test_what_recbole_reads_as_missing_is_no_title_no_category_and_no_attribute(write, recbole, missing):
    wares = f"a\tToy Story\t{missing}\nb\t{missing}\tWar\nc\tHeat\tWar\n"
    files = {
        **recbole,
        "toy.item": f"item_id:token\ttitle:token\tgenre:token_seq\n{wares}",
        "toy.user": f"user_id:token\tgender:token\n9\tF\n10\t{missing}\n",
    }
    dataset = RecBole().read(write(files))
    assert dataset.catalogue.titles == ("Toy Story", "Heat")
    assert dataset.catalogue.categories[1] == "War"
    assert dataset.notes == {"items_without_title": 1, "interactions_without_title": 2}
    assert rows(dataset) == {"9": ["a", "c"], "10": ["c", "a"]}
    if missing != " ":
        assert dataset.catalogue.categories[0] == ""
        assert dataset.attributes == {"gender": ("F", "")}


def test_a_film_called_nan_or_a_nan_within_a_title_is_a_title(write, recbole):
    item = "item_id:token\ttitle:token\na\tNan\nb\tnan bread\nc\tNone of Us\n"
    assert RecBole().read(write({**recbole, "toy.item": item})).catalogue.titles == ("Nan", "nan bread", "None of Us")


def test_interactions_with_items_that_the_table_does_not_have_are_left_out_and_counted(write, recbole):
    inter = recbole["toy.inter"] + "9\tz\t1\t70\n8\tz\t1\t70\n"
    dataset = RecBole().read(write({**recbole, "toy.inter": inter}))
    assert rows(dataset) == {"9": ["a", "b", "c"], "10": ["b", "c", "a"]}
    assert dataset.notes == {"interactions_without_title": 2}
    assert len(dataset.times) == len(dataset.ratings) == 6


def test_lists_lose_their_items_without_a_title(write, recbole):
    inter = "user_id:token\titem_id_list:token_seq\titem_id:token\n1\ta z\tb\n1\ta z b\tc\n2\tc b\tz\n"
    dataset = RecBole().read(write({**recbole, "toy.inter": inter}))
    assert rows(dataset) == {"1": ["a", "b", "c"], "2": ["c", "b"]}
    assert dataset.notes == {"prefix_rows": 1, "interactions_without_title": 2}


SESSIONS = LISTS.replace("user_id", "session_id")


def given_parts(recbole, **parts):
    rest = {name: text for name, text in recbole.items() if name == "toy.item"}
    return rest | {f"toy.{part}.inter": text for part, text in parts.items()}


def test_a_session_that_stands_in_one_part_alone_keeps_its_history(write, recbole):
    dataset = RecBole().read(
        write(
            given_parts(
                recbole,
                train=SESSIONS + "1\ta b\tc\n",
                valid=SESSIONS + "2\tb c\ta\n",
                test=SESSIONS + "3\tc a\tb\n3\tc\ta\n4\tc\tc\n",
            )
        )
    )
    assert rows(dataset) == {"1": ["a", "b", "c"], "2": ["b", "c", "a"], "3": ["c", "a", "b"], "4": ["c", "c"]}
    purposes = {user: dataset.given[a:b].tolist() for user, a, b in cut(dataset)}
    assert purposes == {
        "1": [TRAIN] * 3,
        "2": [TRAIN, TRAIN, VALID],
        "3": [TRAIN, TEST, TEST],
        "4": [TRAIN, TEST],
    }


def cut(dataset):
    return zip(dataset.users, dataset.items.offsets[:-1], dataset.items.offsets[1:], strict=True)


def test_history_that_no_part_asks_for_is_kept(write, recbole):
    parts = {"train": LISTS + "1\ta\tb\n", "test": LISTS + "1\ta b c a\tc\n1\ta\tb\n"}
    dataset = RecBole().read(write(given_parts(recbole, **parts)))
    assert rows(dataset) == {"1": ["a", "b", "c", "a", "c"]}
    assert dataset.given.tolist() == [TRAIN] * 4 + [TEST]
    assert dataset.notes == {"prefix_rows": 1}


@pytest.mark.parametrize("there", [("train", "valid", "test"), ("train", "test")])
def test_any_file_of_a_set_in_parts_names_the_set(write, recbole, there):
    texts = {"train": EVENTS + "1\ta\t1\n2\tb\t1\n", "valid": EVENTS + "1\tb\t2\n", "test": EVENTS + "2\tc\t9\n"}
    folder = write(given_parts(recbole, **{part: texts[part] for part in there}) | {"toy.user": recbole["toy.user"]})
    found = [RecBole().read(path) for path in (folder, *sorted(folder.iterdir()))]
    assert len(found) == 2 + 1 + len(there)
    assert {each.digest for each in found} == {found[0].digest}
    assert {each.name for each in found} == {"toy"}
    assert found[0].given.tolist().count(TEST) == 1


@pytest.mark.parametrize("named", ["toy.part1.inter", "toy.part2.inter", "more.inter"])
def test_what_a_refusal_of_several_accepts_is_accepted(write, recbole, named):
    files = dict.fromkeys(("toy.part1.inter", "toy.part2.inter", "more.inter"), recbole["toy.inter"])
    folder = write(files | dict.fromkeys(("toy.item", "more.item"), recbole["toy.item"]))
    assert "several .inter files: more.inter, toy.part1.inter, toy.part2.inter (accepted: the path" in refusal(folder)
    assert rows(RecBole().read(folder / named)) == {"9": ["a", "b", "c"], "10": ["b", "c", "a"]}


def test_one_part_alone_is_a_set_and_a_split_without_a_test_part_is_refused(write, recbole):
    folder = write(given_parts(recbole, test=recbole["toy.inter"]))
    for path in (folder, folder / "toy.test.inter", folder / "toy.item"):
        dataset = RecBole().read(path)
        assert (dataset.name, dataset.given) == ("toy", None)
    folder = write({"toy.valid.inter": recbole["toy.inter"]})
    for path in (folder, folder / "toy.test.inter", folder / "toy.item"):
        assert "toy.valid.inter, toy.test.inter alone are no split (accepted: a NAME.train.inter and" in refusal(path)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_quotation_marks_that_pandas_writes_are_quotes(write, recbole, quoting):
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n", quoting=quoting).writerows(
        [
            ["item_id:token", "title:token", "categories:token_seq"],
            ["a", '12" Single', """'Pop', "Women's\""""],
            ["b", '"Heroes"', "'Rock'"],
            ["c", "Plain", "et("],
        ]
    )
    dataset = RecBole().read(write({**recbole, "toy.item": text.getvalue()}))
    assert dataset.catalogue.titles == ('12" Single', '"Heroes"', "Plain")
    assert dataset.catalogue.categories == ("Pop|Women's", "Rock", "")


def test_a_quoted_title_may_hold_a_tab_or_a_line_end(write, recbole):
    item = 'item_id:token\ttitle:token\na\t"Toy\tStory"\nb\t"Golden\nEye"\nc\tHeat\n'
    with pytest.raises(InputError, match="line 2: the title of item 'a' holds a control character"):
        RecBole().read(write({**recbole, "toy.item": item}))


@pytest.mark.parametrize("title", ['"Heroes"', '12" Single', '"A" or ""B""'])
def test_quotation_marks_written_by_hand_are_letters(write, recbole, title):
    item = f"item_id:token\ttitle:token\na\t{title}\nb\tGoldenEye\nc\tHeat\n"
    assert RecBole().read(write({**recbole, "toy.item": item})).catalogue.titles[0] == title


@pytest.mark.parametrize("name", ["movie_name", "app_name", "item_name"])
def test_a_column_of_names_is_the_title_where_none_says_so(write, recbole, name):
    item = f"item_id:token\t{name}:token\na\tT\nb\tT\nc\tT\n"
    assert RecBole().read(write({**recbole, "toy.item": item})).catalogue.titles == ("T",) * 3


@pytest.mark.parametrize("header", ["time:float", "seen:float", "date:token"])
def test_times_that_are_not_called_timestamp_are_not_replaced_by_the_order_of_the_rows(write, recbole, header):
    times = ("2020-05-02", "2020-05-01") if header.startswith("date") else (1600000200, 1600000100)
    rows = "".join(f"9\t{item}\t{time}\n" for item, time in zip("ab", times, strict=True))
    name = header.partition(":")[0]
    with pytest.raises(InputError, match=rf"toy\.inter, line 1: no column 'timestamp', and times in {name} "):
        RecBole().read(write({**recbole, "toy.inter": f"user_id:token\titem_id:token\t{header}\n{rows}"}))

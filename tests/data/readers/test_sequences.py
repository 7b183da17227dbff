"""Sequences with an item table, in their three forms."""

import numpy as np
import pytest

from pplr_audit.data.dataset import TEST, TRAIN, VALID
from pplr_audit.data.readers.sequences import Sequences
from pplr_audit.errors import InputError


def rows(dataset):
    ids = np.array(dataset.catalogue.ids)
    return {user: ids[dataset.items[row]].tolist() for row, user in enumerate(dataset.users)}


def purposes(dataset):
    bounds = dataset.items.offsets
    return [dataset.given[bounds[row] : bounds[row + 1]].tolist() for row in range(len(dataset.users))]


def test_plain_lines_keep_the_order_of_the_file(write, plain):
    dataset = Sequences().read(write(plain))
    assert rows(dataset) == {"7": ["1", "2", "3"], "5": ["3", "1"]}
    assert dataset.users == ("7", "5")
    assert dataset.catalogue.categories == ("Games|PC", "Games", "")
    assert dataset.given is None


def test_genres_serve_as_categories_and_without_either_they_are_empty(write, plain):
    folder = write({**plain, "items.tsv": "title\titem_id\tgenres\nA\t1\tx|y\nB\t2\tx\nC\t3\tz\n"})
    assert Sequences().read(folder).catalogue.categories == ("x|y", "x", "z")
    folder = write({**plain, "items.tsv": "title\titem_id\nA\t1\nB\t2\nC\t3\n"})
    assert Sequences().read(folder).catalogue.categories == ("", "", "")


def test_three_parts_are_one_sequence_with_a_given_split(write, parts):
    dataset = Sequences().read(write(parts))
    assert rows(dataset) == {"1": ["1", "2", "3"], "2": ["3", "1", "2", "3"]}
    assert purposes(dataset) == [[TRAIN] * 3, [TRAIN, TRAIN, VALID, TEST]]


def test_a_user_of_one_part_only_is_a_user(write, parts):
    dataset = Sequences().read(write({**parts, "sequential_test.txt": "2 3\n9 1\n"}))
    assert rows(dataset)["9"] == ["1"]
    assert purposes(dataset)[2] == [TEST]


def test_a_complete_history_ends_with_the_validation_item_and_another_has_none(write, whole):
    dataset = Sequences().read(write(whole))
    assert rows(dataset) == {"1": ["1", "2", "3"], "2": ["3", "1", "2"]}
    assert purposes(dataset) == [[TRAIN, TRAIN, TEST], [TRAIN, VALID, TEST]]
    assert dataset.attributes == {"gender": ("M", "F")}


def test_a_folder_of_two_forms_is_refused_and_either_file_can_be_named(write, plain, whole):
    folder = write({**plain, **whole})
    with pytest.raises(InputError, match=r"several forms: sequences\.txt, sequences\.tsv \(accepted"):
        Sequences().read(folder)
    assert rows(Sequences().read(folder / "sequences.txt")).keys() == {"7", "5"}
    assert rows(Sequences().read(folder / "sequences.tsv")).keys() == {"1", "2"}


HEADER = "user_id\tcomplete\thistory\ttest_item\n"


@pytest.mark.parametrize(
    ("form", "name", "content", "said"),
    [
        ("plain", "sequences.txt", "", "sequences.txt: the file is empty"),
        ("plain", "sequences.txt", "1 1 2\n2\n", "sequences.txt, line 2: empty user '2'"),
        ("plain", "sequences.txt", "1 1 2\n\n2 1\n", "sequences.txt, line 2: an empty line"),
        ("plain", "sequences.txt", "1 1 2\n2 1 4 2\n", "sequences.txt, line 2: unknown item id '4'"),
        ("plain", "sequences.txt", "1 1 2\n1 1 3\n", "sequences.txt, line 2: user '1' is there already, in line 1"),
        ("plain", "sequences.txt", b"1 1 2\n2 \xc3\n", "sequences.txt, line 2: byte 0xc3 is not text"),
        ("plain", "items.tsv", "item_id\tname\n1\tA\n", "items.tsv, line 1: no column 'title'; the nearest is"),
        ("plain", "items.tsv", "id\ttitle\n1\tA\n", "items.tsv, line 1: no column 'item_id'"),
        ("plain", "items.tsv", "item_id\ttitle\n1\tA\n2", "items.tsv, line 3: 1 column: the file ends in the middle"),
        ("plain", "items.tsv", "item_id\ttitle\n1\tA\n1\tB\n", "items.tsv, line 3: item_id '1' is there already"),
        (
            "plain",
            "items.tsv",
            "item_id\ttitle\n1\tA\x85B\n",
            "items.tsv, line 2: the title of item '1' holds a control",
        ),
        ("parts", "sequential_valid.txt", "1\n2 9\n", "sequential_valid.txt, line 2: unknown item id '9'"),
        ("parts", "sequential_test.txt", "1\n1 2\n", "sequential_test.txt, line 2: user '1' is there already"),
        (
            "whole",
            "sequences.tsv",
            HEADER + "1\t2\t1 2\t3\n",
            "sequences.tsv, line 2: complete is '2' (accepted: 0 or 1)",
        ),
        (
            "whole",
            "sequences.tsv",
            HEADER + "1\t1\t1 2\t3\n2\t0\t1 9\t3\n",
            "sequences.tsv, line 3: unknown item id '9'",
        ),
        ("whole", "sequences.tsv", HEADER + "1\t1\t1 2\t3\n2\t0\t1\t\n", "sequences.tsv, line 3: unknown item id ''"),
        ("whole", "sequences.tsv", HEADER + "1\t1\t1 2\t3\n2\t0\t\t1\n", "sequences.tsv, line 3: empty user '2'"),
        (
            "whole",
            "sequences.tsv",
            HEADER + "1\t1\t1 2\t3\n1\t0\t1\t1\n",
            "sequences.tsv, line 3: user_id '1' is there",
        ),
        ("whole", "sequences.tsv", HEADER + "1\t1\t1 2\n", "sequences.tsv, line 2: 3 columns"),
        (
            "whole",
            "sequences.tsv",
            "user_id\thistory\ttest_item\n1\t1\t1\n",
            "sequences.tsv, line 1: no column 'complete'",
        ),
        ("whole", "users.tsv", "user_id\tgender\n2\tF\n2\tM\n", "users.tsv, line 3: user_id '2' is there already"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(write, request, form, name, content, said):
    with pytest.raises(InputError) as caught:
        Sequences().read(write({**request.getfixturevalue(form), name: content}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("form", "name"), [("plain", "items.tsv"), ("parts", "sequential_valid.txt")])
def test_a_missing_file_is_named(write, request, form, name):
    files = dict(request.getfixturevalue(form))
    del files[name]
    with pytest.raises(InputError, match=f"{name}: no such file"):
        Sequences().read(write(files))


@pytest.mark.parametrize("form", ["plain", "parts", "whole"])
def test_items_without_a_title_are_left_out_and_counted(write, request, form):
    files = dict(request.getfixturevalue(form))
    whole = Sequences().read(write(files))
    files["items.tsv"] = files["items.tsv"].replace("\tAnno\t", "\t \t")
    dataset = Sequences().read(write(files))
    assert dataset.catalogue.titles == ("X: Beyond", "Zelda")
    places = np.flatnonzero(np.array(whole.catalogue.ids)[whole.items.values] != "2")
    assert dataset.notes == {
        "items_without_title": 1,
        "interactions_without_title": len(whole.items.values) - len(places),
    }
    ids = np.array(whole.catalogue.ids)[whole.items.values][places]
    assert np.array(dataset.catalogue.ids)[dataset.items.values].tolist() == ids.tolist()
    if whole.given is not None:
        assert dataset.given.tolist() == whole.given[places].tolist()

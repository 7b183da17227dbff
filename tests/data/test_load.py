"""From the scenario's data section to a dataset."""

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data.load import load
from pplr_audit.data.readers.protocol import Reader
from pplr_audit.errors import InputError
from pplr_audit.scenario.plugins import load as plugin
from pplr_audit.scenario.plugins import names


@pytest.mark.parametrize("form", ["recbole", "movielens", "plain", "parts", "whole"])
def test_auto_finds_the_reader_for_a_folder_and_for_a_file_in_it(write, request, form):
    folder = write(request.getfixturevalue(form))
    file = sorted(folder.iterdir())[-1] if form != "whole" else folder / "sequences.tsv"
    assert load(scenario.Data(path=str(folder)), 0).digest == load(scenario.Data(path=str(file)), 0).digest


def test_the_item_table_names_its_folder_too(write, plain):
    folder = write(plain)
    assert load(scenario.Data(path=str(folder / "items.tsv")), 0).users == ("7", "5")


def test_synthetic_is_the_market(write):
    dataset = load(scenario.Data(market=scenario.Market(users=50)), 3)
    assert (dataset.name, len(dataset.users), len(dataset.catalogue)) == ("synthetic", 50, 160)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.path: .*nowhere: no such file or folder \(accepted: .*synthetic"):
        load(scenario.Data(path=str(tmp_path / "nowhere")), 0)


def test_a_folder_that_no_reader_knows_is_refused_with_what_it_holds_and_what_is_accepted(write):
    with pytest.raises(InputError) as caught:
        load(scenario.Data(path=str(write({"notes.md": "x", "a.ods": "y"}))), 0)
    message = str(caught.value)
    assert "holds a.ods, notes.md" in message
    assert all(f"{name}: " in message for name in names("readers"))
    assert "\n" not in message


def test_an_empty_folder_is_refused_as_such(tmp_path):
    with pytest.raises(InputError, match="is an empty folder"):
        load(scenario.Data(path=str(tmp_path)), 0)


def test_a_folder_that_two_readers_know_needs_a_named_reader(write, movielens, plain):
    path = str(write({**movielens, **plain}))
    with pytest.raises(InputError, match=r"data\.reader: .* fits more than one .*accepted here: movielens, sequences"):
        load(scenario.Data(path=path), 0)
    assert load(scenario.Data(path=path, reader="movielens"), 0).users == ("1", "2")
    assert load(scenario.Data(path=path, reader="sequences"), 0).users == ("7", "5")


def test_an_unknown_reader_is_refused_with_the_nearest(write, plain):
    with pytest.raises(InputError, match="did you mean 'sequences'"):
        load(scenario.Data(path=str(write(plain)), reader="sequence"), 0)


def test_some_users_are_chosen_by_the_seed_and_the_catalogue_stays_whole():
    whole = load(scenario.Data(), 0)
    some, same, other = (load(scenario.Data(users=100), seed) for seed in (0, 0, 1))
    assert len(some.users) == 100
    assert some.users == same.users != other.users
    assert some.catalogue == whole.catalogue
    assert some.notes == {"users_left_out": 500}
    assert some.best_recall is None
    for row, user in enumerate(some.users):
        old = whole.users.index(user)
        assert np.array_equal(some.items[row], whole.items[old])
        assert some.attributes["gender"][row] == whole.attributes["gender"][old]


def test_a_given_split_follows_the_users_chosen(write, parts):
    path = str(write(parts))
    for seed in range(4):
        one = load(scenario.Data(path=path, users=2), seed)
        assert len(one.given) == len(one.items.values)
    assert load(scenario.Data(path=path, users=9), 0).notes == {}


@pytest.mark.parametrize("name", names("readers"))
def test_every_installed_reader_keeps_the_protocol(name):
    assert isinstance(plugin("readers", name)(), Reader)


def test_a_folder_named_as_a_known_set_with_other_columns_says_how_to_read_it_and_reads_so(write):
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,31,4,1260759144\n1,32,5,1260759179\n",
        "movies.csv": "id,title,genres\n31,Heat,Action\n32,Emma,Drama\n",
    }
    path = str(write(files))
    with pytest.raises(InputError, match=r"no column 'movieId'.*data\.reader: \{table: \{items: FILE\}\}") as caught:
        load(scenario.Data(path=path), 0)
    assert "\n" not in str(caught.value)
    data = load(scenario.Data(path=path, reader={"table": {"items": "movies.csv"}}), 0)
    assert data.catalogue.titles == ("Heat", "Emma")


def test_a_reader_that_was_named_is_not_told_of_another(write):
    path = str(write({"ratings.csv": "who,what,rating,timestamp\n1,1,5,9\n", "movies.csv": "movieId,title\n1,A\n"}))
    with pytest.raises(InputError, match="no column 'userId'") as caught:
        load(scenario.Data(path=path, reader="movielens"), 0)
    assert "data.reader" not in str(caught.value)


def test_a_row_that_is_cut_short_is_damage_and_no_other_data_set(write, movielens):
    path = str(write({**movielens, "ratings.dat": "1::10::5::300\n2::20::3\n1::10::5::300\n"}))
    with pytest.raises(InputError, match=r"ratings\.dat, line 2: 3 columns") as caught:
        load(scenario.Data(path=path), 0)
    assert "data.reader" not in str(caught.value)

"""The readers, the split and the partition on real data; the counts are those of the data's own README."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data.load import load
from pplr_audit.data.population import populate
from pplr_audit.data.readers.movielens import MovieLens
from pplr_audit.data.split import split

DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
COUNTS = {
    "ml-100k": (943, 1_682, 100_000),
    "ml-1m": (6_040, 3_416, 994_083),
    "amazon-games": (49_156, 17_332, 342_329),
    "amazon-beauty": (22_363, 12_101, 198_502),
}


def folder(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"NOT TESTED ON REAL DATA: no {name} in {DATA}; set PPLR_AUDIT_DATA to the folder that holds it")
    return DATA / name


@pytest.fixture(scope="module", params=COUNTS)
def real(request):
    start = time.perf_counter()
    dataset = load(scenario.Data(path=str(folder(request.param))), 0)
    return request.param, dataset, time.perf_counter() - start


def test_the_counts_are_those_of_the_source_and_reading_takes_seconds(real):
    name, dataset, seconds = real
    assert (len(dataset.users), len(dataset.catalogue), len(dataset.items.values)) == COUNTS[name]
    assert all(dataset.catalogue.titles)
    assert seconds < 20


def test_leave_one_out_loses_nothing_but_short_users(real):
    _, dataset, _ = real
    parts = split(dataset, "leave_one_out")
    long = dataset.items.lengths >= 4
    assert parts.test.lengths.sum() == parts.valid.lengths.sum() == long.sum()
    assert parts.train.lengths.sum() == (dataset.items.lengths[long] - 2).sum()


def test_the_given_split_of_games_has_its_test_users():
    parts = split(load(scenario.Data(path=str(folder("amazon-games"))), 0), "given")
    assert (parts.test.lengths > 0).sum() == 8_696
    assert [part.lengths.sum() for part in (parts.train, parts.valid, parts.test)] == [299_987, 22_609, 19_733]


def test_the_given_split_of_ml_1m_has_a_validation_item_only_where_the_history_is_complete():
    parts = split(load(scenario.Data(path=str(folder("ml-1m"))), 0), "given")
    assert parts.valid.lengths.sum() == 6_040 - 5_528
    assert (parts.test.lengths == 1).all()


@pytest.mark.parametrize(("name", "audited"), [("ml-100k", 678), ("ml-1m", 800)])
def test_the_default_population_fits(name, audited):
    data = scenario.Data(path=str(folder(name)))
    dataset = load(data, 0)
    who = populate(dataset, split(dataset, "leave_one_out"), data, 0)
    assert who.audited.sum() == audited
    assert np.bincount(who.client_of).min() > len(dataset.users) / 50


def test_the_movies_and_users_of_ml_1m_are_read_as_grouplens_ships_them(tmp_path):
    source = folder("ml-1m")
    for name in ("movies.dat", "users.dat"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "ratings.dat").write_text("1::73::5::978824330\n6040::1::4::956703932\n")
    dataset = MovieLens().read(tmp_path)
    assert len(dataset.catalogue) == 3_883
    assert dataset.catalogue.titles[dataset.items[0][0]] == "Misérables, Les (1995)"
    assert dataset.attributes["gender"] == ("F", "M")

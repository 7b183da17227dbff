"""Who trains, validates and tests on what."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Catalogue, Dataset
from pplr_audit.data.ragged import group, keep, places, row_of, take
from pplr_audit.data.split import split
from pplr_audit.errors import InputError

LISTS = st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=20)


def dataset(lists, purposes=None):
    rows = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    return Dataset(
        name="toy",
        catalogue=Catalogue(*(tuple(str(item) for item in range(51)) for _ in range(3))),
        users=tuple(str(user) for user in range(len(lists))),
        items=group(rows, np.array([item for row in lists for item in row], dtype=np.int64), len(lists)),
        given=None if purposes is None else np.array([part for row in purposes for part in row], dtype=np.int64),
        attributes={},
        digest="",
    )


def rows(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(LISTS)
def test_the_last_item_tests_the_one_before_validates_and_the_rest_trains(lists):
    parts = split(dataset(lists), "leave_one_out")
    assert rows(parts.train) == [row[:-2] if len(row) >= 4 else [] for row in lists]
    assert rows(parts.valid) == [row[-2:-1] if len(row) >= 4 else [] for row in lists]
    assert rows(parts.test) == [row[-1:] if len(row) >= 4 else [] for row in lists]


@given(LISTS, st.randoms(use_true_random=False))
def test_a_given_split_is_taken_as_it_is(lists, random):
    purposes = [sorted(random.choices((TRAIN, VALID, TEST), k=len(row))) for row in lists]
    parts = split(dataset(lists, purposes), "given")
    for part, ragged in ((TRAIN, parts.train), (VALID, parts.valid), (TEST, parts.test)):
        expected = [[i for i, p in zip(*pair, strict=True) if p == part] for pair in zip(lists, purposes, strict=True)]
        assert rows(ragged) == expected


def test_leave_one_out_works_on_the_whole_sequence_of_a_given_split():
    source = dataset([[1, 2, 3, 4, 5]], [[TRAIN, TRAIN, TRAIN, TRAIN, TEST]])
    assert rows(split(source, "leave_one_out").valid) == [[4]]
    assert rows(split(source, "given").valid) == [[]]
    assert rows(split(replace(source, given=None), "leave_one_out").train) == [[1, 2, 3]]


def test_a_given_split_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"data\.split: 'given' needs a source.*toy.*accepted.*leave_one_out"):
        split(dataset([[1, 2, 3, 4]]), "given")


@given(LISTS)
def test_rows_can_be_grouped_filtered_and_taken(lists):
    items = dataset(lists).items
    assert rows(items) == lists
    assert items[-1].tolist() == lists[-1]
    assert [row.tolist() for row in items] == lists
    assert row_of(items).tolist() == [i for i, row in enumerate(lists) for _ in row]
    assert rows(keep(items, items.values % 2 == 0)) == [[item for item in row if item % 2 == 0] for row in lists]
    chosen = np.arange(len(lists))[::-2]
    taken, positions = take(items, chosen), places(items, chosen)
    assert rows(taken) == [lists[row] for row in chosen]
    assert items.values[positions].tolist() == taken.values.tolist()

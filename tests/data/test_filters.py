"""What the scenario leaves out of a source, counted."""

import numpy as np
import pytest

from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.filters import filtered
from pplr_audit.data.split import split
from pplr_audit.errors import InputError


def made(rows, times=None, ratings=None):
    flat = np.array([item for items in rows for item in items], dtype=np.int64)
    count = max(5, int(flat.max(initial=0)) + 1)
    return Dataset(
        "toy", Catalogue(tuple(f"i{n}" for n in range(count)), tuple(f"t{n}" for n in range(count)), ("",) * count),
        tuple(f"u{n}" for n in range(len(rows))), Ragged(np.cumsum([0, *map(len, rows)]), flat), None,
        {"side": tuple("LR"[n % 2] for n in range(len(rows)))}, "0",
        times=None if times is None else np.array(times, float),
        ratings=None if ratings is None else np.array(ratings, np.float32),
    )  # fmt: skip


def apply(dataset, min_rating=None, duplicates="keep", core=1):
    return filtered(dataset, min_rating=min_rating, duplicates=duplicates, core=core)


def rows(dataset):
    return [dataset.items[user].tolist() for user in range(len(dataset.users))]


def test_without_filters_nothing_changes():
    dataset = made([[1, 2, 1], [3]])
    assert apply(dataset) is dataset


def test_low_ratings_go_and_so_do_users_who_gave_no_other():
    dataset = apply(made([[1, 2, 3], [4], [2]], ratings=[5, 1, 4, 2, 4], times=range(5)), min_rating=4)
    assert rows(dataset) == [[1, 3], [2]]
    assert dataset.users == ("u0", "u2")
    assert dataset.attributes == {"side": ("L", "L")}
    assert dataset.times.tolist() == [0, 2, 4]
    assert dataset.ratings.tolist() == [5, 4, 4]
    assert dataset.notes == {"interactions_rated_lower": 2, "users_left_without": 1}


@pytest.mark.parametrize(("which", "expected"), [("first", [[1, 2, 0], [2]]), ("last", [[2, 1, 0], [2]])])
def test_of_repeated_interactions_one_stays_in_its_place(which, expected):
    dataset = apply(made([[1, 2, 1, 1, 0], [2, 2]]), duplicates=which)
    assert rows(dataset) == expected
    assert dataset.notes == {"interactions_repeated": 3}


def test_a_core_is_what_is_left_when_no_user_or_item_has_too_few():
    # Without item 3 the user of items 3 and 0 has one left, without that user item 0 has one left.
    dataset = apply(made([[1, 2, 0], [1, 2], [3, 0], [2, 1]]), core=2)
    assert rows(dataset) == [[0, 1], [0, 1], [1, 0]]
    assert dataset.catalogue.ids == ("i1", "i2")
    assert dataset.users == ("u0", "u1", "u3")
    assert dataset.notes == {"interactions_outside_core": 3, "users_left_without": 1, "items_outside_core": 3}


@pytest.mark.parametrize("core", [2, 3, 5])
def test_a_core_agrees_with_one_taken_away_by_hand(core):
    rng = np.random.default_rng(core)
    lists = [rng.integers(0, 40, rng.integers(1, 9)).tolist() for _ in range(120)]
    pairs = [(user, item) for user, items in enumerate(lists) for item in items]
    while True:
        users, items = [[pair[side] for pair in pairs] for side in (0, 1)]
        left = [(u, i) for u, i in pairs if users.count(u) >= core and items.count(i) >= core]
        if left == pairs:
            break
        pairs = left
    if not pairs:
        with pytest.raises(InputError, match=rf"data\.core: {core} leaves no interaction"):
            apply(made(lists), core=core)
        return
    dataset = apply(made(lists), core=core)
    ids = dataset.catalogue.ids
    assert [
        (int(u[1:]), int(ids[i][1:])) for u, row in zip(dataset.users, rows(dataset), strict=True) for i in row
    ] == pairs


def test_filters_that_leave_nothing_or_ask_for_what_is_not_there_are_refused():
    with pytest.raises(InputError, match=r"data\.core: 9 leaves no interaction of the 4 of toy"):
        apply(made([[1, 2], [1, 2]]), core=9)
    with pytest.raises(InputError, match=r"data\.min_rating: toy has no ratings"):
        apply(made([[1]]), min_rating=3)


def test_global_time_cuts_all_users_at_the_same_two_moments():
    parts = split(made([[0, 1, 2], [3, 4], [0, 1, 2, 3, 4]], times=[0, 1, 9, 2, 8, 3, 4, 5, 6, 7]), "global_time")
    each = [[part[user].tolist() for user in range(3)] for part in (parts.train, parts.valid, parts.test)]
    assert each == [[[0, 1], [3], [0, 1, 2, 3, 4]], [[], [4], []], [[2], [], []]]


def test_interactions_of_one_moment_are_on_one_side_of_a_cut():
    parts = split(made([[0] * 5, [1] * 5], times=[1, 1, 1, 1, 7] * 2), "global_time", valid=0.2, test=0.2)
    assert parts.train.lengths.tolist() == [4, 4]
    assert parts.test.lengths.tolist() == [1, 1]


def test_global_time_needs_times_that_differ():
    with pytest.raises(InputError, match=r"data\.split: 'global_time' needs times, and toy has none"):
        split(made([[1, 2]]), "global_time")
    with pytest.raises(InputError, match="are of one moment"):
        split(made([[1, 2, 3]], times=[5, 5, 5]), "global_time")

"""Windows of one user that are put side by side share no item, and are of that user."""

import numpy as np
import pytest

from pplr_audit.audit.victims.windows import Windows, serving_windows, training_windows
from pplr_audit.data.dataset import Ragged, Split
from pplr_audit.data.prompts import ragged
from pplr_audit.data.samples import seen_items, training_samples

ITEMS = [list(range(12)), [0, 1, 2], [5, 6, 7, 5, 8, 9, 10, 11, 5, 1], list(range(20, 27))]
"""Of four users, in time order."""


@pytest.fixture
def split() -> Split:
    """The last item but one is for validation, the last for the test."""
    return Split(*(ragged([items[part] for items in ITEMS]) for part in (slice(-2), slice(-2, -1), slice(-1, None))))


def held(windows: Windows, side: int, row: int) -> list[int]:
    samples = (windows.newer, windows.older)[side]
    return [item for item in (*samples.history[row].tolist(), int(samples.targets[row])) if item >= 0]


def test_in_training_the_latest_older_window_without_a_common_item_is_taken(split: Split) -> None:
    own = training_samples(split, np.arange(4), 3, "all")
    found = training_windows(dict.fromkeys(range(4), own))
    assert found.newer.users.tolist() == found.older.users.tolist() == [0, 2]
    assert held(found, 0, 0) == [6, 7, 8, 9]
    assert held(found, 1, 0) == [2, 3, 4, 5]
    assert found.places is not None
    for side, samples in enumerate((found.newer, found.older)):
        place = int(found.places[side][0])
        assert own.users[place] == 0
        assert own.history[place].tolist() == samples.history[0].tolist()
        assert own.targets[place] == samples.targets[0]


def test_a_window_that_holds_an_item_again_is_passed_over(split: Split) -> None:
    again = Split(ragged([[1, 2, 6, 3, 4, 1, 5]]), split.valid, split.test)
    found = training_windows({0: training_samples(again, np.array([0]), 2, "all")})
    assert [held(found, side, 0) for side in (0, 1)] == [[4, 1, 5], [2, 6, 3]]
    never = Split(ragged([[1, 2, 3, 1, 4]]), split.valid, split.test)
    assert len(training_windows({0: training_samples(never, np.array([0]), 3, "all")})) == 0


def test_with_one_sample_a_user_there_is_no_second_window(split: Split) -> None:
    assert len(training_windows(dict.fromkeys(range(4), training_samples(split, np.arange(4), 3, "last")))) == 0


def test_in_serving_the_items_before_the_last_request_are_an_earlier_one(split: Split) -> None:
    found = serving_windows(split, np.arange(4), 4)
    assert found.newer.users.tolist() == [0, 3]  # the second has no more, the third one item in both
    assert [held(found, side, 0) for side in (0, 1)] == [[7, 8, 9, 10], [3, 4, 5, 6]]
    assert [held(found, side, 1) for side in (0, 1)] == [[22, 23, 24, 25], [20, 21]]
    assert found.places is None
    assert seen_items(split, np.array([0]))[0].tolist() == list(range(11))


def test_without_users_there_are_no_windows() -> None:
    nothing = Ragged(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64))
    assert len(serving_windows(Split(nothing, nothing, nothing), np.empty(0, dtype=np.int64), 4)) == 0
    assert len(training_windows({})) == 0

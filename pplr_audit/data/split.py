"""Split of each user's items into training, validation and test."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Split
from pplr_audit.data.ragged import keep
from pplr_audit.errors import InputError

SHORTEST = 4
"""Fewest items a user needs under leave-one-out: two to train (a history and its next item), one each to hold out."""


Purpose = Callable[[Dataset], np.ndarray]
Way = Literal["leave_one_out", "global_time", "given"]


def split(dataset: Dataset, how: Way, *, valid: float = 0.1, test: float = 0.1) -> Split:
    """Each user's items by purpose, in time order; rows are the dataset's users.

    ``leave_one_out``: the last item is TEST, the one before VALID, the rest TRAIN; a user with fewer than four items
    has three empty rows. It works on the whole sequence, whatever split the source publishes.
    ``global_time``: two moments cut all interactions, so that a share ``test`` of them lies after the second and a
    share ``valid`` between the two; a user may have nothing in any of the three.
    ``given``: as the source published it; a user may have nothing in VALID or TEST.

    Raises InputError if ``given`` is asked of a source that publishes no split, or ``global_time`` of one without
    times, or whose times are too few for it.
    """
    by_time = partial(_by_time, valid=valid, test=test)
    ways: dict[str, Purpose] = {"leave_one_out": _leave_one_out, "given": _given, "global_time": by_time}
    each = ways[how](dataset)
    return Split(*(keep(dataset.items, each == part) for part in (TRAIN, VALID, TEST)))


def _leave_one_out(dataset: Dataset) -> Int[np.ndarray, "total"]:
    offsets, lengths = dataset.items.offsets, dataset.items.lengths
    purpose = np.full(len(dataset.items.values), TRAIN, dtype=np.int8)
    ends = offsets[1:][lengths >= SHORTEST]
    purpose[ends - 1], purpose[ends - 2] = TEST, VALID
    purpose[np.repeat(lengths < SHORTEST, lengths)] = -1
    return purpose


def _given(dataset: Dataset) -> Int[np.ndarray, "total"]:
    if dataset.given is None:
        raise InputError(
            f"data.split: 'given' needs a source that publishes its split, and {dataset.name} does not "
            "(accepted for this source: leave_one_out)"
        )
    return dataset.given


def _by_time(dataset: Dataset, valid: float, test: float) -> Int[np.ndarray, "total"]:
    times = dataset.times
    if times is None:
        raise InputError(
            f"data.split: 'global_time' needs times, and {dataset.name} has none "
            "(accepted for this source: leave_one_out)"
        )
    # The moments are times that occur, and what is of one moment is never on two sides of it.
    first, second = np.quantile(times, [1 - valid - test, 1 - test], method="lower")
    purpose: np.ndarray = (times > first).astype(np.int8) + (times > second)
    if not (purpose == TEST).any():
        raise InputError(
            f"data.split: the latest {test:.0%} of the interactions of {dataset.name} are of one moment "
            "(accepted for global_time: times that differ)"
        )
    return purpose

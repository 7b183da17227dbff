"""Which of a user's items train, which validate, which test."""

from typing import Literal

import numpy as np

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Split
from pplr_audit.data.ragged import keep, row_of
from pplr_audit.errors import InputError

SHORTEST = 4
"""Fewest items a user needs under leave-one-out: two to train (a history and its next item), one each to hold out."""


def split(dataset: Dataset, how: Literal["leave_one_out", "given"]) -> Split:
    """Each user's items by purpose, in time order; rows are the dataset's users.

    ``leave_one_out``: the last item is TEST, the one before VALID, the rest TRAIN; a user with fewer than four items
    has three empty rows. It works on the whole sequence, whatever split the source publishes.
    ``given``: as the source published it; a user may have nothing in VALID or TEST.

    Raises InputError if ``given`` is asked of a source that publishes no split.
    """
    items = dataset.items
    if how == "leave_one_out":
        lengths = items.lengths[row_of(items)]
        from_end = items.offsets[1:][row_of(items)] - 1 - np.arange(len(items.values))
        purpose = np.select([lengths < SHORTEST, from_end == 0, from_end == 1], [-1, TEST, VALID], default=TRAIN)
    elif dataset.given is None:
        raise InputError(
            f"data.split: 'given' needs a source that publishes its split, and {dataset.name} does not "
            "(accepted for this source: leave_one_out)"
        )
    else:
        purpose = dataset.given
    return Split(*(keep(items, purpose == part) for part in (TRAIN, VALID, TEST)))

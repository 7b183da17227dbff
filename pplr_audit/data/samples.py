"""Samples from each user's items: for training (history, target), and the prompts that a trained model serves."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import Ragged, Split
from pplr_audit.data.ragged import keep, row_of, slices, take


@dataclass(frozen=True)
class Samples:
    """Row i: user ``users[i]`` saw ``history[i]`` (oldest first) and then ``targets[i]`` (-1 where it is not known)."""

    users: Int[np.ndarray, "samples"]
    history: Ragged
    targets: Int[np.ndarray, "samples"]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Int[np.ndarray, "rows"]) -> "Samples":
        """The given rows, in the given order."""
        return Samples(self.users[rows], take(self.history, rows), self.targets[rows])


def training_samples(
    split: Split, users: Int[np.ndarray, "chosen"], history: int, how: Literal["last", "all"]
) -> Samples:
    """The training samples of ``users``: the last training item after up to ``history`` items, or every prefix.

    A user needs two training items; one with fewer gives no sample.
    """
    first = split.train.offsets[:-1][users]
    end = split.train.offsets[1:][users]
    many = end - first >= 2
    users, first, end = users[many], first[many], end[many]
    if how == "last":
        owner, at = np.arange(len(users)), end - 1
    else:
        counts = end - first - 1
        owner = np.repeat(np.arange(len(users)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = first[owner] + 1 + within
    starts = np.maximum(first[owner], at - history)
    return Samples(users[owner], slices(split.train, starts, at), split.train.values[at])


def serving_samples(split: Split, users: Int[np.ndarray, "chosen"], history: int) -> Samples:
    """Return the requests of ``users`` to a trained model: the last ``history`` items before the test, no answer."""
    known = seen_items(split, users)
    starts = np.maximum(known.offsets[:-1], known.offsets[1:] - history)
    return Samples(users, slices(known, starts, known.offsets[1:]), np.full(len(users), -1, dtype=np.int64))


def seen_items(split: Split, users: Int[np.ndarray, "chosen"]) -> Ragged:
    """All that each of ``users`` had before the test, in time order: training items, then validation items."""
    train, valid = take(split.train, users), take(split.valid, users)
    offsets = train.offsets + valid.offsets
    values = np.empty(offsets[-1], dtype=np.int64)
    values[np.arange(len(train.values)) + np.repeat(valid.offsets[:-1], train.lengths)] = train.values
    values[np.arange(len(valid.values)) + np.repeat(train.offsets[1:], valid.lengths)] = valid.values
    return Ragged(offsets, values)


def new_items(split: Split, users: Int[np.ndarray, "chosen"]) -> Ragged:
    """The test items of each of ``users`` that they did not have before."""
    own, tests = seen_items(split, users), take(split.test, users)
    span = 1 + int(max(own.values.max(initial=0), tests.values.max(initial=0)))
    return keep(tests, ~np.isin(row_of(tests) * span + tests.values, row_of(own) * span + own.values))

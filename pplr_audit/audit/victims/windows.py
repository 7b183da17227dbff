"""Two windows of each user without an item in common: what linking rows to their users is measured on.

A window that comes again, in another round or shifted by an item, would be recognized by what it holds; that says
nothing of whether a user can be. So the newest window of a user is put beside the latest older one that shares no item
with it. Which rows are windows of one user no attack is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import Split
from pplr_audit.data.prompts import ragged
from pplr_audit.data.ragged import slices
from pplr_audit.data.samples import Samples, seen_items


@dataclass(frozen=True)
class Windows:
    """Row i of both is of the same user; users without two such windows are left out."""

    newer: Samples
    older: Samples
    places: tuple[Int[np.ndarray, "users"], Int[np.ndarray, "users"]] | None = None
    """Places of the newer and the older windows in their client's training samples; None in serving."""

    def __len__(self) -> int:
        return len(self.newer)


def training_windows(samples: Mapping[int, Samples]) -> Windows:
    """Cut windows from the training samples; the target counts as part of a window.

    Args:
        samples: by user those of the client that trains on it.
    """
    newer, older = [], []
    for user, own in samples.items():
        places = np.flatnonzero(own.users == user).tolist()
        held = [_held(own, place) for place in places]
        other = next((place for place, each in zip(places[::-1], held[::-1], strict=True) if not held[-1] & each), None)
        if other is not None:
            newer.append((user, places[-1]))
            older.append((user, other))
    sides = [_chosen(samples, side) for side in (newer, older)]
    stand = [np.array([place for _, place in side], dtype=np.int64) for side in (newer, older)]
    return Windows(sides[0], sides[1], (stand[0], stand[1]))


def serving_windows(split: Split, users: Int[np.ndarray, "chosen"], history: int) -> Windows:
    """The last ``history`` items that each user is served with before the test, and those before them: two requests."""
    known = seen_items(split, users)
    first, end = known.offsets[:-1], known.offsets[1:]
    middle = np.maximum(first, end - history)
    start = np.maximum(first, middle - history)
    sides = [
        Samples(users, slices(known, *bounds), np.full(len(users), -1)) for bounds in ((middle, end), (start, middle))
    ]
    apart = [
        row
        for row in range(len(users))
        if len(sides[1].history[row]) and not set(sides[0].history[row]) & set(sides[1].history[row])
    ]
    kept = np.array(apart, dtype=np.int64)
    return Windows(sides[0].take(kept), sides[1].take(kept))


def _held(samples: Samples, place: int) -> set[int]:
    return {*samples.history[place].tolist(), int(samples.targets[place])}


def _chosen(samples: Mapping[int, Samples], side: Sequence[tuple[int, int]]) -> Samples:
    """The sample at each user's place."""
    return Samples(
        np.array([user for user, _ in side], dtype=np.int64),
        ragged([samples[user].history[place].tolist() for user, place in side]),
        np.array([samples[user].targets[place] for user, place in side], dtype=np.int64),
    )

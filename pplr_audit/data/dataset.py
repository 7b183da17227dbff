"""What every reader returns: a catalogue and each user's items in time order, as flat arrays.

Ragged lists are held the compressed-sparse-row way (one flat array and its offsets), so that a million users cost
two arrays and no Python objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class Catalogue:
    """The public list of items. Position in these tuples is the item's index everywhere else."""

    ids: tuple[str, ...]
    """The source's own item ids."""
    titles: tuple[str, ...]
    categories: tuple[str, ...]
    """One string an item, levels separated by ``|``; empty where the source has none."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Ragged:
    """Row i is ``values[offsets[i]:offsets[i + 1]]``."""

    offsets: Int[np.ndarray, "bounds"]
    """One more than there are rows."""
    values: Int[np.ndarray, "total"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: SupportsIndex) -> Int[np.ndarray, "length"]:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Dataset:
    """One source as read: nothing filtered by us, nothing split by us."""

    name: str
    catalogue: Catalogue
    users: tuple[str, ...]
    """The source's own user ids; position is the user's index everywhere else."""
    items: Ragged
    """Per user the item indices in time order."""
    given: Int[np.ndarray, "total"] | None
    """TRAIN, VALID or TEST for each of ``items.values``, where the source publishes a split; else None."""
    attributes: Mapping[str, tuple[str, ...]]
    """Attribute name to one value a user (empty string: unknown)."""
    digest: str
    """SHA-256 over the files read, in hex."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What the reader dropped or changed, and how often."""
    best_recall: Mapping[int, float] | None = None
    """k to the best possible expected Recall@k of a leave-one-out test, where it is known (the synthetic market)."""


@dataclass(frozen=True)
class Split:
    """Each user's items by purpose; rows are users, in the order of the dataset."""

    train: Ragged
    valid: Ragged
    test: Ragged


@dataclass(frozen=True)
class Population:
    """Who belongs to which client, and who was left out of training by the toss of a coin."""

    clients: tuple[str, ...]
    client_of: Int[np.ndarray, "users"]
    """Index into ``clients``; -1 for a user with too few items to take part, and for one whose coin left no client."""
    audited: Int[np.ndarray, "users"]
    """1 for the users whose membership was decided by a coin; 0 for the others, who all train."""
    member: Int[np.ndarray, "users"]
    """1 for the users who train."""

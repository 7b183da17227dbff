"""The dataset that every reader returns: a catalogue and each user's items in time order, as flat arrays.

Ragged lists are held the compressed-sparse-row way (one flat array and its offsets), so that a million users cost
two arrays and no Python objects.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Float, Int

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
class Source:
    """One file that was read."""

    path: Path
    encoding: str
    """The one that worked, as Python names it; ``parquet`` for a file of typed columns."""
    size: int
    """Bytes, unpacked."""
    digest: bytes
    """SHA-256 over the name, the length and the unpacked bytes."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Each of its columns to what that was read as; empty for one that was not used."""

    @classmethod
    def of(cls, path: Path, encoding: str, size: int, content: bytes) -> "Source":
        """Describe a file; ``content`` is the SHA-256 of the unpacked bytes."""
        name = path.name.encode("utf-8", "surrogateescape")
        return cls(path, encoding, size, hashlib.sha256(b"%b\0%d\0%b" % (name, size, content)).digest())


@dataclass(frozen=True)
class Dataset:
    """One source as read, and as the scenario filters it (``data.filters``)."""

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
    times: Float[np.ndarray, "total"] | None = None
    """Seconds since 1970 of each of ``items.values``, where the source has them."""
    ratings: Float[np.ndarray, "total"] | None = None
    """The rating of each of ``items.values``, where the source has them."""
    sources: tuple[Source, ...] = ()
    """The files that were read."""
    reader: str = ""
    """The name of the reader; empty for the synthetic market."""

    def narrowed(
        self,
        users: Int[np.ndarray, "kept"],
        items: Ragged,
        places: Int[np.ndarray, "fewer"] | Bool[np.ndarray, "total"],
        notes: Mapping[str, int],
    ) -> "Dataset":
        """Only these users with these items, which stood at ``places`` of the flat values; ``notes`` are added up."""
        given, times, ratings = (
            None if column is None else column[places] for column in (self.given, self.times, self.ratings)
        )
        return replace(
            self,
            users=tuple(self.users[user] for user in users.tolist()),
            items=items,
            given=given,
            times=times,
            ratings=ratings,
            attributes={
                name: tuple(values[user] for user in users.tolist()) for name, values in self.attributes.items()
            },
            notes={**self.notes, **{what: self.notes.get(what, 0) + count for what, count in notes.items() if count}},
            # What is best for all users is not what is best for some of them.
            best_recall=None,
        )

    notes: Mapping[str, int] = field(default_factory=dict)
    """Changes and omissions that the reader made, and how often."""
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
    """Each user's client and group: members train, non-members stay out by a coin, and the reserve never trains."""

    clients: tuple[str, ...]
    client_of: Int[np.ndarray, "users"]
    """Index into ``clients``; -1 for a user with too few items to take part, and for one whose coin left no client."""
    audited: Int[np.ndarray, "users"]
    """1 for the users whose membership is decided by a coin; the others train or are of the reserve."""
    member: Int[np.ndarray, "users"]
    """1 for the users who train."""
    reserve: Int[np.ndarray, "users"]
    """1 for the users who train in no audited training, whatever the coins say."""

    def groups(self) -> dict[str, Bool[np.ndarray, "users"]]:
        """Return the three groups of the users who take part, each as True for its users."""
        return {
            "members": self.member == 1,
            "non_members": (self.audited == 1) & (self.member == 0),
            "reserve": self.reserve == 1,
        }

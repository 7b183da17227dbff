"""Ids of users and items as numbers, block by block, so that millions of rows never stand in memory as text."""

import numpy as np
import polars as pl
from jaxtyping import Int


class Ids:
    """The different ids met, in the order met, and the number of each."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._codes)

    def code(self, values: pl.Series) -> pl.Series:
        """The number of each value (UInt32), text or whole number; ids not met before get the next numbers."""
        different = values.unique(maintain_order=True)
        numbers = [self._codes.setdefault(name, len(self._codes)) for name in different.cast(pl.String).to_list()]
        return values.replace_strict(different, pl.Series(numbers, dtype=pl.UInt32), return_dtype=pl.UInt32)


def in_order(names: tuple[str, ...]) -> Int[np.ndarray, "ids"]:
    """The places of the ids by value where all are whole numbers, else by letter.

    >>> in_order(("10", "9")).tolist()
    [1, 0]
    """
    if all(name.isascii() and name.isdigit() for name in names):
        # By value without making numbers of them: an id may have any number of digits.
        bare = [name.lstrip("0") for name in names]
        order = sorted(range(len(names)), key=lambda at: (len(bare[at]), bare[at], names[at]))
    else:
        order = sorted(range(len(names)), key=names.__getitem__)
    return np.array(order, dtype=np.int64)

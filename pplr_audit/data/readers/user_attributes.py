"""Attributes of users that stand beside their interactions: columns that are the same in all rows of a user."""

from collections.abc import Collection

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from pplr_audit.data.files.columns import NESTED, Table
from pplr_audit.data.files.time_columns import resolution

LONGEST = 64
"""Characters, on average, of an attribute: what is longer is text about something."""


def candidates(head: pl.DataFrame, user: str, taken: Collection[str | None]) -> list[str]:
    """The columns that could be attributes of users, as far as the first rows of a table tell."""
    found = []
    for name in head.columns:
        values = head[name]
        if name in taken or isinstance(values.dtype, NESTED) or resolution(values) is not None:
            continue
        said = pl.DataFrame({"user": head[user], "value": values.cast(pl.String).str.strip_chars()})
        said = said.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
        short = said["value"].str.len_chars().sum() <= LONGEST * len(said)
        if short and said.group_by("user").agg(pl.col("value").n_unique()).select(pl.col("value").max() == 1).item():
            found.append(name)
    return found


def beside(
    table: Table, user: str, item: str, names: Collection[str], users: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return one value a user (empty: none) for each column that is the same in all rows of each of ``users``.

    A column that says the same of everybody, or in all rows of an item, is none. Nor is any where most users have one
    row only: there every column is the same in all of them.

    Args:
        names: columns read as labels.
    """
    owners, wares = table.codes(user), table.codes(item)
    if 2 * (np.bincount(owners) > 1).sum() < len(table.ids[user]):
        return {}
    place = {name: at for at, name in enumerate(table.ids[user].names)}
    found = {}
    for name in names:
        values, words = table.codes(name), table.ids[name].names
        there = values != words.index("") if "" in words else np.ones(len(values), dtype=bool)
        of_user = _constant(owners, values, there)
        if of_user is None or len(np.unique(values[there])) < 2 or _of_items(wares, values, there):
            continue
        said = [int(of_user[place[each]]) for each in users]
        found[name] = tuple(words[value] if value >= 0 else "" for value in said)
    return found


def _constant(
    owners: Int[np.ndarray, "rows"], values: Int[np.ndarray, "rows"], there: Bool[np.ndarray, "rows"]
) -> Int[np.ndarray, "owners"] | None:
    """The value of each owner, -1 for one without; None where an owner has two."""
    found = np.full(int(owners.max()) + 1, -1, dtype=np.int64)
    found[owners[there]] = values[there]
    return found if (found[owners[there]] == values[there]).all() else None


def _of_items(wares: Int[np.ndarray, "rows"], values: Int[np.ndarray, "rows"], there: Bool[np.ndarray, "rows"]) -> bool:
    """True if items decide the value: some are in several rows, and say the same in all of theirs."""
    return bool((np.bincount(wares[there]) > 1).any()) and _constant(wares, values, there) is not None

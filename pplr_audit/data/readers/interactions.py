"""One interaction a row, made into each user's items in time order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import Ragged
from pplr_audit.data.ragged import group
from pplr_audit.data.readers.text import Table, codes, column, numbers, quote, unique
from pplr_audit.errors import InputError


@dataclass(frozen=True)
class Histories:
    """The users of a source and what each took."""

    users: tuple[str, ...]
    items: Ragged


def histories(table: Table, user: str, item: str, timestamp: str | None, index: Mapping[str, int]) -> Histories:
    """Rows of (user, item) as sequences: by time where there is a ``timestamp`` column, equal times in file order.

    Users come in the order of their ids (numbers by value), so that the order of the rows says nothing.
    Raises InputError for an unknown item id, an empty user id, a timestamp that is no number.
    """
    names = column(table, user)
    users = in_order(set(names))
    if "" in users:
        raise InputError(f"{table.at(names.index(''))}: {user} is empty (accepted: an id)")
    rows = codes(names, {name: number for number, name in enumerate(users)})
    values = known_items(table, item, index)
    if timestamp is not None:
        # Stable, so that equal times keep the order of the file.
        by_time = np.argsort(numbers(table, timestamp), kind="stable")
        rows, values = rows[by_time], values[by_time]
    return Histories(users, group(rows, values, len(users)))


def one_after_the_other(
    parts: Sequence[Histories], purposes: Sequence[int]
) -> tuple[Histories, Int[np.ndarray, "total"]]:
    """Each user's items of all the parts, in the order of the parts, and the purpose of the part each is from.

    Users come in the order met.
    """
    users = tuple(dict.fromkeys(chain.from_iterable(part.users for part in parts)))
    number = {name: row for row, name in enumerate(users)}
    owners = [np.repeat(codes(part.users, number), part.items.lengths) for part in parts]
    owner = np.concatenate(owners)
    purpose = np.repeat(list(purposes), [len(each) for each in owners])
    # Grouping is stable: within a user and a part the order stays.
    items = group(owner, np.concatenate([part.items.values for part in parts]), len(users))
    return Histories(users, items), group(owner, purpose, len(users)).values


def known_items(table: Table, item: str, index: Mapping[str, int]) -> Int[np.ndarray, "rows"]:
    """The item index of each row. Raises InputError for an id that the item table does not have."""
    ids = column(table, item)
    values = codes(ids, index)
    if len(values) and values.min() < 0:
        row = int(np.argmin(values))
        raise _unknown(table.at(row), ids[row], index)
    return values


def known_lists(
    lists: Sequence[Sequence[str]], index: Mapping[str, int], at: Callable[[int], str]
) -> tuple[Int[np.ndarray, "lists"], Int[np.ndarray, "total"]]:
    """The length of each list of item ids, and the item indices of all of them, one after the other.

    Raises InputError for an id that the item table does not have; ``at`` says where list i stands.
    """
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    values = codes(list(chain.from_iterable(lists)), index)
    if len(values) and values.min() < 0:
        where = int(np.argmin(values))
        row = int(np.searchsorted(np.cumsum(lengths), where, side="right"))
        raise _unknown(at(row), lists[row][where - int(lengths[:row].sum())], index)
    return lengths, values


def in_order(ids: set[str]) -> tuple[str, ...]:
    """Ids by value where all are whole numbers, else by letter."""
    if all(name.isascii() and name.isdigit() for name in ids):
        return tuple(sorted(ids, key=lambda name: (int(name), name)))
    return tuple(sorted(ids))


def attributes(table: Table, user: str, users: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Every other column of a user table, one value for each of ``users`` (empty: the table does not have the user).

    Raises InputError for a user that is there twice.
    """
    column(table, user)
    rows = unique(table, user)
    where = [rows.get(name, -1) for name in users]
    return {
        name: tuple(values[row] if row >= 0 else "" for row in where)
        for name, values in table.columns.items()
        if name != user
    }


def _unknown(place: str, name: str, index: Mapping[str, int]) -> InputError:
    return InputError(f"{place}: unknown item id {quote(name)} (accepted: the {len(index)} ids of the item table)")

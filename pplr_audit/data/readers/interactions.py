"""One interaction a row, made into each user's items in time order, without a loop over rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Catalogue, Dataset, Ragged, Source
from pplr_audit.data.files.columns import Table, unique
from pplr_audit.data.files.ids import in_order
from pplr_audit.data.files.messages import quote
from pplr_audit.data.files.streams import fingerprint
from pplr_audit.data.ragged import group, keep
from pplr_audit.errors import InputError

Unknown = Literal["refuse", "leave out", "keep"]
"""Treatment of an item that the catalogue does not have; one that is kept has the index -1."""
MOST_UNTITLED = 0.5
"""Share of interactions that may fall away for want of a title: with more, the item table is of another data set."""


@dataclass(frozen=True)
class Histories:
    """The users of a source and what each took."""

    users: tuple[str, ...]
    items: Ragged
    times: Float[np.ndarray, "total"] | None = None
    """Seconds since 1970 of each of ``items.values``, where the source has them."""
    ratings: Float[np.ndarray, "total"] | None = None


def histories(
    table: Table,
    user: str,
    item: str,
    index: Mapping[str, int],
    *,
    time: str | None = None,
    rating: str | None = None,
    unknown: Unknown = "refuse",
) -> tuple[Histories, dict[str, int]]:
    """Rows of (user, item) as sequences: by ``time`` where there is one, equal times in file order.

    Users come in the order of their ids (numbers by value), so that the order of the rows says nothing.
    ``unknown`` says what becomes of rows whose item ``index`` does not have; the second value counts those left out.
    What is kept goes later (`with_titles`).
    Raises InputError for an unknown item id that is not to be left out, and where more than half would be.
    """
    values = known_items(table, item, index, unknown)
    notes = _left_out(table, item, values, len(index)) if unknown == "leave out" else {}
    by_value = in_order(table.ids[user].names)
    place = np.empty(len(by_value), dtype=np.int32)
    place[by_value] = np.arange(len(by_value))
    rows = place[table.codes(user)]
    # Stable, so that equal times keep the order of the file.
    order = np.argsort(rows, kind="stable") if time is None else np.lexsort((table.numbers(time), rows))
    if notes:
        order = order[values[order] >= 0]
    counts = np.bincount(rows[order], minlength=len(by_value))
    names = table.ids[user].names
    taken = Histories(
        tuple(names[at] for at in by_value),
        Ragged(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), values[order].astype(np.int64)),
        None if time is None else table.numbers(time)[order],
        None if rating is None else table.numbers(rating)[order],
    )
    return _with_items(taken), notes


def dataset(
    name: str,
    items: Catalogue,
    taken: Histories,
    sources: Sequence[Source],
    *,
    given: Int[np.ndarray, "total"] | None = None,
    attributes: Mapping[str, tuple[str, ...]] | None = None,
    notes: Mapping[str, int] | None = None,
) -> Dataset:
    """Make the dataset that a reader returns from everything it found. ``notes`` of 0 are left out."""
    return Dataset(
        name=name,
        catalogue=items,
        users=taken.users,
        items=taken.items,
        given=given,
        attributes=attributes or {},
        digest=fingerprint(sources),
        times=taken.times,
        ratings=taken.ratings,
        sources=tuple(sources),
        notes={what: count for what, count in (notes or {}).items() if count},
    )


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
    order = np.argsort(owner, kind="stable")
    times, ratings = (_joined(columns, order) for columns in zip(*((p.times, p.ratings) for p in parts), strict=True))
    return Histories(users, items, times, ratings), purpose[order]


def with_titles(
    taken: Histories, given: Int[np.ndarray, "total"] | None, known: int, where: str
) -> tuple[Histories, Int[np.ndarray, "total"] | None, dict[str, int]]:
    """Drop the items whose index is not one of the ``known``, and the users who are left with nothing.

    ``given`` is narrowed alike; the third value counts the interactions left out. Raises InputError, ``where`` first,
    if they were more than half of all.
    """
    there = (taken.items.values >= 0) & (taken.items.values < known)
    gone = int((~there).sum())
    if not gone:
        return taken, given, {}
    if gone > MOST_UNTITLED * len(there):
        raise InputError(f"{where}: without a title are {_of_another_set(gone, len(there), known)}")
    times, ratings, given = (None if each is None else each[there] for each in (taken.times, taken.ratings, given))
    left = Histories(taken.users, keep(taken.items, there), times, ratings)
    return _with_items(left), given, {"interactions_without_title": gone}


def _joined(
    columns: Sequence[Float[np.ndarray, "rows"] | None], order: Int[np.ndarray, "total"]
) -> Float[np.ndarray, "total"] | None:
    there = [column for column in columns if column is not None]
    joined: np.ndarray | None = np.concatenate(there)[order] if len(there) == len(columns) else None
    return joined


def known_items(
    table: Table, item: str, index: Mapping[str, int], unknown: Unknown = "refuse"
) -> Int[np.ndarray, "rows"]:
    """The item index of each row, -1 for an id that is not refused. Raises InputError for one that is."""
    names = table.ids[item].names
    places = codes(names, index).astype(np.int32)
    if unknown == "refuse" and len(places) and places.min() < 0:
        # Ids are numbered in the order met: the first unknown one is the one that is met first.
        at = int(np.flatnonzero(places < 0)[0])
        raise _unknown(table.at(int(np.argmax(table.codes(item) == at))), names[at], index)
    found: np.ndarray = places[table.codes(item)]
    return found


def known_lists(
    lists: Sequence[Sequence[str]],
    index: Mapping[str, int],
    at: Callable[[int], str],
    unknown: Unknown = "refuse",
) -> tuple[Int[np.ndarray, "lists"], Int[np.ndarray, "total"]]:
    """The length of each list of item ids, and the item indices of all of them, one after the other.

    An id that ``index`` does not have is -1, or refused: InputError, where ``at`` says where list i stands.
    """
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    values = codes(list(chain.from_iterable(lists)), index)
    if unknown == "refuse" and len(values) and values.min() < 0:
        where = int(np.argmin(values))
        row = int(np.searchsorted(np.cumsum(lengths), where, side="right"))
        raise _unknown(at(row), lists[row][where - int(lengths[:row].sum())], index)
    return lengths, values


def codes(values: Sequence[str], known: Mapping[str, int]) -> Int[np.ndarray, "values"]:
    """The number of each id; -1 for an id that is not known."""
    return np.fromiter((known.get(value, -1) for value in values), np.int64, len(values))


def attributes(table: Table, user: str, users: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Every other column of a user table, one value for each of ``users`` (empty: the table does not have the user).

    Raises InputError for a user that is there twice, and where the table has none of ``users``.
    """
    rows = unique(table, user)
    where = codes(users, rows).tolist()
    if users and max(where) < 0:
        raise InputError(
            f"{table.at(0)}: {user} is {quote(next(iter(rows)))}, and none of the {len(rows)} users of this table has "
            f"an interaction; a user of the interactions is {quote(users[0])} (accepted: a table of these users)"
        )
    found = {}
    for name in table.frame.columns:
        if name != user:
            values = table.texts(name)
            found[name] = tuple(values[row] if row >= 0 else "" for row in where)
    return found


def _with_items(taken: Histories) -> Histories:
    """Drop the users who are left with nothing."""
    lengths = taken.items.lengths
    if lengths.all():
        return taken
    some = np.flatnonzero(lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths[some]))).astype(np.int64)
    return replace(taken, users=tuple(taken.users[at] for at in some), items=Ragged(offsets, taken.items.values))


def _left_out(table: Table, item: str, values: Int[np.ndarray, "rows"], known: int) -> dict[str, int]:
    gone = int((values < 0).sum())
    if not gone:
        return {}
    first = int(np.argmin(values))
    name = table.ids[item].names[int(table.codes(item)[first])]
    if gone > MOST_UNTITLED * len(values):
        raise InputError(
            f"{table.at(first)}: item {quote(name)} has no title; without a title are "
            f"{_of_another_set(gone, len(values), known)}"
        )
    return {"interactions_without_title": gone}


def _of_another_set(gone: int, total: int, known: int) -> str:
    return (
        f"the items of {gone} of {total} interactions (accepted: an item table of this data set; the one found has "
        f"{known} items with a title)"
    )


def _unknown(place: str, name: str, index: Mapping[str, int]) -> InputError:
    return InputError(f"{place}: unknown item id {quote(name)} (accepted: the {len(index)} ids of the item table)")

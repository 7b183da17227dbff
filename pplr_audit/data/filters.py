"""Filters on a source: good enough ratings, each item once a user, a k-core. Counted, so that nobody is misled."""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.ragged import keep, row_of
from pplr_audit.errors import InputError

Duplicates = Literal["keep", "first", "last"]


def filtered(dataset: Dataset, *, min_rating: float | None, duplicates: Duplicates, core: int) -> Dataset:
    """The dataset after the filters, in this order; ``notes`` counts what each took away.

    1. ``min_rating``: interactions rated lower go.
    2. ``duplicates``: of a user's interactions with one item only the ``first`` or the ``last`` stays.
    3. ``core``: users and items with fewer than that many interactions go, again and again until none is left; the
       catalogue is what stays.

    Raises InputError for a threshold on ratings that the source does not have, and if no interaction is left.
    """
    if min_rating is not None:
        if dataset.ratings is None:
            raise InputError(f"data.min_rating: {dataset.name} has no ratings (accepted here: none)")
        wanted = dataset.ratings >= min_rating
        dataset = _kept(dataset, wanted, "interactions_rated_lower", f"data.min_rating: {min_rating}")
    if duplicates != "keep":
        dataset = _kept(dataset, _once(dataset.items, duplicates), "interactions_repeated", "data.duplicates")
    if core > 1:
        wanted = _core(dataset.items, len(dataset.catalogue), core)
        dataset = _kept(dataset, wanted, "interactions_outside_core", f"data.core: {core}")
        dataset = _without_idle_items(dataset)
    return dataset


def _once(items: Ragged, which: Literal["first", "last"]) -> Bool[np.ndarray, "total"]:
    rows = row_of(items)
    # Stable: of equal (user, item) pairs the order of time stays.
    order = np.lexsort((items.values, rows))
    same = (np.diff(rows[order]) == 0) & (np.diff(items.values[order]) == 0)
    ends = np.append(True, ~same) if which == "first" else np.append(~same, True)
    wanted = np.empty(len(order), dtype=bool)
    wanted[order] = ends[: len(order)]
    return wanted


def _core(items: Ragged, count: int, core: int) -> Bool[np.ndarray, "total"]:
    rows, values = row_of(items), items.values
    wanted = np.ones(len(values), dtype=bool)
    while True:
        users = np.bincount(rows[wanted], minlength=len(items))
        wares = np.bincount(values[wanted], minlength=count)
        still = wanted & (users[rows] >= core) & (wares[values] >= core)
        if (still == wanted).all():
            return wanted
        wanted = still


def _kept(dataset: Dataset, wanted: Bool[np.ndarray, "total"], note: str, setting: str) -> Dataset:
    """Only these interactions, and only the users who still have one."""
    gone = len(wanted) - int(wanted.sum())
    if not gone:
        return dataset
    if gone == len(wanted):
        raise InputError(f"{setting} leaves no interaction of the {gone} of {dataset.name} (accepted: a lower one)")
    items = keep(dataset.items, wanted)
    users = np.flatnonzero(items.lengths)
    # A user without interactions ends where the one before ends: the others' offsets stay as they are.
    kept = Ragged(items.offsets[np.append(users, len(items))], items.values)
    return dataset.narrowed(users, kept, wanted, {note: gone, "users_left_without": len(items) - len(users)})


def _without_idle_items(dataset: Dataset) -> Dataset:
    used = np.bincount(dataset.items.values, minlength=len(dataset.catalogue)) > 0
    if used.all():
        return dataset
    stay = np.flatnonzero(used).tolist()
    new: Int[np.ndarray, items] = np.cumsum(used) - 1
    old = dataset.catalogue
    catalogue = Catalogue(*(tuple(column[at] for at in stay) for column in (old.ids, old.titles, old.categories)))
    return replace(
        dataset,
        catalogue=catalogue,
        items=Ragged(dataset.items.offsets, new[dataset.items.values]),
        notes={**dataset.notes, "items_outside_core": len(old) - len(catalogue)},
    )

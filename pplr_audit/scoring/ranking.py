"""Recommendation quality of full rankings: Recall@k and NDCG@k, one value a user, at their expectation over ties.

Binary gains, discount 1 / log2(place + 1), ideal over min(k, targets) (Järvelin & Kekäläinen, TOIS 2002).

Items of one score have no order. Ranked by index they would get one, and an index often says how popular an item is. So
each metric is its mean over all orders of the items that are level (McSherry & Najork, *Computing Information Retrieval
Performance Measures Efficiently in the Presence of Tied Scores*, ECIR 2008): with a items above a target and t level
with it, the target among them, it stands at each of the places a + 1 to a + t with chance 1 / t.

Of four items one is masked, and the target is level with one other behind the best:

>>> scores, own, target = np.array([[0.1, 0.9, 0.1, 0.8]]), np.array([3]), np.array([2])
>>> places = places_of(scores, np.array([0, 1]), own, np.array([0, 1]), target)
>>> places.above.tolist(), places.level.tolist()
([1], [2])
>>> float(recall_at(places, 1)[0]), float(recall_at(places, 2)[0]), float(recall_at(places, 3)[0])
(0.0, 0.5, 1.0)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Places:
    """Places of the distinct targets of some users in their rankings."""

    users: int
    owner: Int[np.ndarray, "targets"]
    """The user of each target, in ascending order; everyone has one at least."""
    above: Int[np.ndarray, "targets"]
    """Items with a higher score."""
    level: Int[np.ndarray, "targets"]
    """Items with the same score, the target among them."""


def places_of(
    scores: Float[np.ndarray, "users items"],
    masked_offsets: Int[np.ndarray, "users+1"],
    masked_items: Int[np.ndarray, "masked"],
    target_offsets: Int[np.ndarray, "users+1"],
    targets: Int[np.ndarray, "total"],
) -> Places:
    """Rank all items for each user by ``scores``, higher first, and find the targets; masked items are not ranked.

    User u's masked items are ``masked_items[masked_offsets[u]:masked_offsets[u + 1]]``, the targets likewise; what is
    listed twice counts once. Raises ValueError on NaN, on a user without a target, and on a target that is masked: it
    can be ranked by nobody, so leave it out before.
    """
    users, items = scores.shape
    mask_owner, masked = _pairs(masked_offsets, masked_items, users, items, "masked item")
    owner, wanted = _pairs(target_offsets, targets, users, items, "target")
    if np.isnan(scores.max(initial=-np.inf)):
        raise ValueError("scores hold NaN, which has no place in a ranking")
    counts = np.bincount(owner, minlength=users)
    if (counts == 0).any():
        raise ValueError(f"{int((counts == 0).sum())} of {users} users have no target: leave them out before scoring")
    hidden = np.isin(owner * items + wanted, mask_owner * items + masked)
    if hidden.any():
        raise ValueError(f"{int(hidden.sum())} of {len(wanted)} targets are masked: leave them out before scoring")
    above, level = np.empty(len(owner), dtype=np.int64), np.empty(len(owner), dtype=np.int64)
    first = np.cumsum(counts) - counts
    for turn in range(int(counts.max(initial=0))):  # the targets of all users at once, one of each user a turn
        mine = np.flatnonzero(counts > turn)
        at = first[mine] + turn
        own = scores[mine, wanted[at]]
        rows = scores if len(mine) == users else scores[mine]
        above[at] = np.count_nonzero(rows > own[:, None], axis=1)
        level[at] = np.count_nonzero(rows == own[:, None], axis=1)
        goal = np.full(users, np.nan, dtype=scores.dtype)
        goal[mine] = own
        gone = scores[mask_owner, masked]
        above[at] -= np.bincount(mask_owner[gone > goal[mask_owner]], minlength=users)[mine]
        level[at] -= np.bincount(mask_owner[gone == goal[mask_owner]], minlength=users)[mine]
    return Places(users, owner, above, level)


def recall_at(places: Places, k: int) -> Float[np.ndarray, "users"]:
    """Expected share of a user's targets among the first k. Raises ValueError for k below 1."""
    _require(k)
    inside = np.clip(k - places.above, 0, places.level) / places.level
    return np.asarray(_sums(places, inside) / _sums(places, np.ones(len(inside))))


def ndcg_at(places: Places, k: int) -> Float[np.ndarray, "users"]:
    """Expected discounted gain of the first k over the best that k places could hold. Raises as ``recall_at``."""
    _require(k)
    discount = 1 / np.log2(np.arange(k) + 2)
    summed = np.concatenate([[0.0], np.cumsum(discount)])
    start, end = np.minimum(places.above, k), np.minimum(places.above + places.level, k)
    mean = (summed[end] - summed[start]) / places.level
    # One place has its own discount; the difference of two sums would be off by rounding.
    alone = np.append(discount, 0.0)[start]
    gains = _sums(places, np.where(places.level == 1, alone, mean))
    targets = np.bincount(places.owner, minlength=places.users)
    return np.asarray(gains / summed[np.minimum(targets, k)])


def best_first(scores: Float[np.ndarray, "items"], order: Int[np.ndarray, "items"]) -> Int[np.ndarray, "items"]:
    """All indices by falling score, those of one score as they stand in ``order``, a permutation of the indices.

    A random ``order`` keeps a ranking from telling anything where the scores tell nothing.

    >>> best_first(np.array([0.5, 0.1, 0.5, 0.9]), np.array([2, 0, 1, 3]))
    array([3, 2, 0, 1])
    """
    return np.asarray(order[np.argsort(-scores[order], kind="stable")])


def _sums(places: Places, values: Float[np.ndarray, "targets"]) -> Float[np.ndarray, "users"]:
    return np.bincount(places.owner, weights=values, minlength=places.users)


def _require(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")


def _pairs(
    offsets: Int[np.ndarray, "rows"], values: Int[np.ndarray, "total"], users: int, items: int, what: str
) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]:
    """Distinct pairs of a user and an item, by user."""
    if len(offsets) != users + 1 or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise ValueError(f"expected {users + 1} rising offsets from 0 to {len(values)}; got {len(offsets)}")
    if len(values) and not 0 <= values.min() <= values.max() < items:
        raise ValueError(f"a {what} is an item index in 0..{items - 1}; got {values.min()}..{values.max()}")
    keys = np.unique(np.repeat(np.arange(users, dtype=np.int64), np.diff(offsets)) * items + values)
    return keys // max(items, 1), keys % max(items, 1)

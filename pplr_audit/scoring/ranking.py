"""Recommendation quality from ranked lists: Recall@k and NDCG@k, one value a user.

Binary gains, discount 1 / log2(rank + 1), ideal over min(k, targets) (Järvelin & Kekäläinen, TOIS 2002). A user whose
one target stands third of five has Recall@5 = 1 and NDCG@5 = 1 / log2(4):

>>> ranked, offsets, targets = np.array([[7, 4, 2, 9, 1]]), np.array([0, 1]), np.array([2])
>>> float(recall_at(ranked, offsets, targets, 5)[0]), float(ndcg_at(ranked, offsets, targets, 5)[0])
(1.0, 0.5)
"""

import numpy as np
from jaxtyping import Bool, Float, Int

GROUP = 16
"""Items of which only the best is looked at when what can be among the best k is told from the rest."""


def recall_at(
    ranked: Int[np.ndarray, "users depth"],
    target_offsets: Int[np.ndarray, "users+1"],
    targets: Int[np.ndarray, "total"],
    k: int,
) -> Float[np.ndarray, "users"]:
    """Share of a user's distinct targets among the first k. User u's are ``targets[offsets[u]:offsets[u + 1]]``.

    -1 in ``ranked`` is an empty place. Raises ValueError for a user without a target (leave such users out before),
    for k outside 1..depth, and for an item ranked twice.
    """
    hits, relevant = _hits(ranked, target_offsets, targets, k)
    return np.asarray(hits.sum(axis=1) / relevant)


def ndcg_at(
    ranked: Int[np.ndarray, "users depth"],
    target_offsets: Int[np.ndarray, "users+1"],
    targets: Int[np.ndarray, "total"],
    k: int,
) -> Float[np.ndarray, "users"]:
    """Discounted gain of the first k over the best that k places could hold. Arguments and errors as ``recall_at``."""
    hits, relevant = _hits(ranked, target_offsets, targets, k)
    discount = 1 / np.log2(np.arange(k) + 2)
    ideal = np.cumsum(discount)[np.minimum(relevant, k) - 1]
    return np.asarray(hits @ discount / ideal)


def top_k(
    scores: Float[np.ndarray, "users items"],
    masked_offsets: Int[np.ndarray, "users+1"],
    masked_items: Int[np.ndarray, "total"],
    k: int,
) -> Int[np.ndarray, "users k"]:
    """The k items with the highest scores, best first, equal scores by the lower index; masked items never appear.

    User u's masked items are ``masked_items[offsets[u]:offsets[u + 1]]``. Places that no item is left for hold -1.
    Raises ValueError on NaN.

    >>> top_k(np.array([[0.1, 0.9, 0.9, 0.5]]), np.array([0, 1]), np.array([3]), 4)
    array([[ 1,  2,  0, -1]])
    """
    users, items = scores.shape
    _check_offsets(masked_offsets, masked_items, users)
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if np.isnan(scores.max(initial=-np.inf)):
        raise ValueError("scores hold NaN, which has no place in a ranking")
    best = np.full((users, k), -1, dtype=np.int64)
    if not items:
        return best
    owner = np.repeat(np.arange(users), np.diff(masked_offsets))
    left = scores.copy()
    left[owner, masked_items] = -np.inf
    # Keep everything level with the k-th best: which of the tied ones stay is for the sort to say. The k-th best among
    # the best of disjoint groups is no higher, nearly as good, and found much faster.
    groups = items // GROUP
    if groups >= k:
        left = left[:, : groups * GROUP].reshape(users, GROUP, groups).max(axis=1)
    place = max(left.shape[1] - k, 0)
    left.partition(place, axis=1)
    keep = scores >= left[:, place, None]
    keep[owner, masked_items] = False
    rows, columns = np.divmod(np.flatnonzero(keep), items)
    order = np.lexsort((-scores[rows, columns], rows))
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    first = rank < k
    best[rows[first], rank[first]] = columns[order][first]
    return best


def _hits(
    ranked: Int[np.ndarray, "users depth"],
    target_offsets: Int[np.ndarray, "users+1"],
    targets: Int[np.ndarray, "total"],
    k: int,
) -> tuple[Bool[np.ndarray, "users k"], Int[np.ndarray, "users"]]:
    """Which of the first k places hold a target, and how many distinct targets each user has."""
    users, depth = ranked.shape
    _check_offsets(target_offsets, targets, users)
    if not 1 <= k <= depth:
        raise ValueError(f"k must lie in 1..{depth}, the depth of the ranking; got {k}")
    lengths = np.diff(target_offsets)
    if (lengths == 0).any():
        raise ValueError(f"{int((lengths == 0).sum())} of {users} users have no target: leave them out before scoring")
    if len(targets) and targets.min() < 0:
        raise ValueError("a target is an item index; got a negative one")
    first = ranked[:, :k]
    ordered = np.sort(first, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("an item stands twice in one user's ranking")
    span = int(max(first.max(initial=0), targets.max(initial=0))) + 1
    rows = np.arange(users, dtype=np.int64)
    # One number per (user, item), so that membership in ragged lists is a single sorted search.
    keys = np.unique(np.repeat(rows, lengths) * span + targets)
    hits = np.isin(rows[:, None] * span + first, keys) & (first >= 0)
    return hits, np.bincount(keys // span, minlength=users)


def _check_offsets(offsets: Int[np.ndarray, "rows"], values: Int[np.ndarray, "total"], users: int) -> None:
    if len(offsets) != users + 1 or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise ValueError(f"expected {users + 1} rising offsets from 0 to {len(values)}; got {len(offsets)}")

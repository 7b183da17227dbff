"""Metrics of reconstruction: how much of a private history an attack read, in tokens, items, whole histories.

``item_hit@k`` as in the ranking of a whole catalogue for one slot; two items with one title are one answer, since
nothing that crosses the wire tells them apart. Items 0 and 1 share a title, so a ranking 0, 1, 2 holds two answers:

>>> ranked, truth, title = np.array([[0, 1, 2], [2, 0, 1]]), np.array([2, 1]), np.array([0, 0, 1])
>>> item_hits(ranked, truth, 2).tolist(), item_hits(ranked, truth, 2, same=title).tolist()
([False, False], [True, True])
"""

import numpy as np
from jaxtyping import Bool, Float, Int


def token_accuracy(
    guess: Int[np.ndarray, "rows length"],
    truth: Int[np.ndarray, "rows length"],
    mask: Bool[np.ndarray, "rows length"],
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """Tokens guessed right, and tokens that count, per row; ``mask`` is True on what counts (title tokens).

    >>> hits, counts = token_accuracy(np.array([[5, 6, 7]]), np.array([[5, 9, 7]]), np.array([[True, True, False]]))
    >>> hits.tolist(), counts.tolist()
    ([1], [2])
    """
    if not guess.shape == truth.shape == mask.shape:
        raise ValueError(f"expected one shape; got guess {guess.shape}, truth {truth.shape}, mask {mask.shape}")
    return ((guess == truth) & mask).sum(axis=1), mask.sum(axis=1)


def item_hits(
    ranked: Int[np.ndarray, "slots depth"],
    truth: Int[np.ndarray, "slots"],
    k: int,
    same: Int[np.ndarray, "items"] | None = None,
) -> Bool[np.ndarray, "slots"]:
    """True for each slot whose true item is among the k best answers.

    ``same`` gives each item's title class; items of one class are one answer and take one place together, so a ranking
    that should fill k places then needs a depth beyond k. -1 in ``ranked`` is an empty place. Raises ValueError for k
    outside 1..depth, and for a true item or a class below 0.
    """
    slots, depth = ranked.shape
    if truth.shape != (slots,):
        raise ValueError(f"expected {slots} true items, one a slot; got {truth.shape}")
    if not 1 <= k <= depth:
        raise ValueError(f"k must lie in 1..{depth}, the depth of the ranking; got {k}")
    if (truth < 0).any():
        raise ValueError("a true item is an item index; got a negative one")
    if same is None:
        return np.asarray(np.any(ranked[:, :k] == truth[:, None], axis=1))
    if (same < 0).any():
        raise ValueError("title classes count from 0; got a negative one")
    answers = np.where(ranked >= 0, same[ranked], -1)
    place = np.cumsum(_first_of_its_kind(answers), axis=1)
    return np.asarray(np.any((answers == same[truth][:, None]) & (place <= k), axis=1))


def reciprocal_ranks(
    ranked: Int[np.ndarray, "rows depth"], truth: Int[np.ndarray, "rows"], same: Int[np.ndarray, "items"]
) -> Float[np.ndarray, "rows"]:
    """1 / the place of the true item in each row's ranking, 0 where it is not in it; items of one class take one place.

    >>> ranked = np.array([[0, 1, 2], [2, 0, 1], [0, 1, -1]])
    >>> reciprocal_ranks(ranked, np.array([2, 2, 2]), np.array([0, 0, 1])).tolist()
    [0.5, 1.0, 0.0]
    """
    answers = np.where(ranked >= 0, same[ranked], -1)
    place = np.cumsum(_first_of_its_kind(answers), axis=1)
    found = answers == same[truth][:, None]
    return np.asarray(np.where(found, 1.0 / np.maximum(place, 1), 0.0).max(axis=1, initial=0.0))


def exact(hit1: Bool[np.ndarray, "slots"], row: Int[np.ndarray, "slots"], rows: int) -> Bool[np.ndarray, "rows"]:
    """True for each row of which every slot is right. ``row`` is the row of each slot; a slot the attack missed is a
    wrong one.

    Raises ValueError for a row without slots: nothing to read is not a history read exactly.

    >>> exact(np.array([True, True, True, False]), np.array([0, 0, 1, 1]), 2).tolist()
    [True, False]
    """
    if hit1.shape != row.shape:
        raise ValueError(f"expected one row per slot; got {len(hit1)} slots and {len(row)} rows")
    if len(row) and (row.min() < 0 or row.max() >= rows):
        raise ValueError(f"rows must lie in 0..{rows - 1}; got {row.min()}..{row.max()}")
    slots = np.bincount(row, minlength=rows)
    if (slots == 0).any():
        raise ValueError(f"{int((slots == 0).sum())} of {rows} rows have no slot: leave them out before scoring")
    return np.asarray(np.bincount(row[hit1], minlength=rows) == slots)


def _first_of_its_kind(answers: Int[np.ndarray, "slots depth"]) -> Bool[np.ndarray, "slots depth"]:
    """False where the same answer stood earlier in the row, or none stands at all."""
    order = np.argsort(answers, axis=1, kind="stable")
    ordered = np.take_along_axis(answers, order, axis=1)
    fresh = np.ones(answers.shape, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(fresh)
    np.put_along_axis(first, order, fresh, axis=1)
    return first & (answers >= 0)

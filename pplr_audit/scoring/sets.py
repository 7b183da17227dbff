"""Sets that were read without places: rankings against a set, and sequences matched one to one.

A ranking is scored by its average precision (Manning, Raghavan & Schütze, *Introduction to Information Retrieval*,
2008, section 8.4): the mean, over the true members, of the precision at each one's rank; members that are not ranked
count 0.

>>> average_precision([7, 3, 9, 5], {7, 9})  # (1/1 + 2/3) / 2
0.8333333333333333
>>> recall_at([7, 3, 9, 5], {7, 9}, 2)
0.5

Sequences that were recovered without saying which is which are given to the true ones by the assignment with the most
similarity in all (Kuhn, *Naval Research Logistics Quarterly* 2, 1955), so that no guess counts for two of them:

>>> matched(similarity([[1, 2, 3], [4, 5]], [[4, 5], [1, 3, 2], [6]])).tolist()
[1, 0, -1]
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

Words = Sequence[int]
_START, _END = -2, -3
"""Marks at the ends of a sequence, so that a single word has pairs, too."""


def distinct(ranked: Sequence[int]) -> list[int]:
    """Return the members of a ranking, each at its best place; places without one (-1) are left out."""
    return [each for each in dict.fromkeys(ranked) if each >= 0]


def average_precision(ranked: Sequence[int], true: Collection[int]) -> float:
    """Return the average precision of a ranking against a set; 0 for an empty set."""
    hits, total, members = 0, 0.0, set(true)
    for rank, each in enumerate(distinct(ranked), 1):
        if each in members:
            hits += 1
            total += hits / rank
    return total / max(1, len(members))


def recall_at(ranked: Sequence[int], true: Collection[int], k: int) -> float:
    """Return the share of a set that is among the best ``k`` of a ranking; at k = its size it is the precision, too."""
    members = set(true)
    return len(members & set(distinct(ranked)[:k])) / max(1, len(members))


def stated(
    chances: Float[np.ndarray, "ranked"], true: Bool[np.ndarray, "ranked"], members: int, share: float
) -> dict[str, float]:
    """Return what a ranking's probabilities state of the best that should hold a share of the set, and what is so.

    The best are as few as state this share of all members that the probabilities let expect. ``brier`` is the mean
    squared difference between probability and truth.

    Args:
        chances: in the order of the ranking.
        true: if each is a member.
        members: size of the set.

    >>> stated(np.array([0.9, 0.9, 0.2, 0.0]), np.array([True, False, False, True]), 2, 0.5)
    {'precision_stated': 0.9, 'precision_found': 0.5, 'recall_found': 0.5, 'brier': 0.465}
    """
    sums = np.cumsum(chances)
    count = min(len(sums), 1 + int(np.searchsorted(sums, share * sums[-1]))) if len(sums) else 0
    if not count:
        return {"precision_stated": 0.0, "precision_found": 0.0, "recall_found": 0.0, "brier": 0.0}
    return {
        "precision_stated": float(chances[:count].mean()),
        "precision_found": float(true[:count].mean()),
        "recall_found": float(true[:count].sum() / max(1, members)),
        "brier": float(np.square(chances - true).mean()),
    }


def similarity(guesses: Sequence[Words], truths: Sequence[Words]) -> Float[np.ndarray, "truths guesses"]:
    """Return the mean of F1 over words and over pairs of neighbors: 1 only for the same words in the same order, as far
    as pairs tell; ends of a sequence count as neighbors.
    """
    return np.asarray((_f1(guesses, truths, 1) + _f1(guesses, truths, 2)) / 2)


def matched(alike: Float[np.ndarray, "truths guesses"]) -> Int[np.ndarray, "truths"]:
    """Return the guess that each truth is given, no guess twice, so that the sum of what is alike is largest; -1 where
    none is left, or none of it is alike.
    """
    found = np.full(len(alike), -1, dtype=np.int64)
    if alike.size:
        rows, columns = linear_sum_assignment(alike, maximize=True)
        found[rows] = np.where(alike[rows, columns] > 0, columns, -1)
    return found


def _f1(guesses: Sequence[Words], truths: Sequence[Words], n: int) -> Float[np.ndarray, "truths guesses"]:
    """F1 of the n-grams in common, each as often as it stands in both, for all pairs at once."""
    if not len(guesses) or not len(truths):
        return np.zeros((len(truths), len(guesses)))
    columns: dict[tuple[tuple[int, ...], int], int] = {}
    theirs, ours = (_occurrences(texts, n, columns) for texts in (truths, guesses))
    sizes = [np.array([len(each) for each in side], dtype=np.float64) for side in (theirs, ours)]
    bags = [_bags(side, len(columns)) for side in (theirs, ours)]
    common = (bags[0] @ bags[1].T).toarray()
    return np.asarray(2 * common / np.maximum(sizes[0][:, None] + sizes[1][None, :], 1))


def _occurrences(
    texts: Sequence[Words], n: int, columns: dict[tuple[tuple[int, ...], int], int]
) -> list[list[int]]:  # fmt: skip
    """Return the columns of each text's n-grams; the second occurrence of one has another column than the first."""
    found = []
    for text in texts:
        words = [_START, *text, _END] if n > 1 else [*text]
        seen = Counter[tuple[int, ...]]()
        mine = []
        for gram in zip(*(words[i:] for i in range(n)), strict=False):
            mine.append(columns.setdefault((gram, seen[gram]), len(columns)))
            seen[gram] += 1
        found.append(mine)
    return found


def _bags(occurrences: Sequence[Sequence[int]], width: int) -> csr_array:
    indptr = np.cumsum([0, *(len(each) for each in occurrences)])
    indices = np.array([column for each in occurrences for column in each], dtype=np.int64)
    return csr_array((np.ones(len(indices)), indices, indptr), shape=(len(occurrences), width))

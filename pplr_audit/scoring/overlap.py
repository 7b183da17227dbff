"""Overlap of a read history with the true one, whatever the place: items in common, and whether their order is kept."""

import math
from collections.abc import Sequence


def jaccard(guess: Sequence[int], truth: Sequence[int]) -> float:
    """Items in both, of those in either; places that hold no item (-1) are left out. 0 where neither has an item:
    nothing was there to be read, so nothing was.

    >>> jaccard([3, 1, -1, -1], [1, 2])
    0.3333333333333333
    >>> jaccard([-1], [])
    0.0
    """
    ours, theirs = {item for item in guess if item >= 0}, set(truth)
    return len(ours & theirs) / max(1, len(ours | theirs))


def order_kept(guess: Sequence[int], truth: Sequence[int]) -> float | None:
    """Kendall's tau of the items in both, by their first places; None with fewer than two of them.

    Pairs in order minus pairs out of order, of all pairs (Kendall, *A New Measure of Rank Correlation*, 1938); there
    are no ties. It is rounded as scipy rounds its tau-b, which takes a hundred times as long for a handful of items.

    >>> round(order_kept([5, 1, 7, 3], [1, 3, 5, 9]), 4), order_kept([1, 3, 5], [1, 3, 5]), order_kept([1, 2], [1, 3])
    (-0.3333, 1.0, None)
    """
    ours, theirs = list(dict.fromkeys(guess)), list(dict.fromkeys(truth))
    common = [item for item in theirs if item in ours]
    if len(common) < 2:
        return None
    places = [ours.index(item) for item in common]
    pairs = len(places) * (len(places) - 1) // 2
    wrong = sum(later < place for at, place in enumerate(places) for later in places[at + 1 :])
    root = math.sqrt(pairs)
    return min(1.0, max(-1.0, (pairs - 2 * wrong) / root / root))

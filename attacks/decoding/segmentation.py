"""The best way to part a prompt into titles, the separators between them, the suffix and the answer behind it.

Every position belongs to exactly one of them, so the sums of how well the words fit compare ways with any number of
titles of any length, and the best one is found from the back (dynamic programming, as in Viterbi's algorithm). What no
way explains counts as any word would: by the mean fit at the position.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Step:
    """The best that can start at a place: a title, which ends before ``end``, and what goes on from ``then``."""

    total: float
    item: int = -1
    end: int = 0
    then: int | None = None
    """Start of the next title; None: there is none."""
    closed: bool = False
    """True if the suffix stands behind the title."""


CHUNK = 1_000_000
"""Sums of fits, at most, that are held at once, of all titles at so many places (or at one place)."""


class Segmentation:
    """Segmentation of one prompt.

    Args:
        totals: of each title started at each place in [first, last) the sum of its fits.
        totals_at: the same of one place.
        lengths: of the titles.
        order: all titles; of those that are equally good the first in it is taken.
        separator, suffix: the sum of their fits, by where they start; minus infinity past the end.
        parting, closing: their lengths.
        answers: the best sum of an answer that fills the prompt to its end, by where it starts.
    """

    def __init__(
        self, fit: Float[np.ndarray, "length words"],
        totals: Callable[[int, int], Float[np.ndarray, "places items"]],
        totals_at: Callable[[int], Float[np.ndarray, "items"]], lengths: Int[np.ndarray, "items"],
        order: Int[np.ndarray, "items"], separator: Float[np.ndarray, "length+1"],
        suffix: Float[np.ndarray, "length+1"], parting: int, closing: int, answers: Mapping[int, float],
    ) -> None:  # fmt: skip
        self._totals, self._totals_at, self._separator, self._parting = totals, totals_at, separator, parting
        length = len(fit)
        rest = np.append(np.cumsum(fit.mean(1)[::-1])[::-1], 0.0)
        followed = rest.copy()
        for at, best in answers.items():
            followed[at] = max(rest[at], best)
        self._closed = suffix + np.append(followed, np.full(closing, -np.inf))[closing:]
        """The best that can follow a title that ends before a place, with the suffix behind it."""
        self._left = np.append(rest[:-1], -np.inf)
        """All from a place on, unexplained; at the very end, where something must stand, that there is nothing."""
        self._values = np.full(length + 1 + parting, -np.inf)
        """The best total of all from a place on."""
        self._sized = np.full(length + 1, -1)
        """The size of the title with which it begins, by its place in ``sizes``; -1: none begins there."""
        self._solved = length + 1
        """The first place that is solved; all behind it are."""
        self._order = order[np.argsort(lengths[order], kind="stable")]
        self._sizes, first = np.unique(lengths[self._order], return_index=True)
        self._bounds = np.append(first, len(lengths))
        """Where the titles of each size stand in this order."""

    def step(self, at: int) -> Step:
        """The best that can start at ``at``."""
        while self._solved > at:
            self._solve(max(0, self._solved - max(1, CHUNK // len(self._order))), self._solved)
        total, place = float(self._values[at]), int(self._sized[at])
        if place < 0:
            return Step(total)
        end = at + int(self._sizes[place])
        # With the suffix behind it, with another title, or with what is left unexplained.
        ways = [self._closed[end], self._separator[end] + self._values[end + self._parting], self._left[end]]
        way = int(np.argmax(ways))
        own = self._order[self._bounds[place] : self._bounds[place + 1]]
        item = int(own[self._totals_at(at)[own].argmax()])
        return Step(total, item, end, end + self._parting if way == 1 else None, way == 0)

    def _solve(self, first: int, last: int) -> None:
        """Find the best for each place in [first, last), behind which all is solved, from the last to the first."""
        best = np.maximum.reduceat(self._totals(first, last)[:, self._order], self._bounds[:-1], axis=1)
        # Past the end no title fits, whatever is looked up there.
        ends = np.minimum(np.arange(first, last)[:, None] + self._sizes, len(self._closed) - 1)
        fixed, separator = np.maximum(self._closed[ends], self._left[ends]), self._separator[ends]
        following = ends + self._parting
        for at in range(last - 1, first - 1, -1):
            row = at - first
            whole = best[row] + np.maximum(fixed[row], separator[row] + self._values[following[row]])
            place = whole.argmax()
            explained = whole[place] > self._left[at]
            self._values[at] = whole[place] if explained else self._left[at]
            self._sized[at] = place if explained else -1
        self._solved = first

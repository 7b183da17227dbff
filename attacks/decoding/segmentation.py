"""The best way to part a prompt into titles, the separators between them, the suffix and the answer behind it.

Every position belongs to exactly one of them, so the sums of how well the words fit compare ways with any number of
titles of any length, and the best one is found from the back (dynamic programming, as in Viterbi's algorithm). What no
way explains counts as any word would: by the mean fit at the position.
"""

from collections.abc import Callable
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


class Segmentation:
    """Segmentation of one prompt.

    Args:
        totals: of each title started at a place the sum of its fits.
        lengths: of the titles.
        order: all titles; of those that are equally good the first in it is taken.
        separator, suffix: the sum of their fits, by where they start; minus infinity past the end.
        parting, closing: their lengths.
        answer: the best sum of an answer that fills the place from here to the end; minus infinity where none does.
    """

    def __init__(
        self, fit: Float[np.ndarray, "length words"], totals: Callable[[int], Float[np.ndarray, "items"]],
        lengths: Int[np.ndarray, "items"], order: Int[np.ndarray, "items"], separator: Float[np.ndarray, "length+1"],
        suffix: Float[np.ndarray, "length+1"], parting: int, closing: int, answer: Callable[[int], float],
    ) -> None:  # fmt: skip
        self._totals, self._separator, self._parting = totals, separator, parting
        length = len(fit)
        rest = np.append(np.cumsum(fit.mean(1)[::-1])[::-1], 0.0)
        followed = np.array([max(rest[at], answer(at)) for at in range(length + 1)])
        self._closed = suffix + np.append(followed, np.full(closing, -np.inf))[closing:]
        """The best that can follow a title that ends before a place, with the suffix behind it."""
        self._left = np.append(rest[:-1], -np.inf)
        """All from a place on, unexplained; at the very end, where something must stand, that there is nothing."""
        self._steps: list[Step] = []
        """From the end on: the last stands for the first place that was asked for."""
        self._values = np.full(length + 1 + parting, -np.inf)
        self._order = order[np.argsort(lengths[order], kind="stable")]
        self._sizes, first = np.unique(lengths[self._order], return_index=True)
        self._bounds = np.append(first, len(lengths))
        """Where the titles of each size stand in this order."""

    def step(self, at: int) -> Step:
        """The best that can start at ``at``."""
        last = len(self._closed) - 1
        while len(self._steps) <= last - at:
            place = last - len(self._steps)
            self._steps.append(self._best(place))
            self._values[place] = self._steps[-1].total
        return self._steps[last - at]

    def _best(self, at: int) -> Step:
        nothing = Step(float(self._left[at]))
        ends = at + self._sizes[at + self._sizes < len(self._closed)]
        if not len(ends):
            return nothing
        totals = self._totals(at)[self._order]
        by_size = np.maximum.reduceat(totals, self._bounds[:-1])[: len(ends)]
        on = self._separator[ends] + self._values[ends + self._parting]
        ways = np.stack([self._closed[ends], on, self._left[ends]])
        whole = by_size + ways.max(0)
        place = int(whole.argmax())
        if not whole[place] > nothing.total:
            return nothing
        way, end = int(ways[:, place].argmax()), int(ends[place])
        own = slice(self._bounds[place], self._bounds[place + 1])
        item = int(self._order[own][totals[own].argmax()])
        return Step(float(whole[place]), item, end, end + self._parting if way == 1 else None, way == 0)

"""The best way to part a prompt into titles, the separators between them, the suffix and the answer behind it.

Every position belongs to exactly one of them, so the sums of how well the words fit compare ways with any number of
titles of any length, and the best one is found from the back (dynamic programming, as in Viterbi's algorithm). What no
way explains counts as any word would: by the mean fit at the position.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

STARTS = 48
"""Places behind the best fitting separators at which a title may start."""

Fit = Float[np.ndarray, "length words"]


@dataclass(frozen=True)
class Step:
    """The best that can start at a place: a title, which ends before ``end``, and what goes on from ``then``."""

    total: float
    item: int = -1
    end: int = 0
    then: int | None = None
    """Where the next title starts; None: there is none."""
    closed: bool = False
    """Whether the suffix stands behind the title."""


class Segmentation:
    """Of one prompt.

    Args:
        totals: of each title started at a place the sum of its fits, minus infinity where it would run over the end.
        lengths: of the titles.
        separator, suffix: the sum of their fits, by where they start; minus infinity past the end.
        parting, closing: their lengths.
        answer: the best sum of an answer that fills the place from here to the end; minus infinity where none does.
    """

    def __init__(
        self, fit: Fit, totals: Callable[[int], Float[np.ndarray, "items"]], lengths: Int[np.ndarray, "items"],
        separator: Float[np.ndarray, "length+1"], suffix: Float[np.ndarray, "length+1"], parting: int, closing: int,
        answer: Callable[[int], float],
    ) -> None:  # fmt: skip
        self._totals, self._separator, self._suffix = totals, separator, suffix
        self._parting, self._closing, self._answer = parting, closing, answer
        self._rest = np.append(np.cumsum(fit.mean(1)[::-1])[::-1], 0.0)
        self._order = np.argsort(lengths, kind="stable")
        self._sizes, first = np.unique(lengths[self._order], return_index=True)
        self._bounds = np.append(first, len(lengths))
        """Where the titles of each size stand in this order."""
        self._steps: dict[int, Step] = {}
        self._behind: dict[int, float] = {}
        best = np.argsort(-separator, kind="stable")[:STARTS]
        for at in sorted((int(place) + parting for place in best if np.isfinite(separator[place])), reverse=True):
            self.step(at)

    def step(self, at: int) -> Step:
        """The best that can start at ``at``."""
        if at not in self._steps:
            self._steps[at] = self._best(at)
        return self._steps[at]

    def _best(self, at: int) -> Step:
        nothing = Step(self._unexplained(at))
        ends = at + self._sizes[at + self._sizes < len(self._rest)]
        if not len(ends):
            return nothing
        totals = self._totals(at)[self._order]
        by_size = np.maximum.reduceat(totals, self._bounds[:-1])[: len(ends)]
        on = np.array([self._going_on(e) for e in ends.tolist()]) + self._separator[ends]
        closed = np.array([self._closed(e) for e in ends.tolist()]) + self._suffix[ends]
        broken = np.array([self._unexplained(e) for e in ends.tolist()])
        whole = by_size + np.maximum(np.maximum(on, closed), broken)
        place = int(whole.argmax())
        if not whole[place] > nothing.total:
            return nothing
        end, ways = int(ends[place]), (closed[place], on[place], broken[place])
        way = int(np.argmax(ways))
        own = slice(self._bounds[place], self._bounds[place + 1])
        item = int(self._order[own][totals[own].argmax()])
        return Step(float(whole[place]), item, end, end + self._parting if way == 1 else None, way == 0)

    def _going_on(self, end: int) -> float:
        """The best that can follow the separator behind a title that ends before ``end``."""
        step = self._steps.get(end + self._parting)
        return -np.inf if step is None else step.total

    def _unexplained(self, at: int) -> float:
        """All from ``at`` on; at the very end that there is nothing, where something must stand, is no way."""
        return float(self._rest[at]) if at + 1 < len(self._rest) else -np.inf

    def _closed(self, end: int) -> float:
        """The best that can follow the suffix behind a title that ends before ``end``."""
        at = end + self._closing
        if at >= len(self._rest):
            return -np.inf
        if at not in self._behind:
            self._behind[at] = max(float(self._rest[at]), self._answer(at))
        return self._behind[at]

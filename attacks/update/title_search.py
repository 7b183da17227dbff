"""Search over whole titles for the samples whose training gives an update: coordinate by coordinate, by trying.

The recommender's language is the list of titles, and the template is public. So a sample is its items, and instead of
words that are moved about (LAMP: Balunovic et al. 2022, arXiv 2202.08827, section 4.2) it is one item that is changed,
or two that change places. What a candidate would send is not approximated: the client is simulated under its own
recipe, steps and optimizer, so that the true samples explain a first round exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

Items = tuple[int, ...]
"""A sample: its history, the oldest item first, and the item that it answers with as the last."""
EXACT = 1e-4
"""A distance below which nothing is left to be explained."""


@dataclass
class TitleSearch:
    """The best samples so far, and how near each item came.

    Args:
        away: the distance of samples from what was seen.
        shortlist: items that are tried in a place, in their order.
        answers: the same for what samples answer with.
        tries: simulated clients, at most.
        generator: draws new beginnings.
    """

    away: Callable[[Sequence[Items]], float]
    shortlist: Sequence[int]
    answers: Sequence[int]
    tries: int
    generator: np.random.Generator
    best: list[Items] = field(default_factory=list)
    distance: float = float("inf")
    nearest: dict[int, float] = field(default_factory=dict)
    """The least distance of candidates that hold an item, by item."""
    tried: dict[tuple[Items, ...], float] = field(default_factory=dict)
    _here: list[Items] = field(default_factory=list)
    """The samples at which the search stands, with their distance."""
    _least: float = float("inf")

    def run(self, start: Sequence[Items]) -> None:
        """Climb until nothing is left to explain or the tries are spent; from where no move helps, begin anew.

        A new beginning has the answers of the best samples, and other histories.
        """
        self._begin(list(start))
        while self._goes_on:
            before = self._least
            for moves in self._places():
                for candidate in moves:
                    if not self._goes_on:
                        return
                    self._step(candidate)
            if self._least >= before:
                if len(self.shortlist) < 2:
                    return
                self._begin([self._redrawn(sample) for sample in self.best])

    @property
    def _goes_on(self) -> bool:
        return len(self.tried) < self.tries and self.distance > EXACT

    def _begin(self, start: list[Items]) -> None:
        self._here, self._least = start, self._away(start)

    def _redrawn(self, sample: Items) -> Items:
        history = self.generator.choice(self.shortlist, size=len(sample) - 1)
        return (*(int(item) for item in history), sample[-1])

    def _step(self, candidate: list[Items]) -> None:
        if tuple(candidate) not in self.tried and (found := self._away(candidate)) < self._least:
            self._here, self._least = candidate, found

    def _places(self) -> Iterator[Iterator[list[Items]]]:
        """Yield the moves of each place: answers first, which an update says most of, then histories, newest first."""
        for sample in range(len(self._here)):
            yield self._changed(sample, -1, self.answers)
        for sample in range(len(self._here)):
            for back in range(2, len(self._here[sample]) + 1):
                yield self._changed(sample, -back, self.shortlist)
            yield self._reordered(sample)

    def _changed(self, sample: int, place: int, items: Sequence[int]) -> Iterator[list[Items]]:
        for item in items:
            own = list(self._here[sample])
            if len(own) >= -place:
                own[place] = item
                yield self._with(sample, tuple(own))

    def _reordered(self, sample: int) -> Iterator[list[Items]]:
        """Two items of the history in each other's place, and a history without its oldest item."""
        for first in range(len(self._here[sample]) - 1):
            for second in range(first + 1, len(self._here[sample]) - 1):
                own = list(self._here[sample])
                if second < len(own) - 1:
                    own[first], own[second] = own[second], own[first]
                    yield self._with(sample, tuple(own))
        if len(self._here[sample]) > 2:
            yield self._with(sample, self._here[sample][1:])

    def _with(self, sample: int, items: Items) -> list[Items]:
        return [*self._here[:sample], items, *self._here[sample + 1 :]]

    def _away(self, candidate: list[Items]) -> float:
        key = tuple(candidate)
        if key not in self.tried:
            self.tried[key] = found = self.away(candidate)
            for item in {item for sample in candidate for item in sample}:
                self.nearest[item] = min(found, self.nearest.get(item, float("inf")))
            if found < self.distance:
                self.best, self.distance = candidate, found
        return self.tried[key]

    def ranked(self, items: int) -> np.ndarray:
        """Return all items: those of the best samples, then by how near candidates with them came, then the others."""
        held = [item for sample in self.best for item in reversed(sample)]
        near = sorted(self.nearest, key=lambda item: self.nearest[item])
        every = dict.fromkeys([*held, *near, *self.shortlist, *range(items)])
        return np.array([*every], dtype=np.int64)

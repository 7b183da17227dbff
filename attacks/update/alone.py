"""Tokens by how well they, each at its place, lie in the span of a first block's inputs, whatever stands around them.

All of the vocabulary is tried at every place, as matrix products (Petrov et al. 2024, arXiv 2405.15586, section 4.2). A
random sketch of what is at right angles to the span sorts out most of it before a distance is computed exactly.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pplr_audit.attacks.update.checks import Check
from pplr_audit.attacks.update.first_inputs import By, FirstInputs
from pplr_audit.threat_model.knowledge import Model

SKETCH = 32
"""Random directions of a sketch: squared distances are right to a quarter."""
NEAREST = 64
"""One in so many candidates is ranked exactly, even where none is near."""
NO_MARK = (0, False)
"""The mark of a token that belongs to no item; see `first_inputs.text`."""


class Likely(NamedTuple):
    """Tokens that can stand at a place, the likeliest first."""

    tokens: Int[np.ndarray, "tokens"]
    odds: Float[np.ndarray, "tokens"]


class Alone:
    """The log-odds of each word at each place.

    Args:
        tests: of inputs that follow from a token and its place.
        words: the tokens that are tried.
        shortlist: most tokens that are kept of a place.
        longest: number of places that a text can have.
        check: called between parts of the work.
    """

    def __init__(
        self, model: Model, tests: Sequence[Check], words: Int[np.ndarray, "words"], shortlist: int, longest: int,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self._tests, self._words, self._shortlist = tests, words, shortlist
        self._longest, self._check = longest, check
        self._sketches = [(each.span.sketch(SKETCH)).float() if each.span.rank > SKETCH else None for each in tests]
        self._odds: dict[tuple[int, bool], Float[np.ndarray, "words places"]] = {}
        self._inputs = FirstInputs(model, [each.module for each in tests], longest)
        self.placed, self.marked = self._inputs.placed, self._inputs.marked

    @property
    def tried(self) -> int:
        """Number of candidates, each a token at a place, that were tried."""
        return sum(odds.size for odds in self._odds.values())

    @property
    def accepted(self) -> int:
        """Number of candidates that are likelier than not."""
        return sum(int((odds > 0).sum()) for odds in self._odds.values())

    def likely(
        self, tokens: Int[np.ndarray, "many"], places: Int[np.ndarray, "many"], mark: tuple[int, bool]
    ) -> Bool[np.ndarray, "many"]:
        """Return which of these tokens are likelier at their places than not; none behind the last place."""
        inside = places < self._longest
        held = self._held(int(places[inside].max(initial=0)), mark)
        columns = np.where(inside & self.placed, places, 0)
        odds = held[np.searchsorted(self._words, tokens), columns]
        return np.asarray((odds > 0) & inside)

    def at(self, place: int, mark: tuple[int, bool] = NO_MARK) -> Likely:
        """Return the tokens that are likelier at a place than not, the likeliest first; none behind the last place."""
        if place >= self._longest:
            return Likely(np.empty(0, dtype=np.int64), np.empty(0))
        odds = self._held(place, mark)[:, place if self.placed else 0]
        best = np.argsort(-odds, kind="stable")[: self._shortlist]
        best = best[odds[best] > 0]
        return Likely(self._words[best], odds[best])

    def _held(self, place: int, mark: tuple[int, bool]) -> Float[np.ndarray, "words places"]:
        """Return the log-odds of each word at each of the first places, up to this one at least."""
        mark = mark if self.marked else NO_MARK
        held = self._odds.get(mark)
        if held is None or (self.placed and held.shape[1] <= place):
            places = min(self._longest, max(32, 2 * place)) if self.placed else 1
            held = self._odds[mark] = self._try(places, mark)
        return held

    def ranked(self) -> Likely:
        """Return all words that were tried by their best place so far, the likeliest first."""
        held = [odds.max(1) for odds in self._odds.values()]
        best = np.max(held, axis=0) if held else np.full(len(self._words), -np.inf)
        order = np.argsort(-best, kind="stable")
        return Likely(self._words[order], best[order])

    def _try(self, places: int, mark: tuple[int, bool]) -> Float[np.ndarray, "words places"]:
        """Return the log-odds of each word at each of the first places."""
        found = np.empty((len(self._words), places))
        own = np.full(len(self._words), mark[1])
        for start, inputs in self._inputs.table(self._words, own, np.full(places, mark[0])):
            self._check()
            odds = self._odds_of(inputs)
            found[start : start + len(odds)] = odds
        return found

    def _odds_of(self, seen: By) -> Float[np.ndarray, "words places"]:
        """Return the summed log-odds of words at places."""
        total = torch.zeros(1, dtype=torch.float64)
        for check, sketch in zip(self._tests, self._sketches, strict=True):
            inputs = seen[check.module]
            total = total + screened(check, sketch, inputs.flatten(0, 1)).view(inputs.shape[:2])
        return total.numpy()


def screened(check: Check, sketch: Tensor | None, inputs: Float[Tensor, "candidates inputs"]) -> Tensor:
    """Return log-odds; minus infinity for those that a sketch shows to be neither near nor among the nearest."""
    if sketch is None or not check.span.whole:
        return check.log_odds(inputs)
    placed = check.directions.placed(inputs).float()
    far = (placed @ sketch.T).norm(dim=1) / placed.norm(dim=1).clamp(min=1e-30)
    near = far < far.median() / math.sqrt(2)
    near |= far <= far.kthvalue(1 + len(far) // NEAREST).values
    found = torch.full((len(inputs),), -torch.inf, dtype=torch.float64)
    found[near] = check.log_odds(inputs[near])
    return found

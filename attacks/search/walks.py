"""Two ways along a sequence that crossed, from the left to the right: title by title, and token by token.

A piece is taken when every position of it is as near to what crossed as the adversary's front can be expected to come.
How near that is, the positions of the template's opening tell, whose tokens are public: with an exact front rounding is
all there is, with dropout, a stale front or noise there is more. An exact front verifies the ridge inverter's own
reading in one pass; where that fails, and with any other front from the start, a shortlist is tried and its nearest
taken. A shortlist with nothing near enough is widened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pplr_audit.attacks.decoding.titles import DEPTH, LABELS, TitleReader
from pplr_audit.attacks.search.candidates import Front, Trial, relative
from pplr_audit.data.prompts import Prompts

EXACT = 1e-4
"""Distance up to which the front is taken for the one that was used."""
ROUNDING = 1e-5
"""Distance that is always put down to rounding."""
SLACK = 3.0
"""A position may be so many times farther from what crossed than the worst one of the opening."""
WIDER = 16
"""A shortlist without anything near enough grows so many times longer."""
DRAFT = 16
"""Tokens that are verified together."""

Piece = Int[np.ndarray, "piece"]


@dataclass(frozen=True)
class Crossed:
    """One sequence that crossed, and how it is to be searched."""

    tensor: Float[Tensor, "length hidden"]
    """h of the front's layer."""
    front: Front
    shortlist: int
    """Candidates that are tried together."""
    most: int
    """Candidates that may be tried before a shortlist is no longer widened."""
    check: Callable[[], None]
    """Function that ends the search, by what it raises, where its time is up."""
    row: int = 0
    """Row whose sequence it is."""


@dataclass
class Answer:
    """The answer that was read."""

    tokens: Int[np.ndarray, "read"]
    items: list[Int[np.ndarray, "depth"]] = field(default_factory=list)
    """The best items of the catalogue for each slot."""
    labels: Int[np.ndarray, "labels"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    distances: list[float] = field(default_factory=list)
    """Distance of each piece that was taken: the mean over its positions."""
    verified: int = 0
    """Pieces of which an exact front makes, at every position, what crossed."""
    claimed: Bool[np.ndarray, "claimed"] = field(default_factory=lambda: np.empty(0, dtype=bool))
    """True for positions that are taken for words of a title in the history, as far as that was told."""

    def claim(self, at: int, words: Bool[np.ndarray, "words"] | Int[np.ndarray, "words"]) -> None:
        """Tell it of the positions from ``at`` on; those before that were not told of are no words of a title."""
        before = self.claimed[:at]
        self.claimed = np.concatenate([before, np.zeros(at - len(before), dtype=bool), words.astype(bool)])


class Candidates:
    """The catalogue's titles and what can stand behind them; titles that are the same tokens are one."""

    def __init__(self, prompts: Prompts, reader: TitleReader) -> None:
        self._prompts, self._reader = prompts, reader
        self._different = np.zeros(len(prompts.titles), dtype=bool)
        self._different[np.unique(prompts.title_classes(), return_index=True)[1]] = True
        """One item of each title."""
        self._lengths = prompts.titles.lengths
        self._endings = (prompts.separator, prompts.suffix)

    def slot(
        self, fit: Float[np.ndarray, "length words"], at: int, row: int = 0
    ) -> tuple[Int[np.ndarray, "candidates"], Int[np.ndarray, "candidates"]]:
        """The items that can start at ``at``, best first, each with the separator (0) or the suffix (1) behind it."""
        order = self._reader.order(row)
        different = order[self._different[order]]
        scores = self._reader.scores(fit, at)[:, different]
        rest = len(fit) - at - self._lengths[different] - len(self._prompts.suffix)
        scores[1, ~np.isin(rest, [0, *(self._lengths + len(self._prompts.end))])] = -np.inf
        best = np.argsort(-scores, axis=None, kind="stable")[: np.isfinite(scores).sum()]
        ending, place = np.unravel_index(best, scores.shape)
        return different[place], ending

    def answer(self, fit: Float[np.ndarray, "length words"], at: int, row: int = 0) -> Int[np.ndarray, "candidates"]:
        """The items that can be the answer at ``at``, best first."""
        ranked = self._reader.answer(fit, at, row)
        return np.asarray(ranked[self._different[ranked]])

    def with_ending(self, item: int, ending: int) -> Piece:
        return np.concatenate([self._prompts.titles[item], self._endings[ending]])

    def words(self, item: int) -> Int[np.ndarray, "text"]:
        """1 for each token of an item's text that is its own, 0 for those of the template between."""
        return self._prompts.content[item]

    def with_end(self, item: int) -> Piece:
        return np.concatenate([self._prompts.titles[item], self._prompts.end])


def by_titles(walk: "Walk", fit: Float[np.ndarray, "length words"], candidates: Candidates) -> bool:
    """Read titles of the catalogue up to the end, or to where an exact front makes of none of them what crossed.

    Answers whether the history was read whole.

    Args:
        fit: how well each word that a prompt can hold stands at each position, by the ridge inverter.
    """
    while len(walk.path) < len(fit):
        at = len(walk.path)
        items, endings = candidates.slot(fit, at, walk.row)
        tried = walk.choose(len(items), lambda i: candidates.with_ending(items[i], endings[i]))  # noqa: B023
        if not len(tried):
            return False
        walk.answer.items.append(ranked(items, tried, DEPTH))
        walk.answer.claim(at, candidates.words(items[tried[0]]))
        if endings[tried[0]] == 1:
            break
    if len(walk.path) < len(fit):
        items = candidates.answer(fit, len(walk.path), walk.row)
        tried = walk.choose(len(items), lambda i: candidates.with_end(items[i]))
        if len(tried):
            walk.answer.labels = ranked(items, tried, LABELS)
    return True


def by_tokens(walk: "Walk", fit: Float[np.ndarray, "length vocab"]) -> None:
    """Read any text up to the end.

    Args:
        fit: how well each word of the vocabulary stands at each position, by the ridge inverter.
    """
    draft = fit.argmax(1)
    while len(walk.path) < len(fit):
        if walk.exact and walk.verify(draft[len(walk.path) :][:DRAFT]):
            continue
        order = np.argsort(-fit[len(walk.path)], kind="stable")
        walk.choose(len(order), lambda i: order[i : i + 1], sure=True)  # noqa: B023


class Walk:
    """A path through one sequence."""

    def __init__(self, crossed: Crossed) -> None:
        self._crossed, self.row = crossed, crossed.row
        self.path = crossed.front.start()
        self._tried = 0
        opening = self.path.states[crossed.front.layer]
        error = float(relative(opening, crossed.tensor[: len(opening)]).max())
        self.exact = error <= EXACT
        self._tolerance = max(ROUNDING, SLACK * error)
        self.answer = Answer(self.path.tokens)

    def choose(self, number: int, piece: Callable[[int], Piece], *, sure: bool = False) -> Int[np.ndarray, "tried"]:
        """Take the nearest of ``number`` candidates, given in the order in which they are tried.

        Args:
            sure: one of them is right. Otherwise none is taken where an exact front comes near enough with none.

        Returns:
            The candidates tried, the nearest first; none where none is taken.
        """
        shortlist = self._crossed.shortlist
        width = 1 if self.exact and not sure else shortlist
        best, means = None, list[float]()
        while len(means) < number:
            self._crossed.check()
            trial = self._measure([piece(each) for each in range(len(means), min(width, number))])
            means += [float(found.mean()) for found in trial.distances]
            if best is None or trial.nearest.mean() < best.nearest.mean():
                best = trial
            if self._near(best.nearest) == len(best.nearest) or self._tried >= self._crossed.most:
                break
            width = shortlist if width < shortlist else width * WIDER
        if best is None or (self.exact and not sure and self._near(best.nearest) < len(best.nearest)):
            return np.empty(0, dtype=np.int64)
        self._take(best)
        return np.asarray(np.argsort(means, kind="stable"))

    def verify(self, draft: Piece) -> bool:
        """Take as much of ``draft`` as is near enough; answers whether that is all of it."""
        trial = self._measure([draft])
        near = self._near(trial.nearest)
        if near:
            self._take(trial, near)
        return near == len(draft)

    def _measure(self, pieces: Sequence[Piece]) -> Trial:
        rest = self._crossed.tensor[len(self.path) :]
        self._tried += len(pieces)
        return self._crossed.front.measure(self.path, pieces, rest, deep=self.exact)

    def _near(self, distances: Float[np.ndarray, "piece"]) -> int:
        """Count the first positions that are near enough."""
        far = distances > self._tolerance
        return int(far.argmax()) if far.any() else len(far)

    def _take(self, trial: Trial, length: int | None = None) -> None:
        """Go on along what was measured, or along the first ``length`` tokens of it."""
        taken = trial.nearest[:length]
        whole = length is None or length == len(trial.nearest)
        if not whole:
            self._crossed.front.settle(trial.path, deep=self.exact)
        path = trial.path if whole else trial.path.upto(len(self.path) + len(taken))
        self.path, self.answer.tokens = path, path.tokens
        self.answer.distances.append(float(taken.mean()))
        self.answer.verified += self.exact and self._near(taken) == len(taken)


def ranked(
    items: Int[np.ndarray, "candidates"], tried: Int[np.ndarray, "tried"], depth: int
) -> Int[np.ndarray, "depth"]:
    """Rank the tried items first, in their order, then the others; each item once, padded with -1."""
    order = list(dict.fromkeys([*items[tried].tolist(), *items.tolist()]))[:depth]
    return np.array(order + [-1] * (depth - len(order)), dtype=np.int64)

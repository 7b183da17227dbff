"""Reads items off a prompt: the template is public, so it is known where titles start and what parts them."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.attacks.decoding.segmentation import Segmentation
from pplr_audit.data.prompts import Prompts
from pplr_audit.scoring.ranking import best_first

DEPTH = 10
"""Items named for each slot, best first."""
LABELS = 100
"""Items named as the answer, best first."""


class Read(NamedTuple):
    """One prompt as it was read."""

    items: Int[np.ndarray, "slots depth"]
    """The best items for each slot, in the prompt's order."""
    labels: Int[np.ndarray, "labels"]
    """The best items for the answer behind them; none where the template has none, or the prompt ends before it."""
    claimed: Bool[np.ndarray, "length"]
    """True for positions that are taken for words of a title in the history."""


Readings = Callable[[int | None], Read]
"""Function from where a title starts (None: the first one) to what `TitleReader.read` answers."""


class TitleReader:
    """Ranks the catalogue for each slot of a prompt, from how well every word fits every position.

    The catalogue is the language: of all ways to part a prompt into titles the best one says where each starts
    (`segmentation`), and what else may stand there is ranked by the mean fit of its tokens and of what must stand
    behind it, the separator or the suffix. Titles that fit equally well are ranked in a random order, another one for
    each row: the catalogue's own may tell how popular they are.
    """

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        parts = [prompts.prefix, prompts.separator, prompts.suffix, prompts.end, prompts.titles.values]
        self.vocabulary: Int[np.ndarray, words] = np.unique(np.concatenate(parts))
        """The tokens that a prompt over this catalogue can hold, in ascending order; columns of ``fit``."""
        self._lengths = prompts.titles.lengths
        self._sizes = np.unique(self._lengths).tolist()
        self._columns = self._column(prompts.titles.values)
        self._first = prompts.titles.offsets[:-1]
        self._class = prompts.title_classes()
        self._drawn: tuple[int, Int[np.ndarray, items]] = (-1, np.empty(0, dtype=np.int64))
        """The last row that an order was drawn for, and its order."""
        self._longest = np.argsort(-self._lengths, kind="stable")
        """The titles, the longest first."""
        sizes = self._lengths[self._longest]
        self._at_place = [
            self._columns[self._first[self._longest[: int((sizes > place).sum())]] + place]
            for place in range(int(sizes[0]))
        ]
        """The token of each title in this order at each place of it, of those that have one there."""
        self._separator = self._column(prompts.separator)
        self._suffix = self._column(prompts.suffix)

    def read(self, fit: Float[np.ndarray, "length words"], start: int | None = None, row: int = 0) -> Read:
        """Read a prompt.

        Args:
            fit: how well each word stands at each position.
            start: where a title starts (default: the first one does, behind the prefix).
            row: whose prompt it is.
        """
        return self.readings(fit, row)(start)

    def readings(self, fit: Float[np.ndarray, "length words"], row: int = 0) -> Readings:
        """Read as `read` does, from one start after the other; shared work is done once."""
        separator, suffix = self._mean_fit(fit, self._separator), self._mean_fit(fit, self._suffix)
        behind = np.maximum(separator, suffix)
        parting, closing = len(self._separator), len(self._suffix)
        order = self.order(row)
        at_one = lru_cache(maxsize=1)(partial(self._totals_at, fit))
        parted = Segmentation(
            fit, partial(self._totals, fit), at_one, self._lengths, order, separator * parting, suffix * closing,
            parting, closing, self._answered(fit, row),
        )  # fmt: skip

        def from_(start: int | None = None) -> Read:
            found, label, claimed = [], np.empty(0, dtype=np.int64), np.zeros(len(fit), dtype=bool)
            at: int | None = len(self._prompts.prefix) if start is None else start
            while at is not None and at < len(fit):
                step = parted.step(at)
                if step.item < 0:
                    break
                ranked = best_first(self._scores(at_one(at), at, behind), order)[: DEPTH + 1]
                best = np.array([step.item, *ranked[ranked != step.item]])[:DEPTH]
                found.append(np.pad(best, (0, DEPTH - len(best)), constant_values=-1))
                claimed[at : step.end] = self._prompts.content[step.item]
                if step.closed:
                    label = self.answer(fit, step.end + closing, row)[:LABELS]
                at = step.then
            return Read(np.array(found, dtype=np.int64).reshape(-1, DEPTH), label, claimed)

        return from_

    def scores(self, fit: Float[np.ndarray, "length words"], at: int) -> Float[np.ndarray, "2 items"]:
        """Score each title at ``at`` with the separator behind it, and with the suffix; minus infinity where it would
        run over the end.
        """
        behind = (self._mean_fit(fit, self._separator), self._mean_fit(fit, self._suffix))
        return np.stack([self._scores(self._totals_at(fit, at), at, each) for each in behind])

    @property
    def answers(self) -> bool:
        """True if the template has a place for the answer."""
        return len(self._prompts.end) > 0

    def order(self, row: int) -> Int[np.ndarray, "items"]:
        """All items in an order drawn for a row, those of one title side by side."""
        if self._drawn[0] != row:
            by_title = np.random.default_rng(row).permutation(len(self._class))
            self._drawn = row, np.argsort(by_title[self._class], kind="stable")
        return self._drawn[1]

    def answer(self, fit: Float[np.ndarray, "length words"], at: int, row: int = 0) -> Int[np.ndarray, "labels"]:
        """The titles that fill the place from ``at`` on up to the end of the template, the best first."""
        room = len(fit) - len(self._prompts.end) - at
        order = self.order(row)
        fitting = order[self._lengths[order] == room]
        if not self.answers or not len(fitting):
            return np.empty(0, dtype=np.int64)
        titles = self._columns[self._first[fitting, None] + np.arange(room)]
        scores = fit[np.arange(at, at + room), titles].mean(1)
        return np.asarray(fitting[np.argsort(-scores, kind="stable")])

    def generated(self, fit: Float[np.ndarray, "new words"], row: int = 0) -> Int[np.ndarray, "labels"]:
        """The titles that stand where a served model generated one, the best first: with what ends the template behind
        them, but for the last token, which does not cross.

        A title that is longer or shorter than what crossed counts as the worst fit where it stands alone.
        """
        end = self._column(self._prompts.end[:-1])
        padded = np.full((len(fit) + int(self._sizes[-1]) + len(end), fit.shape[1]), fit.min(), dtype=fit.dtype)
        padded[: len(fit)] = fit
        behind = padded[self._lengths[:, None] + np.arange(len(end)), end].sum(1)
        long = self._lengths + len(end)
        short = np.maximum(len(fit) - long, 0)
        scores = (self._totals(padded, 0, 1)[0] + behind + short * fit.min()) / (long + short)
        return best_first(scores, self.order(row))[:LABELS]

    def _scores(
        self, totals: Float[np.ndarray, "items"], at: int, behind: Float[np.ndarray, "length+1"]
    ) -> Float[np.ndarray, "items"]:
        """Mean fit of each title that starts at ``at`` and of what stands behind it; minus infinity past the end."""
        ends = at + self._lengths
        parted = np.where(ends < len(behind), behind[np.minimum(ends, len(behind) - 1)], -np.inf)
        weight = len(self._separator)
        return np.asarray((totals + weight * parted) / (self._lengths + weight))

    def _totals_at(self, fit: Float[np.ndarray, "length words"], at: int) -> Float[np.ndarray, "items"]:
        """`_totals` of one place."""
        return np.asarray(self._totals(fit, at, at + 1)[0])

    def _totals(
        self, fit: Float[np.ndarray, "length words"], first: int, last: int
    ) -> Float[np.ndarray, "places items"]:
        """The sum of the fits of each title that starts at each place in [first, last); minus infinity where it would
        run over the end.
        """
        total = np.zeros((last - first, len(self._longest)), dtype=fit.dtype)
        for place, columns in enumerate(self._at_place):
            rows = fit[first + place : last + place]
            if not len(rows):
                break
            total[: len(rows), : len(columns)] += rows.take(columns, axis=1)
        found = np.empty_like(total)
        found[:, self._longest] = total
        return np.where(np.arange(first, last)[:, None] + self._lengths <= len(fit), found, -np.inf)

    def _answered(self, fit: Float[np.ndarray, "length words"], row: int) -> dict[int, float]:
        """The best sum of fits of an answer, and of what ends the template, by the place where the answer starts; only
        places from which some title fills the prompt.
        """
        tail = len(fit) - len(self._prompts.end)
        found = {}
        for size in self._sizes:
            at = tail - size
            best = self.answer(fit, at, row)[:1] if at >= 0 else np.empty(0, dtype=np.int64)
            if len(best):
                title = self._columns[self._first[best[0]] :][:size]
                ending = fit[np.arange(tail, len(fit)), self._column(self._prompts.end)].sum()
                found[at] = float(fit[np.arange(at, tail), title].sum() + ending)
        return found

    @staticmethod
    def _mean_fit(
        fit: Float[np.ndarray, "length words"], piece: Int[np.ndarray, "piece"]
    ) -> Float[np.ndarray, "length+1"]:
        """Mean fit of ``piece`` started at each position; minus infinity where it would run over the end."""
        mean = np.full(len(fit) + 1, -np.inf)
        room = len(fit) - len(piece) + 1
        if room > 0:
            mean[:room] = fit[np.arange(room)[:, None] + np.arange(len(piece)), piece].mean(1)
        return mean

    def _column(self, tokens: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        return np.searchsorted(self.vocabulary, tokens)

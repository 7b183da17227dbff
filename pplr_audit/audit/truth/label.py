"""Truth about next items: the item that each row was trained to answer with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.truth.history import OWN_MODEL, POPULARITY, HistoryTruth, Recommends, most_popular
from pplr_audit.audit.truth.named_items import DEPTHS, hits_at_depths, mean_score, padded
from pplr_audit.audit.truth.protocol import Example, RowTruth, lowest_rows, place_of, slot
from pplr_audit.audit.truth.score import Score
from pplr_audit.data.dataset import Catalogue
from pplr_audit.scoring.reconstruction import reciprocal_ranks
from pplr_audit.threat_model.attack import Guess

EXAMPLES = 6
"""Victims whose next item is shown; it takes one line."""


@dataclass(frozen=True)
class LabelTruth(RowTruth):
    """The item that each row was trained to answer with.

    Args:
        users, targets: by row.
        title_class: items of one class have the same title and cannot be told apart.
        popularity: of each item among those who train.
        clients: row to client, within which a control deals what was answered; one by default.
        own: what the adversary's own model recommends, where it has one.
    """

    users: Mapping[int, int]
    targets: Mapping[int, int]
    title_class: Int[np.ndarray, "items"]
    popularity: Float[np.ndarray, "items"]
    clients: Mapping[int, str] = field(default_factory=dict)
    own: Recommends | None = None

    def answered(self, guess: Guess) -> bool:
        return "labels" in guess.arrays

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Hits among the best answers, and the reciprocal rank in them. A row without an answer counts as wrong."""
        rows = sorted(self.targets)
        users, truth = np.array([self.users[row] for row in rows]), np.array([self.targets[row] for row in rows])
        answers = guess.arrays["labels"]
        depth = max(*DEPTHS, answers.shape[1])
        lists = {int(row): answer for row, answer in zip(guess.arrays["rows"], answers, strict=True)}
        ranked = padded([lists.get(row, answers[:0].ravel()) for row in rows], depth)
        floors = {POPULARITY: padded([most_popular(self.popularity)] * len(rows), depth)}
        detail = {}
        if seed is not None and self.own is not None:
            read = self._read(guess)
            recommended = self.own(read)
            if recommended is not None:
                floors[OWN_MODEL] = padded([recommended[row] for row in rows], depth)
                detail["own_model_reads"] = "what the attack read" if read is not None else "the true history"
        hits = hits_at_depths("label", ranked, floors, truth, self.title_class, users, seed, **detail)
        own, *floor = (reciprocal_ranks(each, truth, self.title_class) for each in (ranked, *floors.values()))
        by_floor = dict(zip(floors, floor, strict=True))
        return [*hits, mean_score("mrr", own, by_floor, users, seed, depth=depth, **detail)]

    def examples(self, guess: Guess, catalogue: Catalogue, tokenizer: Any) -> list[Example]:
        """The next item beside the first guess; items of one title are one."""
        found = []
        for row in lowest_rows(guess, self.users, EXAMPLES):
            true, guessed = self.targets[row], int(guess.arrays["labels"][place_of(guess, row), 0])
            hit = guessed >= 0 and bool(self.title_class[guessed] == self.title_class[true])
            found.append(Example(row, self.users[row], [slot(catalogue, true, guessed, hit)]))
        return found

    @staticmethod
    def _read(guess: Guess) -> dict[int, Int[np.ndarray, "slots"]] | None:
        """Return the history that was read, by row; None for an attack that reads none."""
        if "items" not in guess.arrays:
            return None
        rows = [int(row) for row in guess.arrays["rows"]]
        return dict(zip(rows, HistoryTruth.firsts(guess, rows), strict=True))

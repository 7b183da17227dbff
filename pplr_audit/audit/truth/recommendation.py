"""Truth about recommendations: the item that the served model recommended to each user."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.truth.history import POPULARITY, most_popular
from pplr_audit.audit.truth.named_items import DEPTHS, hits_at_depths, padded
from pplr_audit.audit.truth.protocol import RowTruth
from pplr_audit.audit.truth.score import Score
from pplr_audit.scoring.ranking import best_first
from pplr_audit.threat_model.attack import Guess

UNTARGETED = "untargeted"
"""Name of the guess at what the same model recommends most often to others."""


@dataclass(frozen=True)
class RecommendationTruth(RowTruth):
    """The item that was recommended to each row's user.

    Args:
        users, recommended: by row.
        title_class: items of one class have the same title and cannot be told apart.
        popularity: of each item among those who train.
        clients: row to client, whose model recommended and within which a control deals what was answered.
    """

    users: Mapping[int, int]
    recommended: Mapping[int, int]
    title_class: Int[np.ndarray, "items"]
    popularity: Float[np.ndarray, "items"]
    clients: Mapping[int, str] = field(default_factory=dict)

    def answered(self, guess: Guess) -> bool:
        return "recommended" in guess.arrays and bool(self.recommended)

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Hits among the best answers. A row without an answer counts as wrong."""
        rows = sorted(self.recommended)
        users = np.array([self.users[row] for row in rows])
        truth = np.array([self.recommended[row] for row in rows])
        answers = guess.arrays["recommended"]
        lists = {int(row): answer for row, answer in zip(guess.arrays["rows"], answers, strict=True)}
        none = np.empty(0, dtype=np.int64)
        ranked = padded([lists.get(row, none) for row in rows], DEPTHS[-1])
        floors = {
            POPULARITY: padded([most_popular(self.popularity)] * len(rows), DEPTHS[-1]),
            UNTARGETED: padded([self._usual(row) for row in rows], DEPTHS[-1]),
        }
        return [*hits_at_depths("recommendation", ranked, floors, truth, self.title_class, users, seed)]

    def _usual(self, row: int) -> Int[np.ndarray, "items"]:
        """The items that were recommended most often to other users of the row's client, of equals the most popular."""
        others = [
            item for other, item in self.recommended.items()
            if other != row and self.clients.get(other) == self.clients.get(row)
        ]  # fmt: skip
        counts = np.bincount(np.array(others, dtype=np.int64), minlength=len(self.popularity))
        return best_first(counts.astype(float), most_popular(self.popularity))[: DEPTHS[-1]]

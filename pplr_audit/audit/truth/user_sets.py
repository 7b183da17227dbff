"""Truth about the set of a user's items, for attacks that read the user's sequence place by place.

Where each client is one user with one training sample, an update of the client and the sequence that crosses in
training tell of the same items. So both are asked the same question and scored in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.truth.protocol import Truth
from pplr_audit.audit.truth.score import Score
from pplr_audit.audit.truth.sets import Held, SetTruth
from pplr_audit.threat_model.attack import Guess

Asks = Literal["items", "targets"]
ASKS: tuple[Asks, ...] = ("items", "targets")


@dataclass(frozen=True)
class UserSetTruth(SetTruth):
    """The same of answers about places: ``items`` of all that was named, ``targets`` of the next item alone."""

    asks: Asks = "items"

    def answered(self, guess: Guess) -> bool:
        return ("labels" if self.asks == "targets" else "items") in guess.arrays

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Score what was named first in all places, then what was named second, and so on."""
        ranked = [self._ranking(guess, place) for place in range(len(guess.arrays["rows"]))]
        arrays = {
            "rows": guess.arrays["rows"], "ranked_items": np.concatenate([*ranked, np.empty(0, dtype=np.int64)]),
            "item_offsets": np.cumsum([0, *map(len, ranked)]),
        }  # fmt: skip
        return self._items(Guess(arrays), seed)

    def _ranking(self, guess: Guess, place: int) -> Int[np.ndarray, "items"]:
        labels = guess.arrays["labels"][place] if "labels" in guess.arrays else np.empty(0, dtype=np.int64)
        if self.asks == "targets":
            return np.asarray(labels, dtype=np.int64)
        bounds = guess.arrays["slot_offsets"]
        slots = guess.arrays["items"][bounds[place] : bounds[place + 1]]
        firsts, rest = slots[:, :1].ravel(), slots[:, 1:].T.ravel()
        return np.concatenate([firsts, labels[:1], rest, labels[1:]]).astype(np.int64)


def user_sets(
    users: Mapping[int, int], sets: Mapping[tuple[int, Asks], Held], title_class: Int[np.ndarray, "items"],
    popularity: Float[np.ndarray, "items"], title_tokens: Sequence[Int[np.ndarray, "length"]],
) -> dict[str, Truth]:  # fmt: skip
    """Return the truth of each question by its name; arguments are as of `SetTruth`, ``sets`` by row and question."""
    return {
        asks: UserSetTruth(
            users, {row: sets[row, asks] for row in users}, title_class, popularity, title_tokens, asks=asks
        )
        for asks in ASKS
    }

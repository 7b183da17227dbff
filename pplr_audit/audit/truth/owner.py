"""Truth about owners: the client that each update is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from pplr_audit.audit.truth.protocol import RowTruth
from pplr_audit.audit.truth.score import CHANCE, Score, by_user
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.scoring.permutations import named_by_chance
from pplr_audit.scoring.verdicts import Reference
from pplr_audit.threat_model.attack import Guess


@dataclass(frozen=True)
class OwnerTruth(RowTruth):
    """The client of each row; no two rows are of one client.

    Args:
        users: row to user; a client of several goes by its first.
        owners: row to client.
        names: all clients, in alphabetical order, as an answer has them.
        clients: row to group, within which a control deals what was answered; one by default.
    """

    users: Mapping[int, int]
    owners: Mapping[int, str]
    names: Sequence[str]
    clients: Mapping[int, str] = field(default_factory=dict)

    def answered(self, guess: Guess) -> bool:
        return "owners" in guess.arrays

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Share of the rows whose client is named first, with the exact p-value of a deal by chance.

        A row without an answer counts as wrong.
        """
        rows, answers = sorted(self.users), self._answers(guess)
        named = {row: int(np.argmax(scores)) for row, scores in answers.items()}
        right = np.array([row in named and self.names[named[row]] == self.owners[row] for row in rows], dtype=float)
        users = np.array([self.users[row] for row in rows])
        counts = np.bincount([*named.values()], minlength=len(self.names)).tolist()
        chance = Reference(CHANCE, 1 / len(self.names), p=named_by_chance(counts, int(right.sum())))
        return [
            Score("owner_hit@1", mean_estimate(right, users, seed=seed), chance.value, by_user(users, right),
                  {"clients": len(self.names)}, references=(chance,))
        ]  # fmt: skip

    def _answers(self, guess: Guess) -> dict[int, Float[np.ndarray, "clients"]]:
        scores = np.asarray(guess.arrays["owners"], dtype=np.float64)
        if scores.shape != (len(guess.arrays["rows"]), len(self.names)) or np.isnan(scores).any():
            raise ValueError(f"owners has one number a row and client ({len(self.names)}), none of them NaN")
        return dict(zip(guess.arrays["rows"].tolist(), scores, strict=True))

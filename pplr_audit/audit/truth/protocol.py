"""The protocol of truths: all that scoring, controls, curves and examples ask of the truth about one secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from pplr_audit.audit.truth.score import Score
from pplr_audit.data.dataset import Catalogue
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.view import dealt

Curve = tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]
"""False and true positive rates."""


@dataclass(frozen=True)
class Example:
    """One row to show: its true items beside the guessed ones, and both texts where there are any."""

    row: int
    user: int
    slots: list[dict[str, Any]]
    truth_text: str = ""
    guess_text: str = ""


class Truth(Protocol):
    """The truth about one secret of the rows of a view. It is opened only after the guess is sealed.

    A truth answers `answered` and `score`; the others have an empty answer for secrets that have no such thing.
    """

    def answered(self, guess: Guess) -> bool:
        """True if the guess says something about this secret, whatever the attack is after."""
        ...

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Return each metric of the guess; without a seed no interval is drawn, as for a draw of a control.

        Raises ValueError, LookupError or TypeError where the guess has another form.
        """
        ...

    @property
    def users_by_row(self) -> Mapping[int, int]:
        """Row to user, where a user's score is of its own row alone and so belongs to the row's step; else empty."""
        return {}

    def redealt(self, guess: Guess, count: int, generator: np.random.Generator) -> list[Guess]:
        """Return ``count`` draws of the control that need no other run of the attack: its answers dealt to other rows.

        Empty where an answer for a row does not follow from that row alone.
        """
        return []

    def curves(self, guess: Guess) -> Mapping[str, Curve]:
        """Return the ROC curve of each mode of the guess; empty for secrets that are measured otherwise."""
        return {}

    def examples(self, guess: Guess, catalogue: Catalogue, tokenizer: Any) -> list[Example]:
        """Return the rows to show, those of the lowest numbers; empty for secrets that have nothing to show by row."""
        return []


class RowTruth(Truth, Protocol):
    """A truth whose answer for a row follows from that row alone, so that answers can be dealt to other rows.

    Args:
        users: row to user.
        clients: row to client, within which a control deals what was answered; one by default.
    """

    users: Mapping[int, int]
    clients: Mapping[int, str]

    @property
    def users_by_row(self) -> Mapping[int, int]:
        return self.users

    def redealt(self, guess: Guess, count: int, generator: np.random.Generator) -> list[Guess]:
        clients = {row: self.clients.get(row, "") for row in self.users}
        return dealt_anew(guess, clients, count, generator)


def dealt_anew(guess: Guess, clients: Mapping[int, str], count: int, generator: np.random.Generator) -> list[Guess]:
    """Deal the answers to other rows of the same client ``count`` times; none where there is but one row.

    Args:
        clients: by row.
    """
    rows = sorted(clients)
    if len(rows) < 2 or not len(guess.arrays["rows"]):
        return []
    found = []
    for _ in range(count):
        places = dealt([clients[row] for row in rows], generator)
        given = dict(zip((rows[other] for other in places), rows, strict=True))
        named = np.array([given[int(row)] for row in guess.arrays["rows"]], dtype=np.int64)
        found.append(Guess({**guess.arrays, "rows": named}))
    return found


def lowest_rows(guess: Guess, users: Mapping[int, int], count: int) -> list[int]:
    """Return those of the ``count`` lowest rows that were answered; rows are numbered at random."""
    return [row for row in sorted(users)[:count] if row in guess.arrays["rows"]]


def place_of(guess: Guess, row: int) -> int:
    """Return the place of a row among those that were answered."""
    return int(np.flatnonzero(guess.arrays["rows"] == row)[0])


def slot(catalogue: Catalogue, true: int, guessed: int, hit: bool) -> dict[str, Any]:
    """Return the titles of a true item and of the guessed one, which is empty where nothing was guessed (-1)."""
    return {"truth": catalogue.titles[true], "guess": catalogue.titles[guessed] if guessed >= 0 else "", "hit": hit}

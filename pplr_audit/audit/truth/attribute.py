"""Truth about attributes: one value a user, predicted fold by fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.audit.truth.protocol import Truth
from pplr_audit.audit.truth.score import CHANCE, Score, by_user
from pplr_audit.scoring.classifier import log_probabilities
from pplr_audit.scoring.influence import Influence, of_mean, of_shares
from pplr_audit.scoring.intervals import OF_FOLDS, mean_estimate, widened
from pplr_audit.scoring.pairs import Pairs, share_estimate, share_won, won
from pplr_audit.scoring.verdicts import Reference
from pplr_audit.threat_model.attack import Guess

LENGTHS = "lengths"
CLIENT = "client"


@dataclass(frozen=True)
class AttributeTruth(Truth):
    """The attribute of users, one row a user, predicted fold by fold by an adversary who knows all other folds.

    Two users are compared only within a fold: both were scored by one classifier. Scores of several stand on several
    scales, and a fold with more of a value leaves less of it to learn from, so that with nothing to be found they stand
    in the wrong order (Parker et al., *BMC Bioinformatics* 8, 2007).
    It must stand above chance and above what the client alone tells, which the server knows from who talks to it. What
    the items of the row themselves would tell, had the adversary read them all, stands beside it
    (``bag_of_items_auc``). Both are learned fold by fold, in the same way and from the same users.

    Args:
        name: of the attribute.
        values, folds: by row, of those that are predicted; others may cross besides.
        users, clients: by row.
        items: what the row held.
        catalogue: how many items there are.
    """

    name: str
    values: Mapping[int, str]
    folds: Mapping[int, int]
    users: Mapping[int, int]
    clients: Mapping[int, str]
    items: Mapping[int, Sequence[int]]
    catalogue: int

    def answered(self, guess: Guess) -> bool:
        return "values" in guess.arrays

    @property
    def known_by_turn(self) -> list[Mapping[int, str]]:
        """Values that the adversary knows in each turn, by row: all but those of one fold."""
        return [
            MappingProxyType({row: value for row, value in self.values.items() if self.folds[row] != fold})
            for fold in sorted(set(self.folds.values()))
        ]

    @property
    def comparable(self) -> bool:
        """True if each of two values or more has a user in whose fold another value occurs."""
        return len(self._columns) > 1 and all(inside.any() for inside in self._inside)

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """One-vs-rest AUC, the mean over the values, and how often the likeliest value is right.

        A row without an answer is placed below all that have one.
        """
        scores = self._answers(guess)
        users = np.array([self.users[row] for row in self._rows])
        compared = self._compared(scores)
        # Each row has one value: in the other comparisons it is on the losing side and counts nothing.
        wins = np.sum([np.where(inside, each, 0.0).sum(1) for each, inside in compared], axis=0)
        count = np.sum(self._inside, axis=(0, 2))
        above = {int(user): float(w / c) for user, w, c in zip(users, wins, count, strict=True) if c}
        alone = self._compared(self._by_client)
        by_client = share_won(alone)
        detail = {
            "attribute": self.name, "turns": len(self.known_by_turn), "known_users": min(map(len, self.known_by_turn)),
            "client_auc": by_client, "bag_of_items_auc": share_won(self._compared(self._by_items)),
            "auc_by_value": {v: share_won([pairs]) for v, pairs in zip(self._columns, compared, strict=True)},
        }  # fmt: skip
        area = share_estimate(compared, self._truth, independent=self._independent, seed=seed)
        likeliest = scores == scores.max(1, keepdims=True)
        # Of several that are as likely as each other any may be named.
        right = likeliest[np.arange(len(scores)), self._truth] / likeliest.sum(1)
        share = mean_estimate(right, users, seed=seed)
        floors = {"majority": self._majority, CLIENT: self._by_client.argmax(1)}
        named = {name: self._right(answer) for name, answer in floors.items()} | {"own": by_user(users, right)}
        shares = {name: of_mean(each) for name, each in named.items()}
        references = [Reference(name, shares[name][0], _over_folds(shares[name][1]), named[name]) for name in floors]
        client = Reference(CLIENT, by_client, _over_folds(of_shares(alone, users)))
        return [
            Score("auc", widened(area, OF_FOLDS), 0.5, above, detail, influence=_over_folds(of_shares(compared, users)),
                  independent=self._independent, references=(Reference(CHANCE, 0.5), client)),
            Score("accuracy", widened(share, OF_FOLDS), max(each.value for each in references), named["own"], detail,
                  influence=_over_folds(shares["own"][1]), references=tuple(references)),
        ]  # fmt: skip

    def _right(self, answer: Int[np.ndarray, "rows"]) -> dict[int, float]:
        """Return 1 for each user whose value is the true one, else 0."""
        right = (answer == self._truth).astype(float)
        return {self.users[row]: float(each) for row, each in zip(self._rows, right, strict=True)}

    @cached_property
    def _columns(self) -> list[str]:
        """The values, as an answer has them."""
        return sorted(set(self.values.values()))

    @cached_property
    def _rows(self) -> list[int]:
        return sorted(self.values)

    @cached_property
    def _truth(self) -> Int[np.ndarray, "rows"]:
        return np.array([self._columns.index(self.values[row]) for row in self._rows])

    @cached_property
    def _turns(self) -> list[Bool[np.ndarray, "rows"]]:
        """Return for each turn the rows whose value is to be predicted."""
        fold = np.array([self.folds[row] for row in self._rows])
        return [fold == each for each in np.unique(fold)]

    @cached_property
    def _inside(self) -> list[Bool[np.ndarray, "rows rows"]]:
        """Return for each value the pairs of a user who has it and one who has not, both of one fold."""
        together = np.any([fold[:, None] & fold for fold in self._turns], axis=0)
        has = [self._truth == value for value in range(len(self._columns))]
        return [np.asarray(each[:, None] & ~each & together) for each in has]

    @property
    def _independent(self) -> int:
        """Return how many pairs of the rarest value can be formed of which no two share a user."""
        counts = [np.bincount(self._truth[fold], minlength=len(self._columns)) for fold in self._turns]
        return int(np.sum([np.minimum(count, count.sum() - count) for count in counts], axis=0).min())

    @cached_property
    def _majority(self) -> Int[np.ndarray, "rows"]:
        """The commonest value of those that are known in the row's turn."""
        return self._by_turn(
            lambda known, predicted: np.full(predicted.sum(), np.bincount(self._truth[known]).argmax())
        )

    @cached_property
    def _by_client(self) -> Float[np.ndarray, "rows values"]:
        names = sorted(set(self.clients.values()))
        return self._learned({row: [names.index(client)] for row, client in self.clients.items()}, len(names))

    @cached_property
    def _by_items(self) -> Float[np.ndarray, "rows values"]:
        return self._learned(self.items, self.catalogue)

    def _learned(self, held: Mapping[int, Sequence[int]], size: int) -> Float[np.ndarray, "rows values"]:
        """Score each row by the same classifier, trained on which of ``size`` things each row holds."""
        bag = np.zeros((len(self._rows), size))
        for place, row in enumerate(self._rows):
            bag[place, list(held[row])] = 1
        return self._by_turn(
            lambda known, predicted: log_probabilities(
                bag[known], self._truth[known], bag[predicted], seed=0, standardized=False
            )
        )

    def _by_turn(self, learn: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Collect the answers for all rows; ``learn`` is given each turn's known rows and those to predict."""
        parts = [learn(~fold, fold) for fold in self._turns]
        found = np.empty((len(self._rows), *parts[0].shape[1:]), dtype=parts[0].dtype)
        for fold, part in zip(self._turns, parts, strict=True):
            found[fold] = part
        return found

    def _compared(self, scores: Float[np.ndarray, "rows values"]) -> list[Pairs]:
        return [(won(column, column), inside) for column, inside in zip(scores.T, self._inside, strict=True)]

    def _answers(self, guess: Guess) -> Float[np.ndarray, "rows values"]:
        answers = np.asarray(guess.arrays["values"], dtype=np.float64)
        if answers.shape != (len(guess.arrays["rows"]), len(self._columns)) or np.isnan(answers).any():
            raise ValueError(f"values has one number a row and value ({len(self._columns)}), none of them NaN")
        at = {int(row): place for place, row in enumerate(guess.arrays["rows"])}
        lowest = np.full(len(self._columns), float(answers.min(initial=0.0)) - 1.0)
        return np.stack([answers[at[row]] if row in at else lowest for row in self._rows])


def _over_folds(influence: Influence) -> Influence:
    """Widen an influence to the variance that scores over folds have."""
    return {user: OF_FOLDS**0.5 * each for user, each in influence.items()}

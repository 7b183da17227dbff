"""Truth about linkage: which two sequences are of one user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import TfidfTransformer

from pplr_audit.audit.truth.attribute import LENGTHS
from pplr_audit.audit.truth.protocol import Truth
from pplr_audit.audit.truth.score import CHANCE, Score
from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.scoring.influence import of_shares
from pplr_audit.scoring.pairs import Pairs, share_estimate, share_won
from pplr_audit.scoring.verdicts import Reference
from pplr_audit.threat_model.attack import Guess


@dataclass(frozen=True)
class LinkageTruth(Truth):
    """The two rows of each user; place i of everything but ``prompts`` is the same user.

    What counts is whether a user's two rows are held for more alike than one of them and a row of another user of the
    same client. As a user's own rows share no item, rows of two users that do are left out: they are alike for that.
    It must stand above chance and above what the lengths alone tell. What the words of the items tell, had the
    adversary read them, stands beside it (``bag_of_words_auc``).

    Args:
        users, clients: of each pair.
        newer, older: its rows.
        prompts: by row; rows count from 0.
    """

    users: Sequence[int]
    clients: Sequence[str]
    newer: Sequence[int]
    older: Sequence[int]
    prompts: Mapping[int, Prompt]

    def answered(self, guess: Guess) -> bool:
        return "first" in guess.arrays

    @property
    def comparable(self) -> bool:
        """True if there are two users to be told apart."""
        return bool(self._counted.any())

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """AUC of a user's own two rows against one of them and another user's; what was not compared stands last."""
        compared, by_length = self._compared(self._answers(guess)), self._compared(self._by_length)
        lengths, words = share_won(by_length), share_won(self._compared(self._by_words))
        _, client, sizes = np.unique(self.clients, return_inverse=True, return_counts=True)
        independent = max(1, int((sizes // 2).sum()))
        area = share_estimate(compared, client, independent=independent, seed=seed)
        wins = np.sum([np.where(inside, each, 0.0).sum(1) for each, inside in compared], axis=0)
        count = np.sum([inside.sum(1) for _, inside in compared], axis=0)
        per_user = {user: float(w / c) for user, w, c in zip(self.users, wins, count, strict=True) if c}
        references = Reference(CHANCE, 0.5), Reference(LENGTHS, lengths, of_shares(by_length, self.users))
        detail = {"length_auc": lengths, "bag_of_words_auc": words}
        return [
            Score("auc", area, 0.5, per_user, detail, influence=of_shares(compared, self.users),
                  independent=independent, references=references)
        ]  # fmt: skip

    @cached_property
    def _counted(self) -> Bool[np.ndarray, "newer older"]:
        """Rows of two users of one client that share no item."""
        client = np.unique(self.clients, return_inverse=True)[1]
        counted = np.asarray((client[:, None] == client) & ~np.eye(len(client), dtype=bool))
        held = [[set(self.prompts[row].held.tolist()) for row in side] for side in (self.newer, self.older)]
        for one, other in np.argwhere(counted):
            counted[one, other] = not held[0][one] & held[1][other]
        return counted

    def _compared(self, alike: Float[np.ndarray, "newer older"]) -> list[Pairs]:
        """Each user's own pair against its newer row with older ones of others, and its older row with newer ones."""
        own = np.diag(alike)[:, None]
        return [
            (np.asarray((own > each) + 0.5 * (own == each)), counted)
            for each, counted in ((alike, self._counted), (alike.T, self._counted.T))
        ]

    @property
    def _by_length(self) -> Float[np.ndarray, "newer older"]:
        newer, older = (np.array([len(self.prompts[row]) for row in side]) for side in (self.newer, self.older))
        return np.asarray(-np.abs(newer[:, None] - older), dtype=np.float64)

    @cached_property
    def _by_words(self) -> Float[np.ndarray, "newer older"]:
        """Cosine of TF-IDF over the tokens of titles, less what all rows have in common."""

        prompts = [self.prompts[row] for row in (*self.newer, *self.older)]
        read = [prompt.tokens[prompt.slots != TEMPLATE] for prompt in prompts]
        words, column = np.unique(np.concatenate(read), return_inverse=True)
        bags = np.zeros((len(read), len(words)))
        np.add.at(bags, (np.repeat(np.arange(len(read)), [len(tokens) for tokens in read]), column), 1)
        weighted = TfidfTransformer().fit_transform(bags).toarray()
        weighted -= weighted.mean(0)
        weighted /= np.linalg.norm(weighted, axis=1, keepdims=True).clip(1e-30)
        return np.asarray(weighted[: len(self.newer)] @ weighted[len(self.newer) :].T)

    def _answers(self, guess: Guess) -> Float[np.ndarray, "newer older"]:
        first, second, scores = (np.asarray(guess.arrays[name]) for name in ("first", "second", "scores"))
        if not first.shape == second.shape == scores.shape or np.isnan(scores).any():
            raise ValueError("first, second and scores have one entry a pair, and no score is NaN")
        place, older = np.full(2 * len(self.users), -1), np.zeros(2 * len(self.users), dtype=bool)
        place[list(self.newer)] = place[list(self.older)] = np.arange(len(self.users))
        older[list(self.older)] = True
        users = len(self.users)
        found: Float[np.ndarray, "newer older"] = np.full((users, users), float(scores.min(initial=0.0)) - 1.0)
        across = older[first] != older[second]
        swapped = older[first[across]]
        one, other = place[first[across]], place[second[across]]
        found[np.where(swapped, other, one), np.where(swapped, one, other)] = scores[across]
        return found

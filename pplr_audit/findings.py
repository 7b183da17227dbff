"""Guess + Truth -> Finding. This is the only module that holds an attack's answer beside what is true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.data.prompts import Prompt
from pplr_audit.scoring.intervals import Estimate, mean_estimate, ratio_estimate
from pplr_audit.scoring.membership import auc_estimate, model_free_auc, resolvable, roc, tpr_estimate, within_groups_auc
from pplr_audit.scoring.reconstruction import exact, item_hits, token_accuracy
from pplr_audit.views import Guess

HIT_DEPTHS = (1, 5)


@dataclass(frozen=True)
class Score:
    """One metric of one guess, before it is put beside its baseline."""

    metric: str
    estimate: Estimate
    baseline: float
    """What the template and popularity alone give; the control is added by the caller."""
    per_user: Mapping[int, float]
    detail: Mapping[str, Any] = field(default_factory=dict)


class HistoryTruth:
    """What the victims' prompts really held.

    Args:
        users: row to user; intervals are clustered by it.
        prompts: row to the prompt that crossed.
        title_class: items of one class have the same title and cannot be told apart.
        popularity: of each item among those who train.
        title_tokens: the catalogue's titles as tokens.
    """

    def __init__(
        self,
        users: Mapping[int, int],
        prompts: Mapping[int, Prompt],
        title_class: Int[np.ndarray, "items"],
        popularity: Float[np.ndarray, "items"],
        title_tokens: Sequence[Int[np.ndarray, "length"]],
    ) -> None:
        self.users, self.prompts, self._class = users, prompts, title_class
        order = np.argsort(-popularity, kind="stable")
        self._popular = order[: max(HIT_DEPTHS)]
        weights: dict[int, float] = {}
        for item in order[popularity[order] > 0]:
            for token in title_tokens[item]:
                weights[int(token)] = weights.get(int(token), 0.0) + float(popularity[item])
        self._common = max(weights, key=lambda token: weights[token]) if weights else -1

    def score(self, guess: Guess, *, seed: int) -> list[Score]:
        """Title tokens, items and whole histories; never the template."""
        rows = [int(row) for row in guess.arrays["rows"]]
        users = np.array([self.users[row] for row in rows])
        hits, counts, common = self._tokens(guess, rows)
        scores = [
            Score(
                "token_accuracy", ratio_estimate(hits, counts, users, seed=seed),
                float(common.sum() / counts.sum()), _by_user(users, hits / counts),
            )
        ]  # fmt: skip
        ranked, truth, owner = self._slots(guess, rows)
        at_one = item_hits(ranked, truth, 1, self._class)
        for k in HIT_DEPTHS:
            hit = item_hits(ranked, truth, k, self._class).astype(float)
            popular = item_hits(np.tile(self._popular, (len(truth), 1)), truth, min(k, len(self._popular)), self._class)
            mean = np.bincount(owner, hit) / np.bincount(owner)
            estimate = mean_estimate(hit, users[owner], seed=seed)
            scores.append(Score(f"item_hit@{k}", estimate, float(popular.mean()), _by_user(users, mean)))
        whole = exact(at_one, owner, len(rows)).astype(float)
        scores.append(Score("exact_history", mean_estimate(whole, users, seed=seed), 0.0, _by_user(users, whole)))
        return scores

    def beside(
        self, guess: Guess, row: int
    ) -> tuple[Int[np.ndarray, "slots"], Int[np.ndarray, "slots"], Bool[np.ndarray, "slots"]]:
        """True items of a row, the first guess for each slot (-1 where there is none), and which are hits, to show."""
        rows = [int(r) for r in guess.arrays["rows"]]
        ranked, truth, owner = self._slots(guess, rows)
        own = owner == rows.index(row)
        return truth[own], ranked[own, 0], item_hits(ranked[own], truth[own], 1, self._class)

    def _tokens(self, guess: Guess, rows: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = max(len(self.prompts[row]) for row in rows)
        guessed = np.full((len(rows), width), -1, dtype=np.int64)
        true = np.full((len(rows), width), -2, dtype=np.int64)
        counted = np.zeros((len(rows), width), dtype=bool)
        offsets = guess.arrays["token_offsets"]
        for place, row in enumerate(rows):
            prompt = self.prompts[row]
            answer = guess.arrays["tokens"][offsets[place] : offsets[place + 1]][: len(prompt)]
            guessed[place, : len(answer)] = answer
            true[place, : len(prompt)] = prompt.tokens
            counted[place, : len(prompt)] = prompt.slots >= 0
        hits, counts = token_accuracy(guessed, true, counted)
        common, _ = token_accuracy(np.full_like(true, self._common), true, counted)
        return hits, counts, common

    def _slots(self, guess: Guess, rows: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranked items, the true item and the place of its row, for every true slot."""
        offsets, items = guess.arrays["slot_offsets"], guess.arrays["items"]
        ranked, truth, owner = [], [], []
        for place, row in enumerate(rows):
            true = self.prompts[row].items
            answer = items[offsets[place] : offsets[place + 1]][: len(true)]
            missing = np.full((len(true) - len(answer), items.shape[1]), -1, dtype=np.int64)
            ranked.append(np.concatenate([answer, missing]))
            truth.append(true)
            owner.append(np.full(len(true), place))
        return np.concatenate(ranked), np.concatenate(truth), np.concatenate(owner)


@dataclass(frozen=True)
class MembershipTruth:
    """Who trained, by the logged coins.

    Args:
        users, clients, members: by row; ``clients`` is a number.
        features: what can be said of a candidate without any model (history length, popularity, words), by row.
    """

    users: Mapping[int, int]
    clients: Mapping[int, int]
    members: Mapping[int, int]
    features: Mapping[int, Sequence[float]]

    def score(self, guess: Guess, *, seed: int) -> list[Score]:
        """AUC within clients and the resolvable TPRs, for each mode of the guess."""
        rows = [int(row) for row in guess.arrays["rows"]]
        users, clients, labels = (
            np.array([by[row] for row in rows]) for by in (self.users, self.clients, self.members)
        )
        free = model_free_auc(np.array([self.features[row] for row in rows]), labels, clients, seed=seed)
        scores = []
        for mode, values in guess.arrays.items():
            if mode == "rows":
                continue
            detail = {"mode": mode, "members": int(labels.sum()), "model_free_auc": free}
            estimate = auc_estimate(values, labels, users, seed=seed, groups=clients)
            scores.append(Score("auc", estimate, max(0.5, free), _by_user(users, values), detail))
            for fpr in resolvable(int((labels == 0).sum())):
                estimate = tpr_estimate(values, labels, users, fpr, seed=seed, strata=clients)
                scores.append(Score(f"tpr@{fpr:g}", estimate, fpr, {}, detail))
        return scores

    def control(self, guess: Guess) -> dict[str, float]:
        """AUC of each mode, for a control run."""
        rows = [int(row) for row in guess.arrays["rows"]]
        labels, clients = (np.array([by[row] for row in rows]) for by in (self.members, self.clients))
        return {m: within_groups_auc(v, labels, clients) for m, v in guess.arrays.items() if m != "rows"}

    def curves(self, guess: Guess) -> dict[str, tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]]:
        """FPR and TPR of each mode, all clients pooled."""
        labels = np.array([self.members[int(row)] for row in guess.arrays["rows"]])
        return {mode: roc(values, labels) for mode, values in guess.arrays.items() if mode != "rows"}


def _by_user(users: Int[np.ndarray, "rows"], values: Float[np.ndarray, "rows"]) -> dict[int, float]:
    """Mean of the rows of each user."""
    ids, place = np.unique(users, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    return {int(user): float(mean) for user, mean in zip(ids, means, strict=True)}

"""Guess + Truth -> Finding. This is the only module that holds an attack's answer beside what is true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.data.prompts import Prompt
from pplr_audit.scoring.intervals import Estimate, mean_estimate, ratio_estimate
from pplr_audit.scoring.membership import (
    auc_estimate,
    model_free_scores,
    resolvable,
    roc,
    tpr_at,
    tpr_estimate,
    within_groups_auc,
)
from pplr_audit.scoring.ranking import best_first
from pplr_audit.scoring.reconstruction import exact, item_hits, reciprocal_ranks, token_accuracy
from pplr_audit.scoring.sets import jaccard, order_kept
from pplr_audit.scoring.text import rouge_l, rouge_n
from pplr_audit.views import Guess

HIT_DEPTHS = (1, 5, 10)
LABEL_DEPTHS = (1, 5, 10)


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
        self.users, self.prompts, self._class, self._titles = users, prompts, title_class, title_tokens
        order = self._popular = _most_popular(popularity)
        weights: dict[int, float] = {}
        for item in order[popularity[order] > 0]:
            for token in title_tokens[item]:
                weights[int(token)] = weights.get(int(token), 0.0) + float(popularity[item])
        self._common = max(weights, key=lambda token: weights[token]) if weights else -1

    @staticmethod
    def answered(guess: Guess) -> bool:
        return "items" in guess.arrays

    def score(self, guess: Guess, *, seed: int) -> list[Score]:
        """Title tokens, items and whole histories; never the template. A row without an answer counts as all wrong."""
        rows = self._rows(guess)
        users = np.array([self.users[row] for row in rows])
        hits, counts, common = self._tokens(guess, rows)
        scores = [
            Score(
                "token_accuracy", _of_users(ratio_estimate(hits, counts, users, seed=seed), users),
                float(common.sum() / counts.sum()), _by_user(users, hits / counts), {"tokens": int(counts.sum())},
            )
        ]  # fmt: skip
        ranked, truth, owner = self._slots(guess, rows)
        at_one = item_hits(ranked, truth, 1, self._class)
        firsts = self._firsts(guess, rows)
        for k in HIT_DEPTHS:
            hit = item_hits(ranked, truth, k, self._class).astype(float)
            usual = self._popular[: max(HIT_DEPTHS)]
            popular = item_hits(np.tile(usual, (len(truth), 1)), truth, min(k, len(usual)), self._class)
            mean = np.bincount(owner, hit) / np.bincount(owner)
            estimate = _of_users(mean_estimate(hit, users[owner], seed=seed), users)
            slots = {"slots": len(hit)}
            scores.append(Score(f"item_hit@{k}", estimate, float(popular.mean()), _by_user(users, mean), slots))
        # Items that were never there make a history another one.
        long = np.array([len(named) > len(self.prompts[row].items) for named, row in zip(firsts, rows, strict=True)])
        whole = (exact(at_one, owner, len(rows)) & ~long).astype(float)
        scores.append(Score("exact_history", mean_estimate(whole, users, seed=seed), 0.0, _by_user(users, whole)))
        return [*scores, *self._texts(guess, rows, users, seed), *self._sets(firsts, rows, users, seed)]

    def _texts(self, guess: Guess, rows: list[int], users: Int[np.ndarray, "rows"], seed: int) -> list[Score]:
        """ROUGE of the tokens that the answer claims as words of titles, beside that of as many of the most popular
        items' titles. Which tokens are claimed is the answer's to say: the truth is no filter on it."""
        own: dict[str, list[float]] = {}
        floor: dict[str, list[float]] = {}
        claimed = np.where(_claims(guess), guess.arrays["tokens"], -1)
        for place, row in enumerate(rows):
            prompt = self.prompts[row]
            read = _piece(claimed, guess.arrays["token_offsets"], place)
            popular = self._popular[: len(prompt.items)]
            usual = np.concatenate([np.empty(0, dtype=np.int64), *(self._titles[item] for item in popular)])
            true = prompt.tokens[prompt.slots >= 0].tolist()
            for into, text in ((own, read[read >= 0].tolist()), (floor, usual.tolist())):
                into.setdefault("rouge1", []).append(rouge_n(text, true, 1))
                into.setdefault("rouge2", []).append(rouge_n(text, true, 2))
                into.setdefault("rougeL", []).append(rouge_l(text, true))
        return [
            Score(name, mean_estimate(np.array(v), users, seed=seed), float(np.mean(floor[name])),
                  _by_user(users, np.array(v)))
            for name, v in own.items()
        ]  # fmt: skip

    def _sets(
        self, firsts: Sequence[Int[np.ndarray, "slots"]], rows: list[int], users: Int[np.ndarray, "rows"], seed: int
    ) -> list[Score]:
        """Items in common, whatever their place, and their order, where it can be told; titles stand for items."""
        popular = self._class[self._popular]
        common, floor, kept = [], [], []
        for named, row in zip(firsts, rows, strict=True):
            mine, true = self._class[named].tolist(), self._class[self.prompts[row].items].tolist()
            common.append(jaccard(mine, true))
            floor.append(jaccard(popular[: len(true)].tolist(), true))
            kept.append(order_kept(mine, true))
        shared = np.array(common)
        scores = [Score("history_jaccard", mean_estimate(shared, users, seed=seed), float(np.mean(floor)),
                        _by_user(users, shared))]  # fmt: skip
        told = np.array([tau is not None for tau in kept])
        if told.any():
            pairs = np.array([(tau + 1) / 2 for tau in kept if tau is not None])  # the share of pairs in order
            found = mean_estimate(pairs, users[told], seed=seed)
            estimate = Estimate(2 * found.value - 1, 2 * found.low - 1, 2 * found.high - 1, found.n)
            scores.append(Score("kendall_tau", estimate, 0.0, _by_user(users[told], 2 * pairs - 1)))
        return scores

    def beside(
        self, guess: Guess, row: int
    ) -> tuple[Int[np.ndarray, "slots"], Int[np.ndarray, "slots"], Bool[np.ndarray, "slots"]]:
        """True items of a row, the first guess for each slot (-1 where there is none), and which are hits, to show."""
        rows = self._rows(guess)
        ranked, truth, owner = self._slots(guess, rows)
        own = owner == rows.index(row)
        return truth[own], ranked[own, 0], item_hits(ranked[own], truth[own], 1, self._class)

    def _rows(self, guess: Guess) -> list[int]:
        """The rows answered, in the order of the answer, then those that were not."""
        answered = [int(row) for row in guess.arrays["rows"]]
        return answered + sorted(set(self.prompts) - set(answered))

    def _tokens(self, guess: Guess, rows: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = max(len(self.prompts[row]) for row in rows)
        guessed = np.full((len(rows), width), -1, dtype=np.int64)
        true = np.full((len(rows), width), -2, dtype=np.int64)
        counted = np.zeros((len(rows), width), dtype=bool)
        offsets = guess.arrays["token_offsets"]
        for place, row in enumerate(rows):
            prompt = self.prompts[row]
            answer = _piece(guess.arrays["tokens"], offsets, place)[: len(prompt)]
            guessed[place, : len(answer)] = answer
            true[place, : len(prompt)] = prompt.tokens
            counted[place, : len(prompt)] = prompt.slots >= 0
        hits, counts = token_accuracy(guessed, true, counted)
        common, _ = token_accuracy(np.full_like(true, self._common), true, counted)
        return hits, counts, common

    @staticmethod
    def _firsts(guess: Guess, rows: list[int]) -> list[Int[np.ndarray, "slots"]]:
        """The first guess for each slot that was answered, also beyond those that there are."""
        offsets, items = guess.arrays["slot_offsets"], guess.arrays["items"]
        found = [_piece(items, offsets, place) for place in range(len(rows))]
        return [each[(each[:, :1] >= 0).ravel(), 0] if each.shape[1] else each.ravel() for each in found]

    def _slots(self, guess: Guess, rows: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranked items, the true item and the place of its row, for every true slot."""
        offsets, items = guess.arrays["slot_offsets"], guess.arrays["items"]
        ranked, truth, owner = [], [], []
        for place, row in enumerate(rows):
            true = self.prompts[row].items
            answer = _piece(items, offsets, place)[: len(true)]
            named = np.full((len(true), max(*HIT_DEPTHS, items.shape[1])), -1, dtype=np.int64)
            named[: len(answer), : items.shape[1]] = answer
            ranked.append(named)
            truth.append(true)
            owner.append(np.full(len(true), place))
        return np.concatenate(ranked), np.concatenate(truth), np.concatenate(owner)


@dataclass(frozen=True)
class LabelTruth:
    """Which item each row was trained to answer with.

    Args:
        users, targets: by row.
        title_class: items of one class have the same title and cannot be told apart.
        popularity: of each item among those who train.
    """

    users: Mapping[int, int]
    targets: Mapping[int, int]
    title_class: Int[np.ndarray, "items"]
    popularity: Float[np.ndarray, "items"]

    @staticmethod
    def answered(guess: Guess) -> bool:
        return "labels" in guess.arrays

    def score(self, guess: Guess, *, seed: int) -> list[Score]:
        """Hits among the best answers, and the reciprocal rank in them. A row without an answer counts as wrong."""
        rows = sorted(self.targets)
        users, truth = np.array([self.users[row] for row in rows]), np.array([self.targets[row] for row in rows])
        answers = guess.arrays["labels"]
        depth = max(*LABEL_DEPTHS, answers.shape[1])
        ranked = np.full((len(rows), depth), -1, dtype=np.int64)
        for row, answer in zip(guess.arrays["rows"], answers, strict=True):
            ranked[rows.index(int(row)), : len(answer)] = answer
        popular = np.tile(_most_popular(self.popularity)[:depth], (len(rows), 1))
        popular = np.pad(popular, ((0, 0), (0, depth - popular.shape[1])), constant_values=-1)
        scores = []
        for k in LABEL_DEPTHS:
            hits, floor = (item_hits(each, truth, k, self.title_class).astype(float) for each in (ranked, popular))
            scores.append(self._score(f"label_hit@{k}", hits, floor, users, seed))
        own, floor = (reciprocal_ranks(each, truth, self.title_class) for each in (ranked, popular))
        return [*scores, self._score("mrr", own, floor, users, seed, depth=depth)]

    @staticmethod
    def _score(
        metric: str, values: Float[np.ndarray, "rows"], floor: Float[np.ndarray, "rows"],
        users: Int[np.ndarray, "rows"], seed: int, **detail: Any,
    ) -> Score:  # fmt: skip
        estimate = mean_estimate(values, users, seed=seed)
        return Score(metric, estimate, float(floor.mean()), _by_user(users, values), detail)


@dataclass(frozen=True)
class MembershipTruth:
    """Who trained, by the logged coins. A row without a score is placed below all that have one.

    Args:
        users, clients, members: by row; ``clients`` is a number.
        features: what can be said of a candidate without any model (history length, popularity, words), by row.
    """

    users: Mapping[int, int]
    clients: Mapping[int, int]
    members: Mapping[int, int]
    features: Mapping[int, Sequence[float]]

    @staticmethod
    def answered(guess: Guess) -> bool:
        del guess
        return False  # its scores have names of the attack's own

    def score(self, guess: Guess, *, seed: int) -> list[Score]:
        """AUC within clients and the resolvable TPRs, for each mode of the guess."""
        rows, labels, clients = self._told()
        users = np.array([self.users[row] for row in rows])
        free = model_free_scores(np.array([self.features[row] for row in rows]), labels, clients, seed=seed)
        free_auc = within_groups_auc(free, labels, clients)
        scores = []
        for mode, values in self._modes(guess, rows).items():
            detail = {"mode": mode, "members": int(labels.sum()), "model_free_auc": free_auc}
            estimate = auc_estimate(values, labels, users, seed=seed, groups=clients)
            scores.append(Score("auc", estimate, max(0.5, free_auc), _by_user(users, values), detail))
            for fpr in resolvable(int((labels == 0).sum())):
                estimate = tpr_estimate(values, labels, users, fpr, seed=seed, strata=clients)
                scores.append(Score(f"tpr@{fpr:g}", estimate, max(fpr, tpr_at(free, labels, fpr)), {}, detail))
        return scores

    def control(self, guess: Guess) -> dict[tuple[str, str], float]:
        """Each metric and mode, for a control run."""
        rows, labels, clients = self._told()
        found = {}
        for mode, values in self._modes(guess, rows).items():
            found["auc", mode] = within_groups_auc(values, labels, clients)
            for fpr in resolvable(int((labels == 0).sum())):
                found[f"tpr@{fpr:g}", mode] = tpr_at(values, labels, fpr)
        return found

    def curves(self, guess: Guess) -> dict[str, tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]]:
        """FPR and TPR of each mode, all clients pooled."""
        rows, labels, _ = self._told()
        return {mode: roc(values, labels) for mode, values in self._modes(guess, rows).items()}

    def _told(self) -> tuple[list[int], Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
        """All rows, which of them are members, and their clients."""
        rows = sorted(self.users)
        return rows, np.array([self.members[row] for row in rows]), np.array([self.clients[row] for row in rows])

    @staticmethod
    def _modes(guess: Guess, rows: list[int]) -> dict[str, Float[np.ndarray, "rows"]]:
        """One score a row and mode."""
        at = {int(row): place for place, row in enumerate(guess.arrays["rows"])}
        found = {}
        for mode, values in guess.arrays.items():
            if mode != "rows":
                lowest = float(values.min(initial=0.0)) - 1.0
                found[mode] = np.array([values[at[row]] if row in at else lowest for row in rows], dtype=np.float64)
        return found


def _of_users(estimate: Estimate, users: Int[np.ndarray, "rows"]) -> Estimate:
    """The same with the number of users, who are drawn as wholes, in place of the number of what they have."""
    return replace(estimate, n=len(np.unique(users)))


def _most_popular(popularity: Float[np.ndarray, "items"]) -> Int[np.ndarray, "items"]:
    """All items, the most popular first. Those that are as popular as each other stand in a random order, of one seed
    for all runs: the catalogue's own may tell how popular they are elsewhere."""
    return best_first(popularity, np.random.default_rng(0).permutation(len(popularity)))


def _claims(guess: Guess) -> Bool[np.ndarray, "tokens"]:
    """Which tokens an answer claims as words of titles in the history. Raises ValueError where it does not say so of
    each."""
    tokens = guess.arrays["tokens"]
    claimed = guess.arrays.get("claimed", np.ones(len(tokens), dtype=bool))
    if claimed.shape != tokens.shape:
        raise ValueError(f"claimed says True or False of each of {len(tokens)} tokens; got {claimed.shape}")
    return np.asarray(claimed.astype(bool))


def _piece(values: np.ndarray, offsets: Int[np.ndarray, "bounds"], place: int) -> np.ndarray:
    """Row ``place`` of ``values``; nothing past the last."""
    return values[offsets[place] : offsets[place + 1]] if place + 1 < len(offsets) else values[:0]


def _by_user(users: Int[np.ndarray, "rows"], values: Float[np.ndarray, "rows"]) -> dict[int, float]:
    """Mean of the rows of each user."""
    ids, place = np.unique(users, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    return {int(user): float(mean) for user, mean in zip(ids, means, strict=True)}

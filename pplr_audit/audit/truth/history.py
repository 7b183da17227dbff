"""Truth about histories: the items that each row held, and the words that they were read as."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.audit.truth.protocol import Example, RowTruth, lowest_rows, place_of, slot
from pplr_audit.audit.truth.score import Score, by_user
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prompts import Prompt
from pplr_audit.scoring.intervals import COVERED_BY_FEW, FEW_FOR_A_RATIO, Estimate, mean_estimate, ratio_estimate
from pplr_audit.scoring.overlap import jaccard, order_kept
from pplr_audit.scoring.ranking import best_first
from pplr_audit.scoring.reconstruction import exact, item_hits, token_accuracy
from pplr_audit.scoring.rouge import rouge_l, rouge_n
from pplr_audit.threat_model.attack import Guess

HIT_DEPTHS = (1, 5, 10)
POPULARITY = "popularity"
OWN_MODEL = "own_model"
ROUGE = ("rouge1", "rouge2", "rougeL")
EXAMPLES = 2
"""Victims whose history is shown."""

Recommends = Callable[[Mapping[int, np.ndarray] | None], Mapping[int, np.ndarray] | None]
"""Function from the histories that were read, by row (None: the true ones), to the items recommended, best first."""


class HistoryTruth(RowTruth):
    """The true prompts of the victims.

    Args:
        users: row to user; intervals are clustered by it.
        prompts: row to the prompt that crossed.
        title_class: items of one class have the same title and cannot be told apart.
        popularity: of each item among those who train.
        title_tokens: the catalogue's titles as tokens.
        clients: row to client, within which a control deals what was answered; one by default.
    """

    def __init__(
        self,
        users: Mapping[int, int],
        prompts: Mapping[int, Prompt],
        title_class: Int[np.ndarray, "items"],
        popularity: Float[np.ndarray, "items"],
        title_tokens: Sequence[Int[np.ndarray, "length"]],
        clients: Mapping[int, str] | None = None,
    ) -> None:
        self.users, self.prompts, self._class, self._titles = users, prompts, title_class, title_tokens
        self.clients = clients or dict.fromkeys(prompts, "")
        order = self._popular = most_popular(popularity)
        weights: dict[int, float] = {}
        for item in order[popularity[order] > 0]:
            for token in title_tokens[item]:
                weights[int(token)] = weights.get(int(token), 0.0) + float(popularity[item])
        self._common = max(weights, key=lambda token: weights[token]) if weights else -1

    def answered(self, guess: Guess) -> bool:
        return "items" in guess.arrays

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Title tokens, items and whole histories; never the template. A row without an answer counts as all wrong."""
        rows = self._rows(guess)
        users = np.array([self.users[row] for row in rows])
        hits, counts, common = self._tokens(guess, rows)
        scores = [
            Score(
                "token_accuracy", _of_users(ratio_estimate(hits, counts, users, seed=seed), users),
                float(common.sum() / counts.sum()), by_user(users, hits / counts), _of_tokens(counts, users),
                floors={POPULARITY: by_user(users, common / counts)}, weights=by_user(users, counts),
            )
        ]  # fmt: skip
        ranked, truth, owner = self._slots(guess, rows)
        at_one = item_hits(ranked, truth, 1, self._class)
        firsts = self.firsts(guess, rows)
        for k in HIT_DEPTHS:
            hit = item_hits(ranked, truth, k, self._class).astype(float)
            usual = self._popular[: max(HIT_DEPTHS)]
            popular = item_hits(np.tile(usual, (len(truth), 1)), truth, min(k, len(usual)), self._class)
            mean = np.bincount(owner, hit) / np.bincount(owner)
            estimate = _of_users(mean_estimate(hit, users[owner], seed=seed), users)
            slots = np.bincount(owner)
            usual_mean = np.bincount(owner, popular) / slots
            scores.append(
                Score(f"item_hit@{k}", estimate, float(popular.mean()), by_user(users, mean), {"slots": len(hit)},
                      floors={POPULARITY: by_user(users, usual_mean)}, weights=by_user(users, slots))
            )  # fmt: skip
        # Items that were never there make a history another one.
        long = np.array([len(named) > len(self.prompts[row].items) for named, row in zip(firsts, rows, strict=True)])
        whole = (exact(at_one, owner, len(rows)) & ~long).astype(float)
        scores.append(Score("exact_history", mean_estimate(whole, users, seed=seed), 0.0, by_user(users, whole)))
        return [*scores, *self._texts(guess, rows, users, seed), *self._sets(firsts, rows, users, seed)]

    def _texts(self, guess: Guess, rows: list[int], users: Int[np.ndarray, "rows"], seed: int | None) -> list[Score]:
        """ROUGE of the tokens that the answer claims as words of titles, beside that of as many of the most popular
        items' titles. Which tokens are claimed is the answer's to say: the truth is no filter on it."""
        claimed = np.where(_claims(guess), guess.arrays["tokens"], -1)
        read = [_piece(claimed, guess.arrays["token_offsets"], place) for place in range(len(rows))]
        own = [_rouge(text[text >= 0].tolist(), self._texts_held[row]) for row, text in zip(rows, read, strict=True)]
        values, floors = np.array(own), np.array([self._popular_texts[row] for row in rows])
        return [
            Score(name, mean_estimate(v, users, seed=seed), float(np.mean(floor)), by_user(users, v),
                  floors={POPULARITY: by_user(users, floor)})
            for name, v, floor in zip(ROUGE, values.T.copy(), floors.T.copy(), strict=True)
        ]  # fmt: skip

    @cached_property
    def _texts_held(self) -> dict[int, list[int]]:
        """The words of the titles in each row's history."""
        return {row: prompt.tokens[prompt.slots >= 0].tolist() for row, prompt in self.prompts.items()}

    @cached_property
    def _popular_texts(self) -> dict[int, tuple[float, float, float]]:
        """ROUGE of the titles of as many of the most popular items; the same for every guess."""
        found = {}
        for row, prompt in self.prompts.items():
            usual = [self._titles[item].tolist() for item in self._popular[: len(prompt.items)]]
            found[row] = _rouge(list(chain.from_iterable(usual)), self._texts_held[row])
        return found

    def _sets(
        self,
        firsts: Sequence[Int[np.ndarray, "slots"]],
        rows: list[int],
        users: Int[np.ndarray, "rows"],
        seed: int | None,
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
                        by_user(users, shared), floors={POPULARITY: by_user(users, np.array(floor))})]  # fmt: skip
        ordered = np.array([tau is not None for tau in kept])
        if ordered.any():
            pairs = np.array([(tau + 1) / 2 for tau in kept if tau is not None])  # the share of pairs in order
            found = mean_estimate(pairs, users[ordered], seed=seed)
            estimate = Estimate(2 * found.value - 1, 2 * found.low - 1, 2 * found.high - 1, found.n)
            scores.append(Score("kendall_tau", estimate, 0.0, by_user(users[ordered], 2 * pairs - 1), low=-1.0))
        return scores

    def side_by_side(
        self, guess: Guess, row: int
    ) -> tuple[Int[np.ndarray, "slots"], Int[np.ndarray, "slots"], Bool[np.ndarray, "slots"]]:
        """True items of a row, the first guess for each slot (-1 where there is none), and which are hits, to show."""
        rows = self._rows(guess)
        ranked, truth, owner = self._slots(guess, rows)
        own = owner == rows.index(row)
        return truth[own], ranked[own, 0], item_hits(ranked[own], truth[own], 1, self._class)

    def examples(self, guess: Guess, catalogue: Catalogue, tokenizer: Any) -> list[Example]:
        """Slot by slot, then the whole text as it was read."""
        found = []
        for row in lowest_rows(guess, self.users, EXAMPLES):
            true, guessed, hits = self.side_by_side(guess, row)
            prompt = self.prompts[row]
            read = _piece(guess.arrays["tokens"], guess.arrays["token_offsets"], place_of(guess, row))
            inside = np.flatnonzero(prompt.slots >= 0)
            span = slice(int(inside[0]), int(inside[-1]) + 1)
            slots = [slot(catalogue, t, g, bool(hit)) for t, g, hit in zip(true, guessed, hits, strict=True)]
            texts = (tokenizer.decode(tokens[span]) for tokens in (prompt.tokens, read))
            found.append(Example(row, self.users[row], slots, *texts))
        return found

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
    def firsts(guess: Guess, rows: list[int]) -> list[Int[np.ndarray, "slots"]]:
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


def _rouge(text: list[int], true: list[int]) -> tuple[float, float, float]:
    """The metrics of `ROUGE`, in that order."""
    return rouge_n(text, true, 1), rouge_n(text, true, 2), rouge_l(text, true)


def _of_tokens(counts: Int[np.ndarray, "rows"], users: Int[np.ndarray, "rows"]) -> dict[str, Any]:
    """Return the number of tokens and, of few users, how often such an interval covers the truth."""
    few = len(np.unique(users)) < FEW_FOR_A_RATIO
    return {"tokens": int(counts.sum())} | ({"interval_covers": list(COVERED_BY_FEW)} if few else {})


def _of_users(estimate: Estimate, users: Int[np.ndarray, "rows"]) -> Estimate:
    """The same with the number of users, who are drawn as wholes, in place of the number of what they have."""
    return replace(estimate, n=len(np.unique(users)))


def most_popular(popularity: Float[np.ndarray, "items"]) -> Int[np.ndarray, "items"]:
    """All items, the most popular first. Those that are as popular as each other stand in a random order, of one seed
    for all runs: the catalogue's own may tell how popular they are elsewhere."""
    return best_first(popularity, np.random.default_rng(0).permutation(len(popularity)))


def _claims(guess: Guess) -> Bool[np.ndarray, "tokens"]:
    """True for each token that an answer claims as a word of a title in the history. Raises ValueError where it does
    not say so of each.
    """
    tokens = guess.arrays["tokens"]
    claimed = guess.arrays.get("claimed", np.ones(len(tokens), dtype=bool))
    if claimed.shape != tokens.shape:
        raise ValueError(f"claimed says True or False of each of {len(tokens)} tokens; got {claimed.shape}")
    return np.asarray(claimed.astype(bool))


def _piece(values: np.ndarray, offsets: Int[np.ndarray, "bounds"], place: int) -> np.ndarray:
    """Row ``place`` of ``values``; nothing past the last."""
    return values[offsets[place] : offsets[place + 1]] if place + 1 < len(offsets) else values[:0]

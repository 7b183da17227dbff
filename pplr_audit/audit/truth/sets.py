"""Truth about sets: the items, tokens and sequences that a client trained on, whatever their place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.truth.history import POPULARITY, most_popular
from pplr_audit.audit.truth.protocol import Example, RowTruth, lowest_rows, slot
from pplr_audit.audit.truth.score import Score, by_user
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.scoring.intervals import Estimate, mean_estimate
from pplr_audit.scoring.overlap import order_kept
from pplr_audit.scoring.rouge import rouge_l
from pplr_audit.scoring.sets import average_precision, distinct, matched, recall_at, similarity, stated
from pplr_audit.threat_model.attack import Guess

DEPTHS = (10, 50)
"""Numbers of best items among which true ones are counted, besides as many as there are."""

EXAMPLES, SHOWN = 2, 10
"""Clients that are shown, and the most items of each."""

HALF = 0.5
"""Share of the items at which the precision that an answer states is compared with what is found."""

Held = tuple[frozenset[int], Sequence[Sequence[int]]]
"""Items that a row holds, and its sequences as tokens of titles, in order."""


def held_by(prompts: Sequence[Prompt]) -> Held:
    """Return all items that prompts hold or learn, and what they hold as tokens of titles, a sequence a prompt."""
    items = frozenset(int(item) for prompt in prompts for item in (*prompt.items, prompt.target) if item >= 0)
    return items, [prompt.tokens[prompt.slots != TEMPLATE].tolist() for prompt in prompts]


def answered_by(prompts: Sequence[Prompt], titles: Sequence[Int[np.ndarray, "length"]]) -> Held:
    """Return the items that prompts are trained to answer with, and the tokens of each one's title.

    Args:
        titles: the catalogue's, as tokens.
    """
    items = [prompt.target for prompt in prompts if prompt.target >= 0]
    return frozenset(items), [titles[item].tolist() for item in items]


@dataclass(frozen=True)
class SetTruth(RowTruth):
    """The items of each client, the tokens of their titles, and the sequences that it trained on.

    An update has no places: what was read of it is a set. Items and tokens are scored as rankings. Sequences are given
    to the true ones by the best assignment of all, none twice, and scored then; their order is scored apart.

    Args:
        users: row to user; a client of several goes by its first.
        held: by row.
        title_class: items of one class have the same title and cannot be told apart.
        popularity: of each item among those who train.
        title_tokens: the catalogue's titles as tokens.
        clients: row to group, within which a control deals what was answered; one by default.
        let_through: facts for the finding on how much of the asked clients' updates the adversary was sent, where it
            was sent none of them as it was.
    """

    users: Mapping[int, int]
    held: Mapping[int, Held]
    title_class: Int[np.ndarray, "items"]
    popularity: Float[np.ndarray, "items"]
    title_tokens: Sequence[Int[np.ndarray, "length"]]
    clients: Mapping[int, str] = field(default_factory=dict)
    let_through: Mapping[str, Any] = field(default_factory=dict)

    def answered(self, guess: Guess) -> bool:
        return any(name in guess.arrays for name in ("ranked_items", "ranked_tokens", "sequence_tokens"))

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """Score whichever of items, tokens and sequences the guess has. A row without an answer counts as all wrong."""
        if not self.answered(guess):
            raise ValueError("there is none of ranked_items, ranked_tokens and sequence_tokens")
        scores = list[Score]()
        if "ranked_items" in guess.arrays:
            scores += self._items(guess, seed)
        if "ranked_tokens" in guess.arrays:
            ranked, usual = self._rankings(guess, "ranked_tokens", "token_offsets"), self._usual_tokens
            tokens = {row: {t for text in self.held[row][1] for t in text} for row in self._rows}
            scores.append(self._ranked("token_ap", average_precision, ranked, usual, tokens, seed))
        if "sequence_tokens" in guess.arrays:
            scores += self._sequences(guess, seed)
        return scores

    def examples(self, guess: Guess, catalogue: Catalogue, tokenizer: Any) -> list[Example]:
        """The items ranked first, as many as there are true ones, each beside itself, or beside one that is missed."""
        del tokenizer
        if "ranked_items" not in guess.arrays:
            return []
        rankings = self._rankings(guess, "ranked_items", "item_offsets")
        return [
            Example(row, self.users[row], self._slots(rankings[row], self.held[row][0], catalogue))
            for row in lowest_rows(guess, self.users, EXAMPLES)
            if self.held[row][0]
        ]

    def _slots(self, ranked: Sequence[int], held: frozenset[int], catalogue: Catalogue) -> list[dict[str, Any]]:
        """Items of one title are one."""
        first: dict[int, int] = {}
        for item in (each for each in ranked if each >= 0):
            first.setdefault(int(self.title_class[item]), item)
        true = {int(self.title_class[item]): item for item in sorted(held, reverse=True)}
        named = distinct([*first])[: len(true)]
        missed = iter([item for each, item in sorted(true.items()) if each not in named])
        paired = [(true[each] if each in true else next(missed), first[each], each in true) for each in named]
        paired += [(item, -1, False) for item in missed]
        return [slot(catalogue, *each) for each in paired[:SHOWN]]

    def _items(self, guess: Guess, seed: int | None) -> list[Score]:
        """Share of the true items among as many of the best, and among the best of each depth; titles are items."""
        classes = {row: {int(self.title_class[item]) for item in self.held[row][0]} for row in self._rows}
        ranked = {
            row: self.title_class[[item for item in each if item >= 0]].tolist()
            for row, each in self._rankings(guess, "ranked_items", "item_offsets").items()
        }
        usual = self.title_class[most_popular(self.popularity)].tolist()
        depths: list[int | None] = [None, *DEPTHS]
        scores = [
            self._ranked(
                "item_recall" if depth is None else f"item_recall@{depth}",
                partial(_recall, depth), ranked, usual, classes, seed,
            )
            for depth in depths
        ]  # fmt: skip
        if "item_chances" in guess.arrays:
            scores[0] = replace(scores[0], detail={**scores[0].detail, "chances": self._stated(guess, classes)})
        return scores

    def _stated(self, guess: Guess, classes: Mapping[int, set[int]]) -> dict[str, float]:
        """Return what the answer's probabilities state of the items that should be half of all, and what is so.

        Rows without an answer state nothing and are left out.
        """
        items, bounds = guess.arrays["ranked_items"], guess.arrays["item_offsets"]
        found = list[dict[str, float]]()
        for place, row in enumerate(guess.arrays["rows"].tolist()):
            part = slice(bounds[place], bounds[place + 1])
            named, first = np.unique(self.title_class[items[part]], return_index=True)
            order = np.argsort(first)
            own, true = guess.arrays["item_chances"][part][first[order]], np.isin(named[order], [*classes[row]])
            found.append(stated(own, true, len(classes[row]), HALF))
        means = {name: float(np.mean([each[name] for each in found])) for name in found[0]} if found else {}
        return {"recall_stated": HALF, **means}

    def _ranked(
        self, metric: str, measure: Callable[[Sequence[int], set[int]], float], ranked: Mapping[int, Sequence[int]],
        usual: Sequence[int], true: Mapping[int, set[int]], seed: int | None,
    ) -> Score:  # fmt: skip
        """Score a ranking a row, beside the one that popularity gives to all."""
        own = np.array([measure(ranked.get(row, ()), true[row]) for row in self._rows])
        floor = np.array([measure(usual, true[row]) for row in self._rows])
        sizes = [len(true[row]) for row in self._rows]
        return Score(
            metric, mean_estimate(own, self._users, seed=seed), float(floor.mean()), by_user(self._users, own),
            {"set_sizes": [min(sizes), max(sizes)], **self.let_through},
            floors={POPULARITY: by_user(self._users, floor)},
        )  # fmt: skip

    def _sequences(self, guess: Guess, seed: int | None) -> list[Score]:
        """Score each true sequence by the guess that it is given: ROUGE-L, whether it is the same, and the order."""
        guesses = self._guessed_sequences(guess)
        alike, same, floor, ordered = list[float](), list[float](), list[float](), dict[int, float]()
        for row in self._rows:
            true, own = self.held[row][1], guesses.get(row, [])
            given = matched(similarity(own, true))
            pairs = [(own[place] if place >= 0 else [], text) for place, text in zip(given, true, strict=True)]
            alike.append(float(np.mean([rouge_l(mine, text) for mine, text in pairs])))
            same.append(float(np.mean([[*mine] == [*text] for mine, text in pairs])))
            floor.append(float(np.mean([rouge_l(self._usual_text[: len(text)], text) for text in true])))
            kept = [tau for mine, text in pairs if (tau := order_kept(mine, text)) is not None]
            if kept:
                ordered[row] = float(np.mean(kept))
        users = self._users
        values, whole, usual = np.array(alike), np.array(same), np.array(floor)
        scores = [
            Score("rougeL", mean_estimate(values, users, seed=seed), float(usual.mean()), by_user(users, values),
                  floors={POPULARITY: by_user(users, usual)}),
            Score("exact_sequences", mean_estimate(whole, users, seed=seed), 0.0, by_user(users, whole)),
        ]  # fmt: skip
        if ordered:
            owners = np.array([self.users[row] for row in ordered])
            shares = (np.array([*ordered.values()]) + 1) / 2
            found = mean_estimate(shares, owners, seed=seed)
            estimate = Estimate(2 * found.value - 1, 2 * found.low - 1, 2 * found.high - 1, found.n)
            scores.append(Score("kendall_tau", estimate, 0.0, by_user(owners, 2 * shares - 1), low=-1.0))
        return scores

    def _rankings(self, guess: Guess, name: str, offsets: str) -> dict[int, list[int]]:
        """The ranking of each row that was answered."""
        rows, bounds = guess.arrays["rows"].tolist(), guess.arrays[offsets].tolist()
        values = guess.arrays[name].tolist()
        _require_bounds(bounds, len(rows), len(values), offsets)
        return {row: values[bounds[place] : bounds[place + 1]] for place, row in enumerate(rows)}

    def _guessed_sequences(self, guess: Guess) -> dict[int, list[list[int]]]:
        rows, bounds = guess.arrays["rows"].tolist(), guess.arrays["sequence_offsets"].tolist()
        tokens, places = guess.arrays["sequence_tokens"].tolist(), guess.arrays["sequence_places"].tolist()
        _require_bounds(bounds, len(places), len(tokens), "sequence_offsets")
        if any(not 0 <= place < len(rows) for place in places):
            raise ValueError(f"sequence_places are places among {len(rows)} rows")
        found: dict[int, list[list[int]]] = {}
        for number, place in enumerate(places):
            found.setdefault(rows[place], []).append(tokens[bounds[number] : bounds[number + 1]])
        return found

    @cached_property
    def _rows(self) -> list[int]:
        return sorted(self.users)

    @cached_property
    def _users(self) -> Int[np.ndarray, "rows"]:
        return np.array([self.users[row] for row in self._rows])

    @cached_property
    def _usual_tokens(self) -> list[int]:
        """Tokens of titles by how often those who train have them."""
        weights: dict[int, float] = {}
        for item in most_popular(self.popularity):
            for token in self.title_tokens[item]:
                weights[int(token)] = weights.get(int(token), 0.0) + float(self.popularity[item])
        return sorted(weights, key=lambda token: -weights[token])

    @cached_property
    def _usual_text(self) -> list[int]:
        """The most popular items' titles, as long as the longest sequence."""
        longest = max((len(text) for _, texts in self.held.values() for text in texts), default=0)
        text: list[int] = []
        for item in most_popular(self.popularity):
            if len(text) >= longest:
                break
            text += self.title_tokens[item].tolist()
        return text


def _recall(depth: int | None, best: Sequence[int], true: set[int]) -> float:
    """Share of the true ones among the best ``depth``; None: among as many as there are."""
    return recall_at(best, true, len(true) if depth is None else depth)


def _require_bounds(bounds: Sequence[int], count: int, size: int, name: str) -> None:
    """Raises ValueError where bounds do not divide ``size`` values into ``count`` parts."""
    if len(bounds) != count + 1 or bounds[0] != 0 or bounds[-1] != size or any(np.diff(bounds) < 0):
        raise ValueError(f"{name} has {count + 1} bounds from 0 to {size}")

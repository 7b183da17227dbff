"""Ridge inversion: a closed-form linear map from what crosses the cut back to the words (the floor for every attack).

For activations X (positions, hidden) of auxiliary prompts and the input embeddings Y of their tokens a map W is fitted
(`normal_equations`; lambda is chosen on auxiliary prompts held out), and each observed position is given the token
whose embedding is nearest to xW by cosine. The auxiliary prompts are the public template over random titles of the
public catalogue, run through the front that the adversary knows. Items are then read off along the template: of all
titles, the one whose tokens fit best where a title must start.
"""

from collections.abc import Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pplr_audit.attacks.activation.normal_equations import Inverter, NormalEquations
from pplr_audit.attacks.activation.titles import DEPTH, LABELS, TitleReader
from pplr_audit.channels import Channel
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.views import Budget, BudgetExhausted, Guess, Knowledge, Model, NotApplicable, View

CHUNK = 2048
"""Positions, at least, that go into the sums together."""

_States = tuple[int, dict[int, Tensor]]
"""A prompt's place and what enters each layer for it, as `Model.states` yields them."""
_Fit = dict[int, Inverter] | BudgetExhausted


class Ridge:
    """One linear inverter a client and layer; all layers of an audit are fitted in one pass over the front.

    Args:
        prompts: auxiliary prompts to fit on.
        held_out: auxiliary prompts to choose lambda on.
        seed: of the random titles.
    """

    name = "ridge"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1

    def __init__(self, prompts: int = 128, held_out: int = 16, seed: int = 0) -> None:
        for name, value, least in (("prompts", prompts, 1), ("held_out", held_out, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"ridge: {name} is {value!r} (accepted: a whole number, {least} or more)")
        self.prompts, self.held_out, self.seed = prompts, held_out, seed
        self._fitted: WeakKeyDictionary[Knowledge, dict[tuple[str, int], _Fit]] = WeakKeyDictionary()

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if view.front is None:
            raise NotApplicable("the channel does not depend on a front")
        if not view.records:
            raise NotApplicable("nothing crossed that belongs to a victim")
        reader = TitleReader(knowledge.prompts)
        words = reader.vocabulary
        normed = torch.nn.functional.normalize(knowledge.embeddings[words].float(), dim=1)
        # All fits first: whether the budget is enough for them does not depend on the order of the rows.
        for client, round_ in sorted({(record.client, record.round) for record in view.records}):
            self._inverters(client, round_, knowledge, words, budget)
        rows, tokens, slots, labels, chosen = [], [], [], [], {}
        for record in view.records:
            budget.check()
            inverter = self._inverters(record.client, record.round, knowledge, words, budget)[view.front]
            guess = torch.nn.functional.normalize(inverter(record.tensor.float()), dim=1)
            fit = (guess @ normed.T).numpy()
            rows.append(record.row)
            tokens.append(words[fit.argmax(1)])
            items, label = reader.read(fit)
            slots.append(items)
            labels.append(np.pad(label, (0, LABELS - len(label)), constant_values=-1))
            chosen[record.client] = inverter.strength
        answer = {
            "rows": np.array(rows), "token_offsets": _offsets(tokens), "tokens": np.concatenate(tokens),
            "slot_offsets": _offsets(slots),
            "items": np.concatenate(slots) if slots else np.empty((0, DEPTH), dtype=np.int64),
        }  # fmt: skip
        if view.channel == Channel.FRONT_ACTIVATIONS and reader.answers:
            answer["labels"] = np.array(labels)
        return Guess(answer, {"auxiliary_prompts": self.prompts, "lambda": chosen})

    def _inverters(
        self, client: str, round_: int, knowledge: Knowledge, words: Int[np.ndarray, "words"], budget: Budget
    ) -> dict[int, Inverter]:
        model = knowledge.copy(client, round_)
        key = ("", 0) if model is knowledge.base else (client, round_)
        fitted = self._fitted.setdefault(knowledge, {})
        if key not in fitted:
            try:
                fitted[key] = self._fit(model, knowledge, words, budget)
            except BudgetExhausted as reason:
                fitted[key] = reason  # one fit serves all layers: what was too much for one is for all
        found = fitted[key]
        if isinstance(found, BudgetExhausted):
            raise found
        return found

    def _fit(
        self, model: Model, knowledge: Knowledge, words: Int[np.ndarray, "words"], budget: Budget
    ) -> dict[int, Inverter]:
        generator = np.random.default_rng(self.seed)
        auxiliary = [_random_prompt(knowledge, generator) for _ in range(self.prompts + self.held_out)]
        fit_on, choose_on = auxiliary[: self.prompts], auxiliary[self.prompts :]
        sums = {layer: NormalEquations(knowledge.embeddings.shape[1]) for layer in knowledge.layers}
        for chunk in _chunks(model.states(fit_on, knowledge.layers)):
            budget.check()
            tokens = torch.from_numpy(np.concatenate([fit_on[place].tokens for place, _ in chunk]))
            for layer, sum_ in sums.items():
                sum_.add(torch.cat([states[layer] for _, states in chunk]), tokens, knowledge.embeddings)
        held: dict[int, list[Tensor]] = {layer: [] for layer in knowledge.layers}
        truth: list[Int[np.ndarray, length]] = []
        for place, states in model.states(choose_on, knowledge.layers):
            truth.append(choose_on[place].tokens)
            for layer, hidden in states.items():
                held[layer].append(hidden)
        # Of the words that a prompt can hold, as in the attack itself.
        answers = torch.from_numpy(np.searchsorted(words, np.concatenate(truth)))
        table = knowledge.embeddings[words]
        found = {}
        for layer in knowledge.layers:
            budget.check()
            found[layer] = sums[layer].solve(torch.cat(held[layer]), answers, table)
        return found


def _chunks(stream: Iterable[_States]) -> Iterator[list[_States]]:
    """Prompts together, so many that they have `CHUNK` positions; the last ones may have fewer."""
    chunk: list[_States] = []
    positions = 0
    for place, states in stream:
        chunk.append((place, states))
        positions += len(next(iter(states.values())))
        if positions >= CHUNK:
            yield chunk
            chunk, positions = [], 0
    if chunk:
        yield chunk


def _random_prompt(knowledge: Knowledge, generator: np.random.Generator) -> Prompt:
    items = generator.integers(len(knowledge.prompts.titles), size=knowledge.history + 1)
    return knowledge.prompts.build(items[:-1], int(items[-1]))


def _offsets(pieces: Sequence[np.ndarray]) -> Int[np.ndarray, "pieces+1"]:
    return np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])

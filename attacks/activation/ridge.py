"""Ridge inversion: a closed-form linear map from what crosses the cut back to the words (the floor for every attack).

For activations X (positions, hidden) of auxiliary prompts and the input embeddings Y of their tokens a map W is fitted
(`normal_equations`; lambda is chosen on auxiliary prompts held out), and each observed position is given the token
whose embedding is nearest to xW by cosine. The auxiliary prompts are run through the front that the adversary
knows, unless it knows less (`Knowledge.pairs`). Items are then read off along the template: of all titles, the one
whose tokens fit best where a title must start.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pplr_audit.attacks.decoding.word_scores import Learned, Reading, Words, read, require_whole
from pplr_audit.attacks.learners.normal_equations import Inverter, NormalEquations
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Pair
from pplr_audit.threat_model.view import View

CHUNK = 2048
"""Positions, at least, that go into the sums together."""


class Ridge:
    """One linear inverter a client and layer; all layers of an audit are fitted in one pass over the front.

    Args:
        prompts: auxiliary prompts to fit on.
        held_out: auxiliary prompts to choose lambda on.
        seed: by which the auxiliary prompts are drawn.
    """

    name = "ridge"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1

    def __init__(self, prompts: int = 128, held_out: int = 16, seed: int = 0) -> None:
        require_whole("ridge", prompts=(prompts, 1), held_out=(held_out, 1), seed=(seed, 0))
        self.prompts, self.held_out, self.seed = prompts, held_out, seed
        self.evaluations = 0
        """Blocks times positions that were run to fit, over all fits so far."""
        self._fitted: Learned[_Fitted] = Learned()

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        return read(self, view, knowledge, budget)

    def learned(
        self, client: str, round_: int, layer: int, knowledge: Knowledge, words: Words, budget: Budget
    ) -> Reading:
        inverter = self.inverters(client, round_, knowledge, words, budget)[layer]
        prompts = self._learned(client, round_, knowledge, words, budget).prompts
        facts = {"auxiliary_prompts": prompts, "lambda": inverter.strength}
        return Reading(_Cosine(inverter, knowledge.embeddings[words]), facts)

    def inverters(
        self, client: str, round_: int, knowledge: Knowledge, words: Words, budget: Budget
    ) -> dict[int, Inverter]:
        """One for each of the knowledge's layers, for a client's model in a round; fitted once.

        Args:
            words: those of which lambda is chosen to name the most.
        """
        return self._learned(client, round_, knowledge, words, budget).inverters

    def _learned(self, client: str, round_: int, knowledge: Knowledge, words: Words, budget: Budget) -> "_Fitted":
        def fit() -> _Fitted:
            return self._fit(client, round_, knowledge, words, budget)

        return self._fitted.get(knowledge, knowledge.source(client, round_), fit)

    def _fit(self, client: str, round_: int, knowledge: Knowledge, words: Words, budget: Budget) -> "_Fitted":
        layers = knowledge.layers
        fit_on, choose_on = knowledge.pairs(client, round_, layers, self.prompts, self.held_out, self.seed)
        sums = {layer: NormalEquations(knowledge.embeddings.shape[1]) for layer in layers}
        prompts = 0
        for chunk in _chunks(fit_on):
            budget.check()
            prompts += len(chunk)
            tokens = torch.cat([tokens for tokens, _ in chunk])
            self.evaluations += max(layers) * len(tokens)
            for layer, sum_ in sums.items():
                sum_.add(torch.cat([states[layer] for _, states in chunk]), tokens, knowledge.embeddings)
        held: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        answers = []
        for tokens, states in choose_on:
            self.evaluations += max(layers) * len(tokens)
            # Of the words that a prompt can hold, as in the attack itself.
            known = torch.from_numpy(np.isin(tokens.numpy(), words))
            answers.append(torch.from_numpy(np.searchsorted(words, tokens[known].numpy())))
            for layer in layers:
                held[layer].append(states[layer][known])
        table = knowledge.embeddings[words]
        found = {}
        for layer in layers:
            budget.check()
            found[layer] = sums[layer].solve(torch.cat(held[layer]), torch.cat(answers), table)
        return _Fitted(prompts, found)


@dataclass(frozen=True)
class _Fitted:
    """The inverters of all layers, and the prompts that they were fitted on."""

    prompts: int
    inverters: dict[int, Inverter]


class _Cosine:
    """Cosine of each word's embedding to the one that the inverter gives."""

    def __init__(self, inverter: Inverter, table: Float[Tensor, "words hidden"]) -> None:
        self._inverter, self._words = inverter, normalize(table.float(), dim=1)

    def __call__(self, hidden: Float[Tensor, "length hidden"]) -> Float[Tensor, "length words"]:
        return normalize(self._inverter(hidden), dim=1) @ self._words.T


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Prompts together, so many that they have `CHUNK` positions; the last ones may have fewer."""
    chunk: list[Pair] = []
    positions = 0
    for tokens, states in pairs:
        chunk.append((tokens, states))
        positions += len(tokens)
        if positions >= CHUNK:
            yield chunk
            chunk, positions = [], 0
    if chunk:
        yield chunk

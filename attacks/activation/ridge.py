"""Ridge inversion: a closed-form linear map from what crosses the cut back to the words (the floor for every attack).

For activations X (positions, hidden) of auxiliary prompts and the input embeddings Y of their tokens a map W is fitted
(`normal_equations`; lambda is chosen on auxiliary prompts held out), and each observed position is given the token
whose embedding is nearest to xW by cosine. The auxiliary prompts are run through the front that the adversary
knows, unless it knows less (`Knowledge.pairs`). Items are then read off along the template: of all titles, the one
whose tokens fit best where a title must start.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pplr_audit.attacks.decoding.word_scores import Reading, Words, read, require_whole
from pplr_audit.attacks.learners.normal_equations import Inverter, NormalEquations
from pplr_audit.threat_model.artifacts import Tensors, digest
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Pair, Pairs, When
from pplr_audit.threat_model.view import View

CHUNK = 2048
"""Positions, at least, that go into the sums together."""


class Ridge:
    """One linear inverter a client and layer; one pass over the front fits those of all layers of an audit.

    An inverter follows from its own layer alone, and is an artifact of the run: a layer that is asked about later costs
    its own pass, and attacks that ask for the same one share it.

    Args:
        prompts: auxiliary prompts to fit on.
        held_out: auxiliary prompts to choose lambda on.
        seed: by which the auxiliary prompts are drawn.
    """

    name = "ridge"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1
    comparable = True  # cosines
    every_crossing = True

    def __init__(self, prompts: int = 128, held_out: int = 16, seed: int = 0) -> None:
        require_whole("ridge", prompts=(prompts, 1), held_out=(held_out, 1), seed=(seed, 0))
        self.prompts, self.held_out, self.seed = prompts, held_out, seed

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        return read(self, view, knowledge, budget)

    def learned(
        self, client: str, round_: int, layer: int, knowledge: Knowledge, words: Words, budget: Budget,
        when: When = "start",
    ) -> Reading:  # fmt: skip
        fitted = self.inverter(client, round_, layer, knowledge, words, budget, when)
        facts = {"auxiliary_prompts": fitted.prompts, "lambda": fitted.strength}
        return Reading(_Cosine(fitted, knowledge.embeddings[words]), facts)

    def inverter(
        self, client: str, round_: int, layer: int, knowledge: Knowledge, words: Words, budget: Budget,
        when: When = "start",
    ) -> "Fitted":  # fmt: skip
        """Return the inverter for a client's h_l at ``layer`` in a round, by the copy of ``when``.

        Args:
            words: those of which lambda is chosen to name the most.
        """
        pairs = knowledge.pairs(client, round_, self.prompts, self.held_out, self.seed, when)
        used = np.unique(np.concatenate([words, *(p.tokens for part in pairs.prompts for p in part)]))
        table = digest(used, words, knowledge.embeddings[torch.from_numpy(used)])
        sources = {
            each: {"pairs": pairs.digest, "table": table, "layer": each} for each in sorted({layer, *knowledge.layers})
        }

        def fit(layers: Sequence[int]) -> Iterator[tuple[int, Tensors]]:
            return _fits(pairs, layers, knowledge.embeddings, words, budget)

        return Fitted(knowledge.fitted_together("ridge", sources, fit, layer))


class Fitted:
    """An inverter, and what it took.

    Args:
        tensors: as an artifact holds it.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._inverter = Inverter(
            tensors["weight"], tensors["x_mean"], tensors["y_mean"], float(tensors["strength"])
        )  # fmt: skip
        self.strength = self._inverter.strength
        """lambda, in units of `STRENGTHS`."""
        self.prompts = int(tensors["prompts"])
        """Prompts that it was fitted on."""
        self.evaluations = int(tensors["evaluations"])
        """Blocks times positions that had to be run for it, up to its layer."""

    def __call__(self, x: Float[Tensor, "length hidden"]) -> Float[Tensor, "length hidden"]:
        return self._inverter(x)


def _fits(
    pairs: Pairs, layers: Sequence[int], embeddings: Float[Tensor, "vocab hidden"], words: Words, budget: Budget
) -> Iterator[tuple[int, Tensors]]:
    """Fit ``layers`` in one pass over the front; nothing of one depends on which others there are."""
    fit_on, choose_on = pairs.run(layers)
    sums = {layer: NormalEquations(embeddings.shape[1]) for layer in layers}
    prompts = positions = 0
    for chunk in _chunks(fit_on):
        budget.check()
        prompts += len(chunk)
        tokens = torch.cat([tokens for tokens, _ in chunk])
        positions += len(tokens)
        for layer, sum_ in sums.items():
            sum_.add(torch.cat([states[layer] for _, states in chunk]), tokens, embeddings)
    held: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    answers = []
    for tokens, states in choose_on:
        positions += len(tokens)
        # Of the words that a prompt can hold, as in the attack itself.
        known = torch.from_numpy(np.isin(tokens.numpy(), words))
        answers.append(torch.from_numpy(np.searchsorted(words, tokens[known].numpy())))
        for layer in layers:
            held[layer].append(states[layer][known])
    table = embeddings[words]
    for layer in layers:
        budget.check()
        inverter = sums[layer].solve(torch.cat(held[layer]), torch.cat(answers), table)
        taken = {"prompts": torch.tensor(prompts), "evaluations": torch.tensor(layer * positions)}
        yield layer, {**inverter.tensors(), **taken}


class _Cosine:
    """Cosine of each word's embedding to the one that the inverter gives."""

    def __init__(self, inverter: Fitted, table: Float[Tensor, "words hidden"]) -> None:
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

"""Learned inversion: a network trained on auxiliary prompts names the words of what crosses the cut.

For each client and layer a network (`networks`: linear, GRU, self-attention or a whole block) is trained on activations
of auxiliary prompts and their words; its log-probabilities say how well each word stands at each position of what
crossed, and items are read off along the template as for `ridge`, which shares the pairs it learns from
(`Knowledge.pairs`). Unlike `ridge` it can take neighbors into account, and needs no embeddings.

Source: SplitLLM and BiSR (Chen et al. 2024, arXiv 2409.00960), whose inversion models lose 5 to 11 points of ROUGE-L
from the first to the last blocks of LLaMA2-7B and GPT2-large.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.attacks.decoding.word_scores import Reading, Words, read, require_whole
from pplr_audit.attacks.learners.networks import KINDS, OTHER, Example, Kind, Network, Trained, trained
from pplr_audit.errors import InputError
from pplr_audit.threat_model.artifacts import Tensors, digest
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Pair, When
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View


class Inverter:
    """One network a client, round and layer; clients whose fronts are known alike share it.

    Args:
        kind: linear, gru, attention or block.
        epochs: of training, at most.
        prompts: auxiliary prompts to train on.
        held_out: auxiliary prompts that say when training ends.
        seed: of the auxiliary prompts, the first weights and the order of training.
    """

    name = "inverter"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1
    every_crossing = True
    comparable = False  # each network is as sure as it was trained to be

    def __init__(
        self, kind: Kind = "gru", epochs: int = 20, prompts: int = 512, held_out: int = 32, seed: int = 0
    ) -> None:  # fmt: skip
        if kind not in KINDS:
            raise InputError(f"inverter: kind is {kind!r} (accepted: {', '.join(KINDS)})")
        require_whole(
            "inverter", epochs=(epochs, 1), prompts=(prompts, 1), held_out=(held_out, 1), seed=(seed, 0)
        )  # fmt: skip
        self.kind, self.epochs, self.prompts, self.held_out, self.seed = kind, epochs, prompts, held_out, seed

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        return read(self, view, knowledge, budget)

    def learned(
        self, client: str, round_: int, layer: int, knowledge: Knowledge, words: Words, budget: Budget,
        when: When = "start",
    ) -> Reading:  # fmt: skip
        pairs = knowledge.pairs(client, round_, self.prompts, self.held_out, self.seed, when)
        source = {
            "pairs": pairs.digest, "words": digest(words), "layer": layer, "kind": self.kind, "epochs": self.epochs,
            "seed": self.seed,
        }  # fmt: skip

        def train() -> Tensors:
            fit_on, held_out = (list(_examples(part, layer, words, budget)) for part in pairs.run((layer,)))
            return trained(
                self.kind, len(words), fit_on, held_out, epochs=self.epochs, seed=self.seed, check=budget.check
            ).tensors()  # fmt: skip

        found = Trained.of(self.kind, len(words), knowledge.fitted("inverter", source, train))
        facts = {
            "auxiliary_prompts": len(pairs.prompts[0]), "epochs": found.epochs, "held_out_accuracy": found.accuracy,
        }  # fmt: skip
        return Reading(_LogProbabilities(found.network), facts)


class _LogProbabilities:
    def __init__(self, network: Network) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(self, hidden: Float[Tensor, "length hidden"]) -> Float[Tensor, "length words"]:
        padding = torch.zeros(1, len(hidden), dtype=torch.bool)
        found: Tensor = self._network(hidden[None], padding)[0].log_softmax(1)
        return found


def _examples(pairs: Iterator[Pair], layer: int, words: Words, budget: Budget) -> Iterator[Example]:
    """Yield what crossed and the word of ``words`` that it is of. Raises NotApplicable where that is not finite."""
    for tokens, by_layer in pairs:
        budget.check()
        if not bool(by_layer[layer].isfinite().all()):
            raise NotApplicable("what there is to learn from is not finite")
        place = np.searchsorted(words, tokens.numpy()).clip(max=len(words) - 1)
        yield by_layer[layer].float(), torch.from_numpy(np.where(words[place] == tokens.numpy(), place, OTHER))

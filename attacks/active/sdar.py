"""Simulated client (SDAR): the server trains a front of its own to look like the client's; a decoder reads both.

No pair of a prompt and what the client makes of it is needed, and no copy of the client's front. The simulated front
reads auxiliary prompts and learns two things: that what the server has of the model behind the cut answers them
rightly, and that a critic cannot tell its hidden states from those that crossed. A decoder learns to read its hidden
states, and then reads those that crossed.

All crossings of a row are learned from, and their words are read together (`agreed`).

Source: Zhu et al., Passive Inference Attacks on Split Learning via Adversarial Regularization (arXiv 2310.10483). There
the decoder has a critic of its own, on what it reads; it is left out here, as a critic tells a distribution over words
from a word at once, however right it is.
"""

from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from pplr_audit.attacks.active.adversarial import (
    BETAS,
    Critic,
    Decoder,
    Scale,
    auxiliary_text,
    batches,
    redrawn,
    require_settings,
    together,
)
from pplr_audit.attacks.decoding.crossings import agreed, facts_of, once
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.decoding.word_scores import answered, require_records
from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Model
from pplr_audit.threat_model.view import Record, View

FRONT_RATE = 1e-3


class Sdar:
    """One simulated front a client, round and layer, learned from all that crossed of the client.

    Args:
        start: ``base``: the public weights, of which only an adapter is learned, as the client does; ``random``: the
            architecture alone, all weights drawn anew, as where no weights are public.
        steps: of the adversarial training.
        batch: auxiliary prompts, and observed sequences, a step.
        width: of the hidden layer of decoder and critic.
        seed: of prompts, batches and what is drawn anew.
    """

    name = "sdar"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1
    traffic = True
    every_crossing = True

    def __init__(self, start: str = "base", steps: int = 400, batch: int = 8, width: int = 128, seed: int = 0) -> None:
        require_settings("sdar", start, steps=(steps, 1), batch=(batch, 1), width=(width, 1), seed=(seed, 0))
        self.start, self.steps, self.batch, self.width, self.seed = start, steps, batch, width, seed

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        layer = require_records(view, knowledge)
        reader = TitleReader(knowledge.prompts)
        by_client: dict[tuple[str, int], list[Record]] = {}
        for record in view.records:
            by_client.setdefault((record.client, record.round), []).append(record)
        text = auxiliary_text(knowledge, self.steps, self.batch, self.seed)
        fits: dict[int, list[np.ndarray]] = {}
        learned_from: dict[str, int] = {}
        for (client, round_), own in sorted(by_client.items()):
            behind = knowledge.copy(client, round_)
            seen = [record.tensor.float() for record in own]
            seen += [tensor.float() for tensor in view.seen_of(client, round_) if bool(tensor.isfinite().all())]
            learned_from[client] = learned_from.get(client, 0) + len(seen)
            decoder = self._simulated(layer, seen, behind, text, knowledge, budget)
            for record in own:
                budget.check()
                fits.setdefault(record.row, []).append(decoder.read(record.tensor.float()))
        facts = {
            "start": self.start, "auxiliary_prompts": len(text), "traffic": learned_from, **facts_of(view.records),
        }  # fmt: skip
        rows = once(view)
        return answered(rows, reader, (agreed(fits[record.row]) for record in rows.records), facts)

    def _simulated(
        self, layer: int, crossed: list[Float[Tensor, "length hidden"]], behind: Model, text: list[Prompt],
        knowledge: Knowledge, budget: Budget,
    ) -> Decoder:  # fmt: skip
        """The decoder of a front that was made to look like the one that ``crossed`` comes from.

        Args:
            behind: of which only the layers behind the cut are run: the server's trunk, and what it has of the back.
            text: auxiliary prompts.
        """
        generator, scale = np.random.default_rng(self.seed), Scale(torch.cat(crossed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            front = knowledge.base.front(layer)
            if self.start == "random":
                front = redrawn(front)
            hidden = crossed[0].shape[1]
            decoder = Decoder(TitleReader(knowledge.prompts).vocabulary, hidden, self.width, scale)
            critic = Critic(hidden, self.width, scale)
        learned = [parameter for parameter in front.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learned, FRONT_RATE, BETAS) if learned else None
        for prompts in islice(batches(text, self.batch, generator), self.steps):
            budget.check()
            simulated, mask = front(prompts)
            if optimizer is not None:
                real = together([crossed[place] for place in generator.integers(len(crossed), size=self.batch)])
                critic.learn(real, (simulated.detach(), mask))
                loss = critic.distance((simulated, mask))
                if knowledge.elsewhere is None:  # the task knows no items of another catalogue
                    loss = loss + _task_loss(behind, layer, simulated[0], prompts[0])
                # Of these alone, as the model behind the cut stays as it is; the final norm is in no front.
                gradients = torch.autograd.grad(loss, learned, allow_unused=True)
                for parameter, gradient in zip(learned, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
            decoder.learn((simulated.detach(), mask), prompts)
        return decoder


def _task_loss(behind: Model, layer: int, hidden: Float[Tensor, "seq hidden"], prompt: Prompt) -> Float[Tensor, ""]:
    """Loss of the layers behind the cut on one prompt: nats a token of its answer, or of its item."""
    logits = behind.logits(layer, hidden[None, : len(prompt)])
    if logits.dim() == 2:
        return cross_entropy(logits, torch.tensor([prompt.target]))
    answer = torch.from_numpy(prompt.tokens[prompt.answer :])
    return cross_entropy(logits[0, prompt.answer - 1 : -1], answer)

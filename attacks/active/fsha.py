"""Feature-space hijacking (FSHA): the server sends gradients that pull the clients' fronts to where it can read.

The server has a pilot front and a decoder of it, both learned on auxiliary prompts. A critic tells the pilot's hidden
states from the clients', and in place of dLoss/dh_k each client is sent the gradient by which the critic would take its
hidden states for the pilot's. Everything else of the protocol goes on, and in the end the decoder reads what crosses.

All crossings of a row in the last round are read together (`agreed`): the pull has brought the later ones nearer.

Source: Pasquini et al., Unleashing the Tiger: Inference Attacks on Split Learning, CCS 2021 (arXiv 2012.02670). There
nothing is known of the clients' front (``start: random``); a PPLR client starts from public weights, so that a pilot at
these (``start: base``, which then stays there) has to pull no further than the clients' own training pushes.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.active.adversarial import (
    Critic,
    Decoder,
    Scale,
    auxiliary_text,
    batches,
    redrawn,
    require_settings,
)
from pplr_audit.attacks.decoding.crossings import agreed, by_row, facts_of, once
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.decoding.word_scores import answered, require_records
from pplr_audit.threat_model.attack import Budget, GradientCrafter, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Front, Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View

PILOT_RATE = 1e-3


class Fsha:
    """One pilot, decoder and critic a layer, for all clients.

    Args:
        start: ``base``: the pilot has the public weights; ``random``: it is drawn anew and learned with its decoder.
        steps: by which the decoder (and a random pilot) learns before the clients' training.
        critic_steps: of the critic for each step of a client.
        batch: auxiliary prompts a step.
        width: of the hidden layer of decoder and critic.
        seed: of prompts and what is drawn anew.
    """

    name = "fsha"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS})
    controls = 1
    copies = False
    active = True
    every_crossing = True

    def __init__(
        self, start: str = "base", steps: int = 400, critic_steps: int = 1, batch: int = 8, width: int = 128,
        seed: int = 0,
    ) -> None:  # fmt: skip
        require_settings(
            "fsha", start, steps=(steps, 1), critic_steps=(critic_steps, 1), batch=(batch, 1), width=(width, 1),
            seed=(seed, 0),
        )  # fmt: skip
        self.start, self.steps, self.critic_steps, self.batch = start, steps, critic_steps, batch
        self.width, self.seed = width, seed
        self._pilots: dict[tuple[str, int], _Pilot] = {}

    def craft_gradient(self, knowledge: Knowledge, front: int, budget: Budget) -> GradientCrafter:
        pilot = _Pilot(self, knowledge, front, budget)
        self._pilots[knowledge.base.digest, front] = pilot
        return pilot.pull

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        pilot = self._pilots.get((knowledge.base.digest, -1 if view.front is None else view.front))
        if pilot is None:
            raise NotApplicable("no training was hijacked at this cut")
        require_records(view, knowledge)
        fits = []
        for crossings in by_row(view.records).values():
            budget.check()
            fits.append(agreed([pilot.decoder.read(record.tensor.float()) for record in crossings]))
        facts = {"start": self.start, "hijacked_steps": pilot.pulled, **facts_of(view.records)}
        return answered(once(view), TitleReader(knowledge.prompts), fits, facts)


class _Pilot:
    """The server's own front with its decoder, and the critic that says which way leads to it."""

    def __init__(self, settings: Fsha, knowledge: Knowledge, layer: int, budget: Budget) -> None:
        self._settings, self._budget = settings, budget
        text = auxiliary_text(knowledge, settings.steps, settings.batch, settings.seed)
        self._batches = batches(text, settings.batch, np.random.default_rng(settings.seed))
        self.pulled = 0
        """Steps of clients so far."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._front: Front = knowledge.base.front(layer)
            self._front.requires_grad_(False)
            if settings.start == "random":
                self._front = redrawn(self._front)
            hidden, mask = self._front(next(self._batches))
            scale, size = Scale(hidden[mask.bool()].detach()), hidden.shape[2]
            self.decoder = Decoder(TitleReader(knowledge.prompts).vocabulary, size, settings.width, scale)
            self._critic = Critic(size, settings.width, scale)
        self._prepare()

    def _prepare(self) -> None:
        """Learn to read the pilot, which, where it is free to, becomes easier to read; then it stays as it is."""
        learned = [parameter for parameter in self._front.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learned, PILOT_RATE) if learned else None
        for _ in range(self._settings.steps):
            self._budget.check()
            prompts = next(self._batches)
            self.decoder.learn(self._front(prompts), prompts)
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
        self._front.requires_grad_(False)

    def pull(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        """The gradient that is sent for what a client sent."""
        with torch.enable_grad():
            for _ in range(self._settings.critic_steps):
                self._budget.check()
                self._critic.learn(self._front(next(self._batches)), (hidden.detach(), mask))
            free = hidden.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._critic.distance((free, mask)), free)
        self.pulled += 1
        return gradient

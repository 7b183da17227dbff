"""One local step of a client: losses, gradients, and what defenses make of them, with its twin at the server.

Where no defense acts on local training a step is `PlainStep`: one loss, one backward pass. `DefendedStep` has the
places at which a defense comes in: gradients of single samples at both ends, what the ends tell each other, one
gradient made of it, and that changed once more. The server does the same for its part with a `Gradients` of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.cut import Randomness, TrunkProxy
from pplr_audit.models.recommenders.task import CatalogueEncoding, Task
from pplr_audit.threat_model.defense import PerSample
from pplr_audit.training.guards import Guards, Place
from pplr_audit.training.link import ApartSide, TrainingSide
from pplr_audit.training.per_sample import NoSamples, RowByRow


@dataclass(frozen=True)
class ClientPart:
    """The client's half of a cut model: one device that in a simulation plays all clients in turn."""

    model: Any
    """Front, proxy, back."""
    proxy: TrunkProxy | None
    """None where nothing lies between front and back."""
    parameters: Mapping[str, nn.Parameter]
    randomness: Randomness


class Gradients:
    """The gradients of one end's ``parameters`` in a client's local training of a round, where defenses act on them.

    Args:
        module: the end's part of the model; None where it has none.
        at: the client, the round and the end.
    """

    def __init__(self, guards: Guards, module: Any, parameters: Mapping[str, nn.Parameter], at: Place) -> None:
        self._guards, self._parameters, self._at = guards, dict(parameters), at
        self.by_sample = guards.act("samples")
        self._engine: PerSample = RowByRow(parameters)
        if self.by_sample and parameters:
            self._engine = guards.per_sample(module, parameters) or self._engine
        self._now = self._engine

    def begin(self, step: int, batch: int) -> None:
        """Begin a step of so many samples, maybe none."""
        self._at = replace(self._at, step=step, batch=batch)
        self._now = self._engine if batch else NoSamples(self._parameters)
        self._now.clear()

    def backward(self, output: Tensor, gradient: Tensor, entered: Tensor | None) -> Tensor | None:
        """Take the samples' gradients from ``output`` back; return that at ``entered``."""
        return self._now.backward(output, gradient, entered)

    def tell(self) -> dict[str, Tensor]:
        """Return what this end tells the other one."""
        return self._guards.tell(self._now, self._at) if self.by_sample and self._parameters else {}

    def finish(self, heard: Mapping[str, Tensor]) -> None:
        """Give each parameter the gradient that the optimizer gets."""
        if not self._parameters:
            return
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self._parameters.items()}
        if self.by_sample:
            found = self._guards.combine(self._now, heard, self._at, found)
        for name, value in self._guards.gradients(found, self._at).items():
            self._parameters[name].grad = value.detach()

    def close(self) -> None:
        """End the local training of the round."""
        self._engine.close()


class LocalStep(Protocol):
    """Takes the samples of one step through model, link and trunk, so that all parameters have their gradients."""

    def take(self, step: int, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> float | None:
        """Return the mean loss; None where there was no sample."""
        ...

    def close(self) -> None:
        """End the local training of the round."""
        ...


class PlainStep:
    """A step in which no defense acts."""

    def __init__(self, part: ClientPart, task: Task, client: str, round_: int) -> None:
        self._part, self._task, self._client, self._round = part, task, client, round_

    def take(self, step: int, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> float | None:
        with self._part.randomness.step(self._round, self._client, step):
            loss = self._task.loss(self._part.model, prompts, encoding)
            # front_activations and metadata up, trunk_activations down
            loss.backward()  # back_gradients up, trunk_gradients down
        return float(loss.detach())

    def close(self) -> None:
        """Nothing is held."""


class DefendedStep:
    """A step in which a defense draws the batch, or makes or changes the gradients."""

    def __init__(self, part: ClientPart, task: Task, side: TrainingSide, gradients: Gradients, at: Place) -> None:
        self._part, self._task, self._side, self._gradients, self._at = part, task, side, gradients, at
        self._plain = PlainStep(part, task, at.client, at.round)

    def take(self, step: int, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> float | None:
        self._gradients.begin(step, len(prompts))
        loss: float | None = None
        if not prompts:
            if self._part.proxy is not None:
                self._side.empty_step()
        elif self._gradients.by_sample:
            loss = self._by_sample(step, prompts, encoding)
        else:
            loss = self._plain.take(step, prompts, encoding)
        told, heard = self._gradients.tell(), {}
        if isinstance(self._side, ApartSide) and self._part.proxy is not None:
            heard = self._side.exchange(told)
        self._gradients.finish(heard)
        return loss

    def _by_sample(self, step: int, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> float:
        """Go back row by row: row i of all that crosses is of the loss of sample i, and not of a mean."""
        with self._part.randomness.step(self._at.round, self._at.client, step):
            losses = self._task.losses(self._part.model, prompts, encoding)
        if self._part.proxy is None:
            self._gradients.backward(losses, torch.ones_like(losses), None)
        else:
            assert isinstance(self._side, ApartSide)
            hidden, left = self._side.crossed()
            down = self._gradients.backward(losses, torch.ones_like(losses), left)
            assert down is not None
            self._gradients.backward(hidden, self._side.backward(down), None)
        return float(losses.detach().mean())

    def close(self) -> None:
        self._gradients.close()

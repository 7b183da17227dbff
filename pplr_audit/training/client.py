"""A client: it alone holds its users' histories, the front and the back of its model, and talks over a link only."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import Samples
from pplr_audit.models.lora import Adapter, adapter_off, load_adapter, read_adapter
from pplr_audit.models.recommenders.task import CatalogueEncoding, Tally, Task, Weights
from pplr_audit.training.divergence import diverged, diverged_before, of_adapter, of_loss, under
from pplr_audit.training.guards import Guards, Place
from pplr_audit.training.link import Link, ServingSide, TrainingSide
from pplr_audit.training.local_step import ClientPart, DefendedStep, Gradients, LocalStep, PlainStep
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Pull
from pplr_audit.training.schedule import batches, stretch
from pplr_audit.training.strategies.protocol import Local


@dataclass(frozen=True)
class Common:
    """All that the clients of one federation have in common."""

    task: Task
    """Says what the model reads, learns and recommends by."""
    part: ClientPart
    """The model's half to run on."""
    initial: Adapter
    """The adapter that all clients start from; each keeps its part of it."""
    training: scenario.Training
    seed: int
    """Fixes the order of batches."""
    local: Local
    """Changes that the strategy makes to local training."""
    guards: Guards
    """The defenses in force."""


@dataclass(frozen=True)
class LocalModel:
    """One model of a client between rounds, with all that its training goes on from."""

    adapter: Adapter
    """The client's part of it."""
    optimizer: OptimizerState
    encoding: CatalogueEncoding | None
    """The catalogue as the model goes by it; None: to be worked out first."""


@dataclass(frozen=True)
class _Descent:
    """The local steps that one of a client's models takes in a round."""

    round: int
    batches: Sequence[Int[np.ndarray, "batch"]]
    """The rows of the client's samples in each step."""
    pull: Pull
    first: int = 0
    """Number of the first step; a personal model's steps are numbered behind those of the shared one."""
    personal: bool = False
    stepping: Callable[[int], None] | None = None
    """Called with the number of each step before it."""
    stepped: Callable[[int, Mapping[str, Tensor]], None] | None = None
    """Called with the number of each step and its gradients, before they are gone."""


class Client:
    """One client's private data and state.

    Args:
        name: as in every file and finding.
        samples: its training samples; never leaves this object.
    """

    def __init__(self, name: str, samples: Samples, common: Common) -> None:
        self.name = name
        self._samples = samples
        self._task, self._part, self._training = common.task, common.part, common.training
        self._seed, self._local, self._guards = common.seed, common.local, common.guards
        self._lengths = common.task.prompts.lengths(samples.history, samples.targets)
        adapter = {n: common.initial[n] for n in common.part.parameters}
        start = LocalModel(adapter, OptimizerState(), common.task.base_encoding)
        self.shared = start
        self.personal = None if common.local.personal is None else start
        """None where the strategy has no personal model beside the shared one."""

    @property
    def served_model(self) -> LocalModel:
        """The model that the client's users meet."""
        return self.shared if self.personal is None else self.personal

    def join(self, link: Link) -> None:
        link.join(self.name, len(self._samples))

    def plan(self, round_: int) -> list[Int[np.ndarray, "batch"]]:
        """The rows of this client's samples in each local step of a round, those of a personal model last."""
        draw = self._guards.batches if self._guards.act("sampler") else None
        once = batches(self._lengths, self._training, draw, seed=self._seed, client=self.name, round_=round_)
        return once if self._local.personal is None else once + once

    def train_round(
        self, link: Link, round_: int, stepping: Callable[[int], None] | None = None,
        stepped: Callable[[int, Mapping[str, Tensor]], None] | None = None,
    ) -> float:  # fmt: skip
        """One round of local training against the trunk at the other end of ``link``; returns the mean loss.

        The loss is that of the shared model, without any proximal term.

        Args:
            stepping: called with the number of each step before it, for whoever looks on.
            stepped: called with the number of each step of the shared model and the client's gradients in it.

        Raises:
            RunError: the loss or the weights are not finite or have exploded.
        """
        start, plan = self.shared.adapter, self.plan(round_)
        own = len(plan) if self.personal is None else len(plan) // 2
        descent = _Descent(round_, plan[:own], Pull(self._local.proximal, start), stepping=stepping, stepped=stepped)
        self.shared, mean = self._descend(link, descent, self.shared)
        link.upload(self.name, round_, {n: start[n] - self.shared.adapter[n] for n in start}, mean)
        if self.personal is not None:
            pull = Pull(self._local.personal or 0.0, start)
            descent = _Descent(round_, plan[own:], pull, own, personal=True, stepping=stepping)
            self.personal, _ = self._descend(link, descent, self.personal)
            link.keep_personal(self.name)
        return mean

    def _descend(self, link: Link, descent: _Descent, model: LocalModel) -> tuple[LocalModel, float]:
        """Take the steps from ``model``; return what it has become, and the mean loss over samples."""
        part, encoding, round_ = self._part, model.encoding, descent.round
        load_adapter(part.parameters, model.adapter)
        where = stretch(len(self._samples), self._training, round_)
        optimizer = LocalOptimizer(part.parameters, self._training, where, model.optimizer, descent.pull)
        side = link.training(self.name, round_, personal=descent.personal, step=descent.first)
        if part.proxy is not None:
            part.proxy.endpoint = side
        part.model.train()
        losses: list[float] = []
        epoch_steps = len(descent.batches) // self._training.local_epochs
        with closing(self._local_step(side, round_)) as local:
            for step, rows in enumerate(descent.batches, descent.first):
                if descent.stepping is not None:
                    descent.stepping(step)
                if encoding is None or self._task.refreshes(round_, *divmod(step - descent.first, epoch_steps)):
                    encoding = self._refreshed(link, round_, step)
                value = local.take(step, self._prompts(rows), encoding)
                if descent.stepped is not None:
                    descent.stepped(step, {n: p.grad for n, p in part.parameters.items() if p.grad is not None})
                optimizer.step()
                side.finish_step()  # the server steps this client's trunk
                if value is not None:
                    self._require_sound_loss(value, descent, step)
                    losses.append(value * len(rows))
        after = read_adapter(part.parameters)
        self._require_sound_adapter(after, descent)
        return LocalModel(after, optimizer.state(), encoding), self._mean(losses, descent)

    def _local_step(self, side: TrainingSide, round_: int) -> LocalStep:
        """The step of this round's local training; the plain one where no defense acts on it."""
        part, guards, count = self._part, self._guards, len(self._samples)
        if not guards.act("sampler", "samples", "gradients"):
            return PlainStep(part, self._task, self.name, round_)
        size = min(self._training.batch_size, count)
        at = Place(self.name, round_, -1, "client", batch_size=size, samples=count)
        return DefendedStep(part, self._task, side, Gradients(guards, part.model, part.parameters, at), at)

    def _mean(self, losses: Sequence[float], descent: _Descent) -> float:
        """The mean loss over the samples of a round.

        A sampler may draw none at all. Then it is the loss of the last round that had some, and before any that of
        guessing among the items.
        """
        drawn = sum(map(len, descent.batches))
        if not self._guards.act("sampler"):
            return sum(losses) / drawn
        kept = self._guards.remembered(self.name, "personal" if descent.personal else "shared")
        if drawn:
            kept["loss"] = torch.tensor(sum(losses) / drawn, dtype=torch.float64)
        guessing = math.log(len(self._task.prompts.titles))
        return float(kept["loss"]) if "loss" in kept else guessing

    def _require_sound_loss(self, loss: float, descent: _Descent, step: int) -> None:
        wrong = of_loss(loss)
        if wrong is not None:
            # The first loss is that of the model as the round before left it: no step of this one had a part in it.
            failed = diverged_before if step == descent.first and descent.round > 1 else diverged
            error = failed(self._training, self.name, wrong, descent.round, step)
            raise under(self._guards.composed.name, error)

    def _require_sound_adapter(self, after: Adapter, descent: _Descent) -> None:
        # The last step has no loss after it that would show what it did, and a state that is saved counts as good.
        wrong = of_adapter(after)
        if wrong is not None:
            last = descent.first + len(descent.batches) - 1
            error = diverged(self._training, self.name, wrong, descent.round, last)
            raise under(self._guards.composed.name, error)

    def _prompts(self, rows: Int[np.ndarray, "batch"]) -> list[Prompt]:
        build, samples = self._task.prompts.build, self._samples
        return [build(samples.history[row], int(samples.targets[row])) for row in rows]

    def _refreshed(self, link: Link, round_: int, step: int) -> CatalogueEncoding:
        """Encode the public catalogue with the model as it is in the midst of training."""
        part = self._part
        part.model.eval()
        with _reaching(part, link.serving(self.name, "training", catalogue=True, step=(round_, step))):
            encoding = self._task.encode_catalogue(part.model)
        part.model.train()
        return encoding

    def receive(self, link: Link, round_: int) -> None:
        """After the balance of a round: take the model that the server made of several for this client."""
        self.receive_own(link, round_)
        averaged = self.shared.optimizer.after_averaging(self._training.averaging)
        self.shared = replace(self.shared, optimizer=averaged)

    def receive_own(self, link: Link, round_: int) -> None:
        """After the balance of a round: take this client's own model, which was mixed with no other."""
        self.shared = replace(self.shared, adapter=link.download(self.name, round_))
        if not self._task.settled(round_):
            self.shared = replace(self.shared, encoding=None)
            if self.personal is not None:
                self.personal = replace(self.personal, encoding=None)

    def resume(
        self, adapter: Mapping[str, Tensor], optimizer: OptimizerState, encoding: CatalogueEncoding | None
    ) -> None:
        """Take up the state at the start of a round; values of the server's layers are passed over.

        Args:
            encoding: what it goes by; None where that is worked out first.
        """
        self.shared = LocalModel(self._part_of(adapter), optimizer, encoding)

    def resume_personal(
        self, adapter: Mapping[str, Tensor], optimizer: OptimizerState, encoding: CatalogueEncoding | None
    ) -> None:
        """Take up the personal model at the start of a round, likewise."""
        self.personal = LocalModel(self._part_of(adapter), optimizer, encoding)

    def _part_of(self, adapter: Mapping[str, Tensor]) -> Adapter:
        return {n: adapter[n] for n in self._part.parameters}

    def served(self, link: Link, tally: Tally | None = None) -> "ServedClient":
        """This client's trained model as its users meet it: the trunk is reached over ``link``."""
        return ServedClient(self.name, self.served_model, self._part, link, Tally() if tally is None else tally)

    def encodings(self, round_: int) -> int:
        """Return how often a round encodes the catalogue, for a client that has taken part from the first round on."""
        if self._task.fixed:
            return 0
        models = 1 if self._local.personal is None else 2
        steps = len(self.plan(round_)) // models
        epoch_steps = steps // self._training.local_epochs
        return models * sum(self._task.refreshes(round_, *divmod(step, epoch_steps)) for step in range(steps))

    def positions(self, round_: int, steps: int | None = None) -> int:
        """Positions that cross in a round, padding included: each step's batch times its longest sequence.

        Args:
            steps: of which the first are counted, at most; all of them by default.
        """
        return sum(int(self._lengths[rows].max()) * len(rows) for rows in self.plan(round_)[:steps] if len(rows))


class ServedClient:
    """A client's personal model serving requests. Valid until the device trains or serves another client."""

    def __init__(
        self,
        name: str,
        model: LocalModel,
        part: ClientPart,
        link: Link,
        tally: Tally,
    ) -> None:
        self._name, self._part, self._link, self.encoding, self.tally = name, part, link, model.encoding, tally
        load_adapter(part.parameters, model.adapter)
        part.model.eval()

    @contextmanager
    def model(self, weights: Weights = "trained", *, catalogue: bool = False) -> Iterator[Any]:
        """Give the model for the length of a block; everything that it reads there crosses the cut."""
        off = adapter_off(self._part.model) if weights == "base" else nullcontext()
        with off, _reaching(self._part, self._link.serving(self._name, weights, catalogue=catalogue)):
            yield self._part.model


@contextmanager
def _reaching(part: ClientPart, side: ServingSide) -> Iterator[None]:
    """Within the block the proxy leads to ``side`` of the link, then to where it led before."""
    if part.proxy is None:
        yield
        return
    before, part.proxy.endpoint = part.proxy.endpoint, side
    try:
        yield
    finally:
        part.proxy.endpoint = before

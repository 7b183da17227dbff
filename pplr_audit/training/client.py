"""A client: it alone holds its users' histories, the front and the back of its model, and talks over a link only."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor, nn

from pplr_audit import scenario
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import Samples
from pplr_audit.models.cut import Randomness, TrunkProxy
from pplr_audit.models.lora import Adapter, adapter_off, load_adapter, read_adapter
from pplr_audit.models.recommenders.task import CatalogueEncoding, Tally, Task, Weights
from pplr_audit.training.divergence import diverged, diverged_before, of_adapter, of_loss
from pplr_audit.training.link import Link
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Pull
from pplr_audit.training.schedule import batches, stretch
from pplr_audit.training.strategies.protocol import Local


@dataclass(frozen=True)
class ClientPart:
    """The client's half of a cut model: one device that in a simulation plays all clients in turn."""

    model: Any
    """Front, proxy, back."""
    proxy: TrunkProxy | None
    """None where nothing lies between front and back."""
    parameters: Mapping[str, nn.Parameter]
    randomness: Randomness


class Client:
    """One client's private data and state.

    Args:
        name: as in every file and finding.
        samples: its training samples; never leaves this object.
        task: what the model reads, learns and recommends by.
        part: the model's half to run on.
        initial: the adapter that all clients start from (this client's part of it is kept).
        training: the scenario's training section.
        seed: of the order of batches.
        local: what the strategy changes in local training.
    """

    def __init__(
        self,
        name: str,
        samples: Samples,
        task: Task,
        part: ClientPart,
        initial: Adapter,
        training: scenario.Training,
        *,
        seed: int,
        local: Local | None = None,
    ) -> None:
        self.name = name
        self._samples = samples
        self._task = task
        self._part = part
        self._training = training
        self._seed = seed
        self._local = local or Local()
        self.adapter: Adapter = {n: initial[n] for n in part.parameters}
        self.optimizer = OptimizerState()
        self.personal: Adapter | None = None if self._local.personal is None else dict(self.adapter)
        """The client's part of its personal model; None where the strategy has none beside the shared model."""
        self.personal_optimizer = OptimizerState()
        self.encoding: CatalogueEncoding | None = task.base_encoding
        """What the shared model goes by, and `personal_encoding` the personal one; None: to be worked out first."""
        self.personal_encoding: CatalogueEncoding | None = None if self.personal is None else task.base_encoding
        self._lengths = task.prompts.lengths(samples.history, samples.targets)

    def join(self, link: Link) -> None:
        link.join(self.name, len(self._samples))

    def plan(self, round_: int) -> list[Int[np.ndarray, "batch"]]:
        """The rows of this client's samples in each local step of a round, those of a personal model last."""
        once = batches(self._lengths, self._training, seed=self._seed, client=self.name, round_=round_)
        return once if self._local.personal is None else once + once

    def train_round(self, link: Link, round_: int) -> float:
        """One round of local training against the trunk at the other end of ``link``; returns the mean loss.

        The loss is that of the shared model, without any proximal term.

        Raises:
            RunError: the loss or the weights are not finite or have exploded.
        """
        start, plan = self.adapter, self.plan(round_)
        own = len(plan) if self._local.personal is None else len(plan) // 2
        pull = Pull(self._local.proximal, start)
        self.adapter, self.optimizer, self.encoding, mean = self._descend(
            link, round_, plan[:own], 0, start, self.optimizer, self.encoding, pull
        )
        link.upload(self.name, round_, {n: start[n] - self.adapter[n] for n in start}, mean)
        if self.personal is not None:
            pull = Pull(self._local.personal or 0.0, start)
            self.personal, self.personal_optimizer, self.personal_encoding, _ = self._descend(
                link, round_, plan[own:], own, self.personal, self.personal_optimizer, self.personal_encoding, pull,
                personal=True,
            )  # fmt: skip
            link.keep_personal(self.name)
        return mean

    def _descend(
        self, link: Link, round_: int, plan: Sequence[Int[np.ndarray, "batch"]], first: int, start: Adapter,
        state: OptimizerState, encoding: CatalogueEncoding | None, pull: Pull, *, personal: bool = False,
    ) -> tuple[Adapter, OptimizerState, CatalogueEncoding | None, float]:  # fmt: skip
        """Local steps from ``start``, numbered from ``first``: adapter, optimizer and encoding after, and mean loss."""
        part = self._part
        load_adapter(part.parameters, start)
        where = stretch(len(self._samples), self._training, round_)
        optimizer = LocalOptimizer(part.parameters, self._training, where, state, pull)
        side = link.training(self.name, round_, personal=personal, step=first)
        if part.proxy is not None:
            part.proxy.endpoint = side
        part.model.train()
        losses: list[float] = []
        epoch_steps = len(plan) // self._training.local_epochs
        for step, rows in enumerate(plan, first):
            if encoding is None or self._task.refreshes(round_, *divmod(step - first, epoch_steps)):
                encoding = self._refreshed(link)
            with part.randomness.step(round_, self.name, step):
                loss = self._task.loss(part.model, self._prompts(rows), encoding)
                # front_activations and metadata up, trunk_activations down
                loss.backward()  # back_gradients up, trunk_gradients down
            optimizer.step()
            side.finish_step()  # the server steps this client's trunk
            value = float(loss.detach())
            wrong = of_loss(value)
            if wrong is not None:
                # The first loss is that of the model as the round before left it: no step of this one had a part in it.
                failed = diverged_before if step == first and round_ > 1 else diverged
                raise failed(self._training, self.name, wrong, round_, step)
            losses.append(value * len(rows))
        after = read_adapter(part.parameters)
        # The last step has no loss after it that would show what it did, and a state that is saved counts as good.
        wrong = of_adapter(after)
        if wrong is not None:
            raise diverged(self._training, self.name, wrong, round_, first + len(plan) - 1)
        return after, optimizer.state(), encoding, sum(losses) / sum(map(len, plan))

    def _prompts(self, rows: Int[np.ndarray, "batch"]) -> list[Prompt]:
        build, samples = self._task.prompts.build, self._samples
        return [build(samples.history[row], int(samples.targets[row])) for row in rows]

    def _refreshed(self, link: Link) -> CatalogueEncoding:
        """Encode the public catalogue with the model as it is in the midst of training."""
        part = self._part
        part.model.eval()
        with _reaching(part, link, self.name, "training", catalogue=True):
            encoding = self._task.encode_catalogue(part.model)
        part.model.train()
        return encoding

    def receive(self, link: Link, round_: int) -> None:
        """After the balance of a round: take the model that the server made of several for this client."""
        self.receive_own(link, round_)
        self.optimizer = self.optimizer.after_averaging(self._training.averaging)

    def receive_own(self, link: Link, round_: int) -> None:
        """After the balance of a round: take this client's own model, which was mixed with no other."""
        self.adapter = link.download(self.name, round_)
        if not self._task.settled(round_):
            self.encoding = self.personal_encoding = None

    def resume(
        self, adapter: Mapping[str, Tensor], optimizer: OptimizerState, encoding: CatalogueEncoding | None
    ) -> None:
        """Take up the state at the start of a round; values of the server's layers are passed over.

        Args:
            encoding: what it goes by; None where that is worked out first.
        """
        self.adapter = {n: adapter[n] for n in self._part.parameters}
        self.optimizer = optimizer
        self.encoding = encoding

    def resume_personal(
        self, adapter: Mapping[str, Tensor], optimizer: OptimizerState, encoding: CatalogueEncoding | None
    ) -> None:
        """Take up the personal model at the start of a round, likewise."""
        self.personal = {n: adapter[n] for n in self._part.parameters}
        self.personal_optimizer = optimizer
        self.personal_encoding = encoding

    def served(self, link: Link, tally: Tally | None = None) -> "ServedClient":
        """This client's trained model as its users meet it: the trunk is reached over ``link``."""
        adapter = self.adapter if self.personal is None else self.personal
        return ServedClient(
            self.name, adapter, self._part, link, self.served_encoding, Tally() if tally is None else tally
        )

    @property
    def served_encoding(self) -> CatalogueEncoding | None:
        """Encoding of the catalogue that belongs to the model that the client's users meet."""
        return self.encoding if self.personal is None else self.personal_encoding

    def encodings(self, round_: int) -> int:
        """Return how often a round encodes the catalogue, for a client that has taken part from the first round on."""
        if self._task.fixed:
            return 0
        models = 1 if self._local.personal is None else 2
        steps = len(self.plan(round_)) // models
        epoch_steps = steps // self._training.local_epochs
        return models * sum(self._task.refreshes(round_, *divmod(step, epoch_steps)) for step in range(steps))

    def positions(self, round_: int) -> int:
        """Positions that cross in a round, padding included: each step's batch times its longest sequence."""
        return sum(int(self._lengths[rows].max()) * len(rows) for rows in self.plan(round_))


class ServedClient:
    """A client's personal model serving requests. Valid until the device trains or serves another client."""

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        part: ClientPart,
        link: Link,
        encoding: CatalogueEncoding | None,
        tally: Tally,
    ) -> None:
        self._name, self._part, self._link, self.encoding, self.tally = name, part, link, encoding, tally
        load_adapter(part.parameters, adapter)
        part.model.eval()

    @contextmanager
    def model(self, weights: Weights = "trained", *, catalogue: bool = False) -> Iterator[Any]:
        """Give the model for the length of a block; everything that it reads there crosses the cut."""
        off = adapter_off(self._part.model) if weights == "base" else nullcontext()
        with off, _reaching(self._part, self._link, self._name, weights, catalogue=catalogue):
            yield self._part.model


@contextmanager
def _reaching(part: ClientPart, link: Link, client: str, weights: Weights, *, catalogue: bool) -> Iterator[None]:
    """Within the block the proxy leads to the trunk under these weights, for serving; then to where it led before."""
    if part.proxy is None:
        yield
        return
    before, part.proxy.endpoint = part.proxy.endpoint, link.serving(client, weights, catalogue=catalogue)
    try:
        yield
    finally:
        part.proxy.endpoint = before

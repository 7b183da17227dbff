"""A client: it alone holds its users' histories, the front and the back of its model, and talks over a link only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from pplr_audit import scenario
from pplr_audit.data.prompts import Prompt, Prompts, collate
from pplr_audit.data.samples import Samples
from pplr_audit.errors import RunError
from pplr_audit.models.bigrec import Tally, answer_loss, embed_titles, generate_titles, tensors
from pplr_audit.models.cut import Gap, Randomness, positions
from pplr_audit.models.lora import Adapter, adapter_off, load_adapter, read_adapter
from pplr_audit.pplr.link import Link
from pplr_audit.pplr.optimizer import LocalOptimizer, OptimizerState
from pplr_audit.pplr.schedule import batches, total_steps


@dataclass(frozen=True)
class ClientPart:
    """The client's half of a cut model: one device that in a simulation plays all clients in turn."""

    model: Any
    """A causal language model: front, gap, back."""
    gap: Gap | None
    """None where nothing lies between front and back."""
    parameters: Mapping[str, nn.Parameter]
    randomness: Randomness


class Client:
    """One client's private data and state.

    Args:
        name: as in every file and finding.
        samples: its training samples; never leaves this object.
        prompts: builds token sequences.
        part: the model's half to run on.
        initial: the adapter that all clients start from (this client's part of it is kept).
        training: the scenario's training section.
        seed: of the order of batches.
    """

    def __init__(
        self,
        name: str,
        samples: Samples,
        prompts: Prompts,
        part: ClientPart,
        initial: Adapter,
        training: scenario.Training,
        *,
        seed: int,
    ) -> None:
        self.name = name
        self._samples = samples
        self._prompts = prompts
        self._part = part
        self._training = training
        self._seed = seed
        self.adapter: Adapter = {n: initial[n] for n in part.parameters}
        self.optimizer = OptimizerState()
        self._built = [prompts.build(samples.history[i], int(samples.targets[i])) for i in range(len(samples))]

    def join(self, link: Link) -> None:
        link.join(self.name, len(self._samples))

    def plan(self, round_: int) -> list[Int[np.ndarray, "batch"]]:
        """The rows of this client's samples in each local step of a round."""
        return batches(len(self._samples), self._training, seed=self._seed, client=self.name, round_=round_)

    def train_round(self, link: Link, round_: int) -> float:
        """One round of local training against the trunk at the other end of ``link``; returns the mean loss.

        Raises:
            RunError: the loss is not finite.
        """
        part = self._part
        load_adapter(part.parameters, self.adapter)
        optimizer = LocalOptimizer(
            part.parameters, self._training, total_steps(len(self._samples), self._training), self.optimizer
        )
        side = link.training(self.name, round_)
        if part.gap is not None:
            part.gap.far_side = side
        part.model.train()
        losses: list[float] = []
        for step, rows in enumerate(self.plan(round_)):
            with part.randomness.step(round_, self.name, step):
                loss = self._loss(rows)  # front_activations and metadata up, trunk_activations down
                loss.backward()  # back_gradients up, trunk_gradients down
            optimizer.step()
            side.finish_step()  # the server steps this client's trunk
            losses.append(float(loss.detach()) * len(rows))
            if not np.isfinite(losses[-1]):
                raise RunError(
                    f"{self.name}: the loss is not finite in round {round_}, step {step}; try a lower "
                    f"training.learning_rate (now {self._training.learning_rate:g})"
                )
        mean = sum(losses) / (self._training.local_epochs * len(self._samples))
        after = read_adapter(part.parameters)
        update = {n: self.adapter[n] - after[n] for n in after}
        self.adapter, self.optimizer = after, optimizer.state()
        link.upload(self.name, round_, update, mean)
        return mean

    def receive(self, link: Link, round_: int) -> None:
        """After the balance of a round: take the personal model that the server made."""
        self.adapter = link.download(self.name, round_)

    def resume(self, adapter: Mapping[str, Tensor], optimizer: OptimizerState) -> None:
        """Take up the state at the start of a round; values of the server's layers are passed over."""
        self.adapter = {n: adapter[n] for n in self._part.parameters}
        self.optimizer = optimizer

    def served(self, link: Link, tally: Tally | None = None) -> "ServedClient":
        """This client's trained model as its users meet it: the trunk is reached over ``link``."""
        return ServedClient(self.name, self.adapter, self._part, self._prompts, link, tally)

    def positions(self, round_: int) -> int:
        """Positions that cross in a round, padding included: each step's batch times its longest sequence."""
        lengths = np.array([len(prompt) for prompt in self._built])
        return sum(int(lengths[rows].max()) * len(rows) for rows in self.plan(round_))

    def _loss(self, rows: Int[np.ndarray, "batch"]) -> Tensor:
        batch = collate([self._built[row] for row in rows], self._prompts.pad, loss_on=self._training.loss_on)
        tokens, mask, learned = tensors(batch)
        logits = self._part.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False
        ).logits
        return answer_loss(logits, tokens, learned)


class ServedClient:
    """A client's personal model serving requests. Valid until the device trains or serves another client."""

    def __init__(
        self, name: str, adapter: Adapter, part: ClientPart, prompts: Prompts, link: Link, tally: Tally | None
    ) -> None:
        self._name, self._part, self._prompts, self._link, self._tally = name, part, prompts, link, tally
        load_adapter(part.parameters, adapter)
        part.model.eval()

    def generate(self, prompts: Sequence[Prompt], beams: int) -> list[Int[np.ndarray, "length"]]:
        """A title for each prompt, as tokens; prompt and title cross the cut."""
        self._reach(base=False)
        return generate_titles(self._part.model, prompts, self._prompts, beams=beams, tally=self._tally)

    def embed(self, titles: Sequence[Int[np.ndarray, "length"]]) -> Float[np.ndarray, "titles hidden"]:
        """Points of titles in the base model's embedding space; the titles cross the cut."""
        self._reach(base=True)
        with adapter_off(self._part.model):
            return embed_titles(self._part.model, titles, self._prompts, tally=self._tally)

    def _reach(self, *, base: bool) -> None:
        if self._part.gap is not None:
            self._part.gap.far_side = self._link.serving(self._name, base=base)

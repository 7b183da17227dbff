"""The server: it hosts every client's trunk, balances the clients after each round, and sends each its own model.

What it knows of the clients' own layers is what crossed the link: the model it sent them, and their updates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from pplr_audit import scenario
from pplr_audit.models.backbones.transformers_api import remembering
from pplr_audit.models.cut import Randomness, positions
from pplr_audit.models.lora import Adapter, adapter_off, load_adapter, read_adapter
from pplr_audit.models.recommenders.task import Weights
from pplr_audit.training.divergence import diverged, mixed_badly, of_adapter
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Pull
from pplr_audit.training.schedule import stretch
from pplr_audit.training.strategies.averaging import averaged
from pplr_audit.training.strategies.check_mixing import checked
from pplr_audit.training.strategies.protocol import Contribution, Mixing, Strategy

OPEN_SESSIONS = 8
"""Generations in progress that the server remembers; the oldest is dropped for a new one."""


@dataclass(frozen=True)
class TrunkPart:
    """The server's half of a cut model; ``module`` is None where nothing lies between front and back."""

    module: Any
    parameters: Mapping[str, nn.Parameter]
    randomness: Randomness


@dataclass
class _Session:
    """A generation in progress: keys and values of the trunk, and the mask of the positions so far."""

    cache: DynamicCache
    mask: Int[Tensor, "batch total"] | None = None


class Server:
    """One object for all clients; each client has its own trunk adapter and optimizer state here.

    Args:
        trunk: the middle blocks.
        initial: the whole adapter that all clients start from.
        training: the scenario's training section.
        strategy: who learns what from whom.
        detailed: whether gradients of the trunk adapter are kept for a recorder at every step.
    """

    def __init__(
        self,
        trunk: TrunkPart,
        initial: Adapter,
        training: scenario.Training,
        strategy: Strategy,
        *,
        detailed: bool = False,
    ) -> None:
        self._trunk = trunk
        self._initial = initial
        self._training = training
        self._strategy = strategy
        self._detailed = detailed
        self.models: dict[str, Adapter] = {}
        """Each client's whole adapter as the server last set it."""
        self.optimizers: dict[str, OptimizerState] = {}
        self.personals: dict[str, Adapter] = {}
        """The trunk's part of each client's personal model, where the strategy has one beside the shared model."""
        self.personal_optimizers: dict[str, OptimizerState] = {}
        self._samples: dict[str, int] = {}
        self._contributions: dict[str, Contribution] = {}
        self._optimizer: LocalOptimizer | None = None
        self._round = 0
        self._steps = 0
        self._graph: tuple[Tensor, Tensor] | None = None
        self._sessions: dict[int, _Session] = {}
        self._opened = 0
        self._served: str | None = None

    def join(self, client: str, samples: int) -> None:
        self._samples[client] = samples
        self.models[client] = dict(self._initial)
        self.optimizers[client] = OptimizerState()
        if self._strategy.local.personal is not None:
            self.personals[client] = {n: self._initial[n] for n in self._trunk.parameters}
            self.personal_optimizers[client] = OptimizerState()

    # One round of one client.

    def start_round(self, client: str, round_: int) -> None:
        strength = self._strategy.local.proximal
        self._steps = 0
        self._start(client, round_, self.models[client], self.optimizers[client], strength)

    def start_personal(self, client: str, round_: int) -> None:
        """After the shared model's round: make ready for that of the client's personal model."""
        strength = self._strategy.local.personal or 0.0
        self._start(client, round_, self.personals[client], self.personal_optimizers[client], strength)

    def _start(self, client: str, round_: int, adapter: Adapter, state: OptimizerState, strength: float) -> None:
        self._round, self._served = round_, None
        load_adapter(self._trunk.parameters, adapter)
        self._optimizer = LocalOptimizer(
            self._trunk.parameters,
            self._training,
            stretch(self._samples[client], self._training, round_),
            state,
            # Until the balance this is the model that the round started from.
            Pull(strength, self.models[client]),
        )
        if self._trunk.module is not None:
            self._trunk.module.train()

    def forward(
        self, client: str, step: int, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        entered = hidden.detach().requires_grad_()
        with torch.enable_grad(), self._trunk.randomness.step(self._round, client, step):
            left = self._trunk.module(
                inputs_embeds=entered, attention_mask=mask, position_ids=positions(mask), use_cache=False
            ).last_hidden_state
        self._graph = entered, left
        return left.detach()  # type: ignore[no-any-return]

    def backward(self, gradient: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]:
        assert self._graph is not None
        entered, left = self._graph
        self._graph = None
        torch.autograd.backward(left, gradient)
        assert entered.grad is not None
        return entered.grad

    def finish_step(self) -> dict[str, Tensor]:
        """Step the trunk adapter; answers its gradients if somebody at the server looks."""
        assert self._optimizer is not None
        gradients: dict[str, Tensor] = {}
        if self._detailed:
            gradients = {n: p.grad.clone() for n, p in self._trunk.parameters.items() if p.grad is not None}
        self._optimizer.step()
        self._steps += 1
        return gradients

    def finish_round(self, client: str, update: dict[str, Tensor], loss: float) -> dict[str, Tensor]:
        """Take a client's update; answers that of its trunk.

        Both parts are rebuilt as before - (before - after), so that rounding does not depend on the cut.
        """
        assert self._optimizer is not None
        before = self.models[client]
        trunk_update = {n: before[n] - value for n, value in read_adapter(self._trunk.parameters).items()}
        whole = {**update, **trunk_update}
        self._require_sound(whole, client)
        self._contributions[client] = Contribution(
            client=client,
            adapter={n: before[n] - whole[n] for n in sorted(whole)},
            update={n: whole[n] for n in sorted(whole)},
            loss=loss,
            samples=self._samples[client],
        )
        self.optimizers[client] = self._optimizer.state()
        return trunk_update

    def finish_personal(self, client: str) -> None:
        """Put the trunk of a client's personal model away."""
        assert self._optimizer is not None
        self.personals[client] = read_adapter(self._trunk.parameters)
        self._require_sound(self.personals[client], client)
        self.personal_optimizers[client] = self._optimizer.state()

    def _require_sound(self, values: Mapping[str, Tensor], client: str) -> None:
        wrong = of_adapter(values)
        if wrong is not None:
            raise diverged(self._training, client, wrong, self._round, self._steps - 1)

    # Between rounds.

    def balance(self, round_: int, stopped: frozenset[str] = frozenset()) -> Mixing:
        """New models for all clients that trained in the round, all from one frozen snapshot.

        Those that did not train keep theirs, unless the strategy has one for them and they have not ``stopped``. Rows
        and columns of the answer are the clients that trained, in alphabetical order: in that order everything is
        summed, so that the order in which clients joined changes no bit.

        Raises:
            RunError: the strategy's answer mixes no models of these clients, or one that it made has exploded.
        """
        contributions = [self._contributions[client] for client in sorted(self._contributions)]
        answer = self._strategy.mixing(contributions, round_)
        mixing = checked(answer, len(contributions), self._training.label, round_)
        snapshot, how = [c.adapter for c in contributions], self._training.averaging
        new = averaged(snapshot, mixing.matrix, how)
        made = {c.client: adapter for c, adapter in zip(contributions, new, strict=True)}
        if mixing.absent is not None:
            (shared,) = averaged(snapshot, mixing.absent[None, :], how)
            made |= {c: dict(shared) for c in self.models.keys() - self._contributions.keys() - stopped}
        for client, adapter in made.items():
            wrong = of_adapter(adapter)  # weights may be negative, and refactored products are as large as they come
            if wrong is not None:
                raise mixed_badly(self._training, client, wrong, round_)
        self.models |= made
        own = {c.client for c, alone in zip(contributions, mixing.unmixed, strict=True) if alone}
        for client in made.keys() - own:  # whoever has the coordinates that it had keeps its moments
            self.optimizers[client] = self.optimizers[client].after_averaging(how)
        self._served = None
        self._contributions = {}
        return mixing

    def personal_model(self, client: str) -> dict[str, Tensor]:
        return {n: value for n, value in self.models[client].items() if n not in self._trunk.parameters}

    def resume(self, models: Mapping[str, Adapter], optimizers: Mapping[str, OptimizerState]) -> None:
        """Take up the state at the start of a round. Moments of the clients' own layers are passed over."""
        self._served = None
        self.models = {client: dict(models[client]) for client in self.models}
        self.optimizers = {client: optimizers[client] for client in self.models}

    def resume_personal(self, models: Mapping[str, Adapter], optimizers: Mapping[str, OptimizerState]) -> None:
        """Take up the personal models at the start of a round, likewise."""
        self._served = None
        self.personals = {client: {n: models[client][n] for n in self._trunk.parameters} for client in models}
        self.personal_optimizers = dict(optimizers)

    # Serving a trained model.

    def open_session(self) -> int:
        number = self._opened
        self._opened += 1
        # Its config says which blocks have a sliding window, whose keys and values are kept no longer than that.
        self._sessions[number] = _Session(DynamicCache(config=self._trunk.module.config))
        self._sessions.pop(number - OPEN_SESSIONS, None)
        return number

    def reorder(self, session: int, beams: Int[Tensor, "batch"]) -> None:
        held = self._sessions[session]
        held.cache.reorder_cache(beams)  # type: ignore[arg-type]  # any int64 tensor will do
        if held.mask is not None:
            held.mask = held.mask[beams]

    @torch.no_grad()
    def serve(
        self, client: str, session: int | None, hidden: Float[Tensor, "batch seq hidden"],
        mask: Int[Tensor, "batch seq"], weights: Weights,
    ) -> Float[Tensor, "batch seq hidden"]:  # fmt: skip
        """``mask`` is of the positions in ``hidden``; that of those before is the session's.

        With the weights of a training, between two of its steps, nothing of the training is changed.
        """
        module = self._trunk.module
        training = module.training
        module.eval()
        held = None if session is None else self._sessions[session]
        if held is not None:
            held.mask = mask = mask if held.mask is None else torch.cat([held.mask, mask], dim=1)
        where = positions(mask)[:, -hidden.shape[1] :]
        cache = None if held is None else held.cache
        if weights == "base":
            with adapter_off(module):
                out = module(inputs_embeds=hidden, attention_mask=mask, position_ids=where, use_cache=False)
        else:
            if weights == "trained" and self._served != client:
                load_adapter(self._trunk.parameters, self.personals.get(client, self.models[client]))
                self._served = client
            out = module(
                inputs_embeds=hidden, attention_mask=mask, position_ids=where, use_cache=cache is not None,
                **remembering(cache),
            )  # fmt: skip
        module.train(training)
        return out.last_hidden_state  # type: ignore[no-any-return]

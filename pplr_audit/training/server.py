"""The server: it hosts every client's trunk, balances the clients after each round, and sends each its own model.

What it knows of the clients' own layers is what crossed the link: the model it sent them, and their updates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from pplr_audit import scenario
from pplr_audit.errors import RunError
from pplr_audit.models.backbones.transformers_api import remembering
from pplr_audit.models.cut import Randomness, positions
from pplr_audit.models.lora import Adapter, adapter_off, load_adapter, read_adapter
from pplr_audit.models.recommenders.task import Weights
from pplr_audit.training.divergence import diverged, mixed_badly, of_adapter
from pplr_audit.training.guards import Guards, Place
from pplr_audit.training.local_step import Gradients
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Pull
from pplr_audit.training.schedule import stretch
from pplr_audit.training.strategies.averaging import averaged
from pplr_audit.training.strategies.balance import mix
from pplr_audit.training.strategies.check_mixing import TOLERANCE, checked
from pplr_audit.training.strategies.protocol import Contribution, Mixing, Strategy, sample_shares

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


@dataclass(frozen=True)
class Hosted:
    """What the local training of one client leaves at the server."""

    contribution: Contribution
    optimizer: OptimizerState
    personal: Adapter | None
    personal_optimizer: OptimizerState | None


class Server:
    """One object for all clients; each client has its own trunk adapter and optimizer state here.

    Args:
        trunk: the middle blocks.
        initial: the whole adapter that all clients start from.
        training: the scenario's training section.
        strategy: who learns what from whom.
        guards: the defenses in force.
        detailed: whether gradients of the trunk adapter are kept for a recorder at every step.
    """

    def __init__(
        self,
        trunk: TrunkPart,
        initial: Adapter,
        training: scenario.Training,
        strategy: Strategy,
        *,
        guards: Guards | None = None,
        detailed: bool = False,
    ) -> None:
        self._trunk = trunk
        self._initial = initial
        self._training = training
        self._strategy = strategy
        self._guards = Guards() if guards is None else guards
        self.detailed = detailed
        self.models: dict[str, Adapter] = {}
        """Each client's whole adapter as the server last set it."""
        self.optimizers: dict[str, OptimizerState] = {}
        self.personals: dict[str, Adapter] = {}
        """The trunk's part of each client's personal model, where the strategy has one beside the shared model."""
        self.personal_optimizers: dict[str, OptimizerState] = {}
        self._samples: dict[str, int] = {}
        self._contributions: dict[str, Contribution] = {}
        self._sum: dict[str, Tensor] | None = None
        self._optimizer: LocalOptimizer | None = None
        self._round = 0
        self._steps = 0
        self._graphs: dict[int, tuple[Tensor, Tensor]] = {}
        self._gradients: Gradients | None = None
        self._heard: dict[str, Tensor] = {}
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
        self._close()
        if self._guards.act("sampler", "samples", "gradients"):
            samples = self._samples[client]
            size = min(self._training.batch_size, samples)
            at = Place(client, round_, -1, "server", batch_size=size, samples=samples)
            self._gradients = Gradients(self._guards, self._trunk.module, self._trunk.parameters, at)

    def _close(self) -> None:
        """End whatever local training there was."""
        self._graphs.clear()
        if self._gradients is not None:
            self._gradients.close()
        self._gradients = None

    def forward(
        self, client: str, step: int, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"],
        pass_: int = 0,
    ) -> Float[Tensor, "batch seq hidden"]:  # fmt: skip
        """Run the trunk in a step, of which this is the forward pass number ``pass_``."""
        if self._gradients is not None and not pass_:
            self._gradients.begin(step, len(hidden))
        entered = hidden.detach().requires_grad_()
        with torch.enable_grad(), self._trunk.randomness.step(self._round, client, step):
            left = self._trunk.module(
                inputs_embeds=entered, attention_mask=mask, position_ids=positions(mask), use_cache=False
            ).last_hidden_state
        self._graphs[pass_] = entered, left
        return left.detach()  # type: ignore[no-any-return]

    def backward(
        self, gradient: Float[Tensor, "batch seq hidden"], pass_: int = 0
    ) -> Float[Tensor, "batch seq hidden"]:
        entered, left = self._graphs.pop(pass_)
        if self._gradients is not None and self._gradients.by_sample:
            down = self._gradients.backward(left, gradient, entered)
            assert down is not None
            return down
        torch.autograd.backward(left, gradient)
        assert entered.grad is not None
        return entered.grad

    def empty_step(self, client: str, step: int) -> None:
        """Take note that a client's step has no samples; it is finished as any other."""
        del client
        assert self._gradients is not None
        self._gradients.begin(step, 0)

    def exchange(self, heard: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take what a defense at the client tells its twin here; return what that one tells."""
        assert self._gradients is not None
        self._heard = heard
        return self._gradients.tell()

    def finish_step(self) -> dict[str, Tensor]:
        """Step the trunk adapter; answers its gradients if somebody at the server looks."""
        assert self._optimizer is not None
        if self._gradients is not None:
            self._gradients.finish(self._heard)
            self._heard = {}
        gradients: dict[str, Tensor] = {}
        if self.detailed:
            gradients = {n: p.grad.clone() for n, p in self._trunk.parameters.items() if p.grad is not None}
        self._optimizer.step()
        self._steps += 1
        return gradients

    def finish_round(self, client: str, update: dict[str, Tensor] | None, loss: float) -> dict[str, Tensor]:
        """Take a client's update, or None where only the sum of all will come; answers that of its trunk.

        Both parts are rebuilt as before - (before - after), so that rounding does not depend on the cut.
        """
        assert self._optimizer is not None
        before = self.models[client]
        trunk_update = {n: before[n] - value for n, value in read_adapter(self._trunk.parameters).items()}
        whole = {**(update or {}), **trunk_update}
        self._require_sound(whole, client)
        self._contributions[client] = Contribution(
            client=client,
            adapter={n: before[n] - whole[n] for n in sorted(whole)},
            update={n: whole[n] for n in sorted(whole)},
            loss=loss,
            samples=self._samples[client],
        )
        self.optimizers[client] = self._optimizer.state()
        self._close()
        return trunk_update

    def finish_personal(self, client: str) -> None:
        """Put the trunk of a client's personal model away."""
        assert self._optimizer is not None
        self.personals[client] = read_adapter(self._trunk.parameters)
        self._require_sound(self.personals[client], client)
        self.personal_optimizers[client] = self._optimizer.state()
        self._close()

    def hosted(self, client: str) -> "Hosted":
        """Return what a client's local training left here."""
        personal = self.personals.get(client), self.personal_optimizers.get(client)
        return Hosted(self._contributions[client], self.optimizers[client], *personal)

    def take_hosted(self, client: str, hosted: "Hosted") -> None:
        """Take what a client's local training left in a server that is a fork of this one."""
        self._contributions[client], self.optimizers[client] = hosted.contribution, hosted.optimizer
        if hosted.personal is not None and hosted.personal_optimizer is not None:
            self.personals[client], self.personal_optimizers[client] = hosted.personal, hosted.personal_optimizer

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
        contributions = self._defended(round_)
        answer = self._strategy.mixing(contributions, round_)
        mixing = checked(answer, len(contributions), self._training.label, round_)
        made = self._mixed(contributions, mixing, stopped, round_)
        for client, adapter in made.items():
            wrong = of_adapter(adapter)  # weights may be negative, and refactored products are as large as they come
            if wrong is not None:
                raise mixed_badly(self._training, client, wrong, round_)
        self.models |= made
        own = {c.client for c, alone in zip(contributions, mixing.unmixed, strict=True) if alone}
        for client in made.keys() - own:  # whoever has the coordinates that it had keeps its moments
            self.optimizers[client] = self.optimizers[client].after_averaging(self._training.averaging)
        self._served = None
        self._contributions, self._sum = {}, None
        return mixing

    def take_sum(self, total: dict[str, Tensor]) -> None:
        """Take the sum of the clients' updates of their own layers, each times the client's number of samples."""
        self._sum = total

    def _defended(self, round_: int) -> list[Contribution]:
        """The contributions as defenses let the strategy see them, in alphabetical order."""
        contributions = [self._contributions[client] for client in sorted(self._contributions)]
        if not self._guards.act("updates"):
            return contributions
        updates = self._guards.updates({c.client: dict(c.update) for c in contributions}, round_)
        return [replace(c, update=updates[c.client], adapter=self._after(c.client, updates)) for c in contributions]

    def _after(self, client: str, updates: Mapping[str, Mapping[str, Tensor]]) -> Adapter:
        before = self.models[client]
        return {name: before[name] - value for name, value in updates[client].items()}

    def _mixed(
        self, contributions: Sequence[Contribution], mixing: Mixing, stopped: frozenset[str], round_: int
    ) -> dict[str, Adapter]:
        """The new model of each client that gets one."""
        snapshot, how = [c.adapter for c in contributions], self._training.averaging
        new = averaged(snapshot, mixing.matrix, how)
        made = {c.client: adapter for c, adapter in zip(contributions, new, strict=True)}
        if mixing.absent is not None:
            (shared,) = averaged(snapshot, mixing.absent[None, :], how)
            made |= {c: dict(shared) for c in self.models.keys() - self._contributions.keys() - stopped}
        if self._sum is not None:
            own = self._averaged_sum(contributions, mixing, round_)
            made = {client: dict(sorted({**adapter, **own}.items())) for client, adapter in made.items()}
        return made

    def _averaged_sum(self, contributions: Sequence[Contribution], mixing: Mixing, round_: int) -> Adapter:
        """The clients' own layers in the average of those that trained, of which the server has no more than the sum.

        Raises RunError where the strategy mixes by other weights than the shares of samples.
        """
        assert self._sum is not None
        shares = sample_shares(contributions)
        rows = mixing.matrix if mixing.absent is None else np.vstack([mixing.matrix, mixing.absent])
        if not np.allclose(rows, shares, rtol=0, atol=TOLERANCE):
            raise RunError(
                f"{self._training.label}: the strategy says that it needs the sum of the updates only, and mixes in"
                f" round {round_} by other weights than the shares of samples"
            )
        before = [{name: self.models[c.client][name] for name in self._sum} for c in contributions]
        (start,) = mix(before, shares[None, :])
        total = sum(c.samples for c in contributions)
        return {name: (start[name].double() - value / total).to(start[name]) for name, value in self._sum.items()}

    def personal_model(self, client: str) -> dict[str, Tensor]:
        return {n: value for n, value in self.models[client].items() if n not in self._trunk.parameters}

    def resume(self, models: Mapping[str, Adapter], optimizers: Mapping[str, OptimizerState]) -> None:
        """Take up the state at the start of a round. Moments of the clients' own layers are passed over."""
        self._served = None
        self._contributions, self._sum = {}, None
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

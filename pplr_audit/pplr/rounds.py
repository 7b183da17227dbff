"""The federated loop, written once: every client trains, the server balances, every client gets its own model back."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pplr_audit import scenario
from pplr_audit.channels import Defense
from pplr_audit.data.prompts import Prompts
from pplr_audit.data.samples import Samples
from pplr_audit.models.cut import CutModel
from pplr_audit.models.lora import Adapter
from pplr_audit.pplr.client import Client, ClientPart
from pplr_audit.pplr.link import Link, Recorder
from pplr_audit.pplr.optimizer import OptimizerState
from pplr_audit.pplr.server import Server, TrunkPart
from pplr_audit.pplr.strategies.protocol import Mixing, Strategy


@dataclass(frozen=True)
class RoundState:
    """All that a round starts from: enough to continue a training, or to replay the round."""

    round: int
    """From 1; one more than the last round holds the trained models."""
    adapters: Mapping[str, Adapter]
    """Each client's whole adapter."""
    optimizers: Mapping[str, OptimizerState]


@dataclass(frozen=True)
class RoundLog:
    """What happened in one round."""

    round: int
    losses: Mapping[str, float]
    mixing: Mixing
    seconds: float
    sent: Mapping[str, int]
    """Bytes on the wire by channel, all clients together."""


@dataclass(frozen=True)
class Federation:
    """Clients and server around one link."""

    clients: tuple[Client, ...]
    server: Server
    link: Link

    def state(self, round_: int) -> RoundState:
        """What the next round, number ``round_``, starts from."""
        adapters, optimizers = {}, {}
        for client in self.clients:
            # A client's own layers are what it received; the server's are what the server set.
            adapters[client.name] = dict(sorted({**self.server.models[client.name], **client.adapter}.items()))
            moments = {**self.server.optimizers[client.name].moments, **client.optimizer.moments}
            optimizers[client.name] = OptimizerState(client.optimizer.steps, moments)
        return RoundState(round_, adapters, optimizers)

    def resume(self, state: RoundState) -> None:
        """Go back to what a round started from."""
        for client in self.clients:
            client.resume(state.adapters[client.name], state.optimizers[client.name])
        self.server.resume(state.adapters, state.optimizers)


def assemble(
    samples: Mapping[str, Samples],
    prompts: Prompts,
    parts: CutModel,
    initial: Adapter,
    training: scenario.Training,
    strategy: Strategy,
    *,
    seed: int,
    defenses: Sequence[Defense] = (),
    recorder: Recorder | None = None,
) -> Federation:
    """Clients (by name, in this order), the server, and the link, all at the start of round 1."""
    server = Server(
        TrunkPart(parts.trunk, parts.trunk_parameters, parts.trunk_randomness), initial, training, strategy,
        detailed=recorder is not None,
    )  # fmt: skip
    link = Link(server, defenses=defenses, seed=seed, recorder=recorder)
    device = ClientPart(parts.client, parts.gap, parts.client_parameters, parts.client_randomness)
    clients = tuple(Client(name, own, prompts, device, initial, training, seed=seed) for name, own in samples.items())
    for client in clients:
        client.join(link)
    return Federation(clients, server, link)


def train(
    federation: Federation,
    rounds: int,
    *,
    first: int = 1,
    done: Callable[[RoundLog, RoundState], None],
    advance: Callable[[str], None] = lambda note: None,
) -> None:
    """Rounds ``first`` to ``rounds``; ``done`` gets each round's log and what the next one starts from."""
    clients, server, link = federation.clients, federation.server, federation.link
    for round_ in range(first, rounds + 1):
        started, before = time.perf_counter(), link.sent.copy()
        losses = {}
        for client in clients:
            losses[client.name] = client.train_round(link, round_)
            advance(f"round {round_}, {client.name}")
        mixing = server.balance(round_)
        for client in clients:
            client.receive(link, round_)
        sent = {str(channel): count - before[channel] for channel, count in link.sent.items()}
        log = RoundLog(round_, losses, mixing, time.perf_counter() - started, sent)
        done(log, federation.state(round_ + 1))

"""The federated loop, written once: every client trains, the server balances, every client gets its own model back."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from pplr_audit import scenario
from pplr_audit.data.samples import Samples
from pplr_audit.models.cut import CutModel
from pplr_audit.models.lora import Adapter
from pplr_audit.models.recommenders.task import CatalogueEncoding, Task
from pplr_audit.threat_model.defense import Defense
from pplr_audit.training.client import Client, ClientPart
from pplr_audit.training.link import Link, Recorder
from pplr_audit.training.optimizer import OptimizerState
from pplr_audit.training.server import Server, TrunkPart
from pplr_audit.training.stopping import Best, judged, participants, stopped
from pplr_audit.training.strategies.protocol import Mixing, Strategy


@dataclass(frozen=True)
class RoundState:
    """All that a round starts from: enough to continue a training, or to replay the round."""

    round: int
    """From 1; one more than the last round holds the trained models."""
    adapters: Mapping[str, Adapter]
    """Each client's whole adapter, from which local training starts."""
    optimizers: Mapping[str, OptimizerState]
    personal: Mapping[str, Adapter] = field(default_factory=dict)
    """Each client's whole personal adapter, where the strategy has one beside the shared model."""
    personal_optimizers: Mapping[str, OptimizerState] = field(default_factory=dict)
    best: Mapping[str, Best] = field(default_factory=dict)
    """The best model of each client so far, where training stops early."""
    encodings: Mapping[str, CatalogueEncoding] = field(default_factory=dict)
    """What each client's model goes by from now on, where it is not worked out again and not the base model's."""
    personal_encodings: Mapping[str, CatalogueEncoding] = field(default_factory=dict)
    """Likewise of its personal model."""

    def served(self, client: str) -> Adapter:
        """Return the adapter that a client's users are served with if training ends here."""
        if client in self.best:
            return self.best[client].adapter
        return dict(self.personal.get(client, self.adapters[client]))

    def encoding(self, client: str) -> CatalogueEncoding | None:
        """Return the stored encoding of the catalogue for that model, or None."""
        if client in self.best and not self.best[client].remembered:
            return None  # what was kept is of the model as it was later
        return (self.personal_encodings if client in self.personal else self.encodings).get(client)

    def sent(self, client: str) -> Adapter:
        """Return the newest adapter of a client that the server made; a personal model never reaches the server."""
        return dict(self.adapters[client]) if client in self.personal else self.served(client)


@dataclass(frozen=True)
class RoundLog:
    """Record of one round."""

    round: int
    losses: Mapping[str, float]
    mixing: Mixing
    seconds: float
    sent: Mapping[str, int]
    """Bytes on the wire by channel, all clients together."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The validation metric of each client that measured it after the round."""
    receivers: Sequence[str] = ()
    """The clients that got a new model."""
    catalogue: int = 0
    """Of the bytes sent, those by which clients in training encoded the public catalogue."""
    alongside: float | None = None
    """Seconds that the round would take if its clients ran side by side, as they do where each is a machine of its own:
    those of the slowest client, and of the server. None in logs of earlier versions."""

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients that trained, in the order of the mixing's rows and columns."""
        return tuple(sorted(self.losses))


@dataclass(frozen=True)
class Federation:
    """Clients and server around one link."""

    clients: tuple[Client, ...]
    server: Server
    link: Link
    training: scenario.Training
    task: Task
    seed: int
    best: dict[str, Best] = field(default_factory=dict)

    def training_in(self, round_: int, best: Mapping[str, Best]) -> tuple[Client, ...]:
        """Return the clients that train in round ``round_``, drawn from those that have not stopped by what was
        ``best`` before.
        """
        gone = stopped(best, self.training.patience)
        names = [client.name for client in self.clients if client.name not in gone]
        drawn = participants(names, self.training.participation, seed=self.seed, round_=round_) if names else ()
        return tuple(client for client in self.clients if client.name in drawn)

    def state(self, round_: int) -> RoundState:
        """Return the state that the next round, number ``round_``, starts from."""
        adapters, optimizers = {}, {}
        for client in self.clients:
            # A client's own layers are what it received; the server's are what the server set.
            adapters[client.name] = dict(sorted({**self.server.models[client.name], **client.adapter}.items()))
            moments = {**self.server.optimizers[client.name].moments, **client.optimizer.moments}
            optimizers[client.name] = OptimizerState(client.optimizer.steps, moments)
        personal, personal_optimizers = {}, {}
        for name, trunk in self.server.personals.items():
            (client,) = (c for c in self.clients if c.name == name)
            personal[name] = dict(sorted({**trunk, **(client.personal or {})}.items()))
            moments = {**self.server.personal_optimizers[name].moments, **client.personal_optimizer.moments}
            personal_optimizers[name] = OptimizerState(client.personal_optimizer.steps, moments)
        encodings, personal_encodings = {}, {}
        if not self._with_base_encoding(round_):
            encodings = {c.name: c.encoding for c in self.clients if c.encoding is not None}
            personal_encodings = {c.name: c.personal_encoding for c in self.clients if c.personal_encoding is not None}
        return RoundState(
            round_, adapters, optimizers, personal, personal_optimizers, dict(self.best), encodings, personal_encodings
        )

    def _with_base_encoding(self, round_: int) -> bool:
        """True if all clients start the round with the base model's encoding of the catalogue."""
        return self.task.fixed or round_ == 1

    def encoding_in(self, state: RoundState, client: str) -> CatalogueEncoding | None:
        """Return the encoding that a client's shared model uses in a round's first step; None if it makes its own."""
        if self._with_base_encoding(state.round):
            return self.task.base_encoding
        return None if self.task.refreshes(state.round, 0, 0) else state.encodings.get(client)

    def resume(self, state: RoundState) -> None:
        """Go back to what a round started from."""
        base = self.task.base_encoding if self._with_base_encoding(state.round) else None
        for client in self.clients:
            name = client.name
            client.resume(state.adapters[name], state.optimizers[name], state.encodings.get(name, base))
            if name in state.personal:
                client.resume_personal(
                    state.personal[name], state.personal_optimizers[name], state.personal_encodings.get(name, base)
                )
        self.server.resume(state.adapters, state.optimizers)
        self.server.resume_personal(state.personal, state.personal_optimizers)
        self.best.clear()
        self.best.update(state.best)

    def deliver(self) -> None:
        """End a training: what each client serves from now on is its best model, where one was kept."""
        state = self.state(0)
        served = {client.name: state.served(client.name) for client in self.clients}
        # A best model from before its encoding was settled goes by one of its own.
        early = {name for name, best in self.best.items() if not best.remembered}
        kept = {name: encoding for name, encoding in state.encodings.items() if name not in early}
        kept_personal = {name: encoding for name, encoding in state.personal_encodings.items() if name not in early}
        state = replace(state, encodings=kept, personal_encodings=kept_personal)
        self.resume(replace(state, personal=served) if state.personal else replace(state, adapters=served))


def assemble(
    samples: Mapping[str, Samples],
    task: Task,
    parts: CutModel,
    initial: Adapter,
    training: scenario.Training,
    strategy: Strategy,
    *,
    seed: int,
    defenses: Sequence[Defense] = (),
    recorder: Recorder | None = None,
    kind: Callable[..., Server] = Server,
) -> Federation:
    """Clients (by name, in this order), the server (of a ``kind``), and the link, all at the start of round 1."""
    server = kind(
        TrunkPart(parts.trunk, parts.trunk_parameters, parts.trunk_randomness), initial, training, strategy,
        detailed=recorder is not None,
    )  # fmt: skip
    link = Link(server, defenses=defenses, seed=seed, recorder=recorder)
    device = ClientPart(parts.client, parts.proxy, parts.client_parameters, parts.client_randomness)
    clients = tuple(
        Client(name, own, task, device, initial, training, seed=seed, local=strategy.local)
        for name, own in samples.items()
    )
    for client in clients:
        client.join(link)
    return Federation(clients, server, link, training, task, seed)


def train(
    federation: Federation,
    rounds: int,
    *,
    first: int = 1,
    done: Callable[[RoundLog, RoundState], None],
    advance: Callable[[str], None] = lambda note: None,
    validate: Callable[[Client], float | None] | None = None,
) -> None:
    """Rounds ``first`` to ``rounds``; ``done`` gets each round's log and what the next one starts from.

    Once every client has stopped, the rounds that are left are empty: nobody trains and nothing crosses.

    Args:
        validate: how good a client's model is by its own validation items, None where it has none. Asked after every
            round where ``training.patience`` is set.
    """
    server, link = federation.server, federation.link
    for round_ in range(first, rounds + 1):
        started, before, encoded = time.perf_counter(), link.sent.copy(), link.catalogue_bytes
        gone = stopped(federation.best, federation.training.patience)
        chosen = federation.training_in(round_, federation.best)
        losses: dict[str, float] = {}
        own_time: dict[str, float] = {}
        for client in federation.clients:
            if client in chosen:
                with _timed(own_time, client.name):
                    losses[client.name] = client.train_round(link, round_)
            advance(f"round {round_}, {client.name}")
        encoded = link.catalogue_bytes - encoded
        mixing = server.balance(round_, gone) if chosen else Mixing(np.zeros((0, 0)))
        everyone = mixing.absent is not None
        receivers = [c for c in federation.clients if c in chosen or (everyone and c.name not in gone)]
        own = {name for name, alone in zip(sorted(losses), mixing.unmixed, strict=True) if alone}
        for client in receivers:
            with _timed(own_time, client.name):
                if client.name in own:
                    client.receive_own(link, round_)
                else:
                    client.receive(link, round_)
        metrics: dict[str, float] = {}
        if validate is not None and federation.training.patience is not None:
            following = federation.state(round_ + 1)
            for client in receivers:
                with _timed(own_time, client.name):
                    metric = validate(client)
                if metric is None:
                    continue
                link.report(client.name, round_, metric)
                model = following.personal.get(client.name, following.adapters[client.name])
                held = federation.best.get(client.name)
                remembered = client.served_encoding is not None
                federation.best[client.name] = judged(held, metric, round_, dict(model), remembered)
                metrics[client.name] = metric
        sent = {str(channel): count - before[channel] for channel, count in link.sent.items()}
        got = tuple(client.name for client in receivers)
        seconds = time.perf_counter() - started
        alongside = seconds - sum(own_time.values()) + max(own_time.values(), default=0.0)
        log = RoundLog(round_, losses, mixing, seconds, sent, metrics, got, encoded, alongside)
        done(log, federation.state(round_ + 1))


@contextmanager
def _timed(spent: dict[str, float], client: str) -> Iterator[None]:
    """Add the seconds of what is done inside to those of a client."""
    started = time.perf_counter()
    yield
    spent[client] = spent.get(client, 0.0) + time.perf_counter() - started

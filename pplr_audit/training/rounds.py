"""The federated loop, written once: every client trains, the server balances, every client gets its own model back."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np

from pplr_audit import scenario
from pplr_audit.data.samples import Samples
from pplr_audit.models.cut import CutModel
from pplr_audit.models.lora import Adapter
from pplr_audit.models.recommenders.task import CatalogueEncoding, Task
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.apart import trained_apart
from pplr_audit.training.client import Client, Common
from pplr_audit.training.defending import UNDEFENDED, Composed
from pplr_audit.training.guards import Guards, Kept
from pplr_audit.training.link import PLAIN, Link, Wire
from pplr_audit.training.local_step import ClientPart
from pplr_audit.training.onlooker import NoOnlooker, Onlooker
from pplr_audit.training.optimizer import OptimizerState
from pplr_audit.training.server import Server, TrunkPart
from pplr_audit.training.side_by_side import side_by_side, width
from pplr_audit.training.stopping import Best, judged, participants, stopped
from pplr_audit.training.strategies.protocol import Mixing, Strategy

_SENT = "training/sent/"
"""Names in `RoundState.kept` of the server's own copy of a model that it sent."""


@dataclass(frozen=True)
class RoundState:
    """All that a round starts from: enough to continue a training, or to replay the round."""

    round: int
    """Round from 1; one more than the last round holds the trained models."""
    adapters: Mapping[str, Adapter]
    """Each client's whole adapter, from which local training starts."""
    optimizers: Mapping[str, OptimizerState]
    personal: Mapping[str, Adapter] = field(default_factory=dict)
    """Each client's whole personal adapter, where the strategy has one beside the shared model."""
    personal_optimizers: Mapping[str, OptimizerState] = field(default_factory=dict)
    best: Mapping[str, Best] = field(default_factory=dict)
    """The best model of each client so far, where training stops early."""
    encodings: Mapping[str, CatalogueEncoding] = field(default_factory=dict)
    """Encoding that each client's model goes by from now on, where it is kept and is not the base model's."""
    personal_encodings: Mapping[str, CatalogueEncoding] = field(default_factory=dict)
    """Likewise of its personal model."""
    kept: Kept = field(default_factory=dict)
    """Memory of the defenses in force, by client, or under `ALL` what is about all clients."""

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
    """Bytes, among those sent, by which clients in training encoded the public catalogue."""
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
    guards: Guards
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
            adapters[client.name] = dict(sorted({**self.server.models[client.name], **client.shared.adapter}.items()))
            own = client.shared.optimizer
            moments = {**self.server.optimizers[client.name].moments, **own.moments}
            optimizers[client.name] = OptimizerState(own.steps, moments)
        personal, personal_optimizers = {}, {}
        own_models = {client.name: client.personal for client in self.clients if client.personal is not None}
        for name, trunk in self.server.personals.items():
            model = own_models[name]
            personal[name] = dict(sorted({**trunk, **model.adapter}.items()))
            moments = {**self.server.personal_optimizers[name].moments, **model.optimizer.moments}
            personal_optimizers[name] = OptimizerState(model.optimizer.steps, moments)
        encodings, personal_encodings = {}, {}
        if not self._with_base_encoding(round_):
            encodings = {c.name: c.shared.encoding for c in self.clients if c.shared.encoding is not None}
            personal_encodings = {n: model.encoding for n, model in own_models.items() if model.encoding is not None}
        return RoundState(
            round_, adapters, optimizers, personal, personal_optimizers, dict(self.best), encodings, personal_encodings,
            self._kept(),
        )  # fmt: skip

    def _kept(self) -> Kept:
        """What defenses remember, and the server's copies of the models that it sent where these arrived as others."""
        kept = self.guards.kept()
        if self.guards.on(Channel.PERSONAL_MODEL):
            for name, model in self.server.models.items():
                kept.setdefault(name, {}).update({f"{_SENT}{each}": value for each, value in model.items()})
        return kept

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
        sent = {name: dict(adapter) for name, adapter in state.adapters.items()}
        for name, kept in state.kept.items():
            sent.get(name, {}).update({n.removeprefix(_SENT): t for n, t in kept.items() if n.startswith(_SENT)})
        self.server.resume(sent, state.optimizers)
        self.server.resume_personal(state.personal, state.personal_optimizers)
        self.guards.resume(
            {client: {n: t for n, t in kept.items() if not n.startswith(_SENT)} for client, kept in state.kept.items()}
        )
        self.link.restart(state.round)
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


class Untrained(Protocol):
    """A model that was cut, with the adapter that training starts from. `models.build.Recommender` is one."""

    @property
    def task(self) -> Task: ...
    @property
    def parts(self) -> CutModel: ...
    @property
    def initial(self) -> Adapter: ...


def assemble(
    samples: Mapping[str, Samples],
    model: Untrained,
    training: scenario.Training,
    strategy: Strategy,
    *,
    seed: int,
    wire: Wire = PLAIN,
    defenses: Composed = UNDEFENDED,
    kind: Callable[..., Server] = Server,
) -> Federation:
    """Clients (by name, in this order), the server (of a ``kind``), and the link, all at the start of round 1.

    Args:
        defenses: in force throughout, at both ends.
    """
    parts, guards = model.parts, Guards(defenses, seed)
    server = kind(
        TrunkPart(parts.trunk, parts.trunk_parameters, parts.trunk_randomness), model.initial, training, strategy,
        guards=guards, detailed=wire.recorder is not None,
    )  # fmt: skip
    link = Link(server, wire, guards)
    device = ClientPart(parts.client, parts.proxy, parts.client_parameters, parts.client_randomness)
    common = Common(model.task, device, model.initial, training, seed, strategy.local, guards)
    clients = tuple(Client(name, own, common) for name, own in samples.items())
    for client in clients:
        client.join(link)
    return Federation(clients, server, link, training, model.task, seed, guards)


Validate = Callable[[Client], float | None]
"""Answers how good a client's model is by its own validation items; None where it has none."""


def train(
    federation: Federation,
    rounds: int,
    *,
    first: int = 1,
    done: Callable[[RoundLog, RoundState], None],
    advance: Callable[[str], None] = lambda note: None,
    validate: Validate | None = None,
    onlooker: Onlooker | None = None,
) -> None:
    """Rounds ``first`` to ``rounds``; ``done`` gets each round's log and what the next one starts from.

    Once every client has stopped, the rounds that are left are empty: nobody trains, and neither
    activations nor updates, models and losses cross.

    Args:
        validate: asked of every client with a new model after every round, where ``training.patience`` is set.
    """
    for round_ in range(first, rounds + 1):
        log = _train_round(federation, round_, advance, validate, onlooker or NoOnlooker())
        done(log, federation.state(round_ + 1))


def _train_round(
    federation: Federation, round_: int, advance: Callable[[str], None], validate: Validate | None, onlooker: Onlooker
) -> RoundLog:
    """One round: clients train, the server mixes, clients get their models and say how good they are."""
    link, watch = federation.link, _Watch()
    sent, catalogue = link.sent.copy(), link.catalogue_bytes
    losses = _train_clients(federation, round_, watch, advance, onlooker)
    catalogue = link.catalogue_bytes - catalogue
    mixing, receivers = _mix(federation, round_, losses, watch)
    metrics: dict[str, float] = {}
    if validate is not None and federation.training.patience is not None:
        metrics = _validate(federation, round_, receivers, watch, validate)
    crossed = {str(channel): count - sent[channel] for channel, count in link.sent.items()}
    got = tuple(client.name for client in receivers)
    seconds, alongside = watch.times()
    return RoundLog(round_, losses, mixing, seconds, crossed, metrics, got, catalogue, alongside)


def _train_clients(
    federation: Federation, round_: int, watch: "_Watch", advance: Callable[[str], None], onlooker: Onlooker
) -> dict[str, float]:
    """Train the clients whose turn it is; return the loss of each."""
    chosen = federation.training_in(round_, federation.best)
    # What defenses remember of a round is in many places; with them, one client trains after the other.
    together = width(len(chosen)) > 1 and not federation.guards.composed.defenses
    tasks = [partial(trained_apart, client, federation.server, federation.link, round_, onlooker) for client in chosen]
    apart = side_by_side(tasks) if together else iter(())
    losses: dict[str, float] = {}
    for client in federation.clients:
        if client in chosen:
            if together:
                with watch.waiting():
                    found = next(apart)
                losses[client.name], seen = found.take(client, federation.server, federation.link), found.seen
                watch.spent(client, found.seconds)
            else:
                with watch.of(client):
                    losses[client.name], seen = onlooker.train(client, federation.link, round_)
            onlooker.keep(round_, seen)
        advance(f"round {round_}, {client.name}")
    return losses


def _mix(
    federation: Federation, round_: int, losses: Mapping[str, float], watch: "_Watch"
) -> tuple[Mixing, list[Client]]:
    """Balance those who trained and hand out the models; return the weights, and who got a model."""
    gone = stopped(federation.best, federation.training.patience)
    federation.link.aggregate(round_)
    mixing = federation.server.balance(round_, gone) if losses else Mixing(np.zeros((0, 0)))
    everyone = mixing.absent is not None
    receivers = [c for c in federation.clients if c.name in losses or (everyone and c.name not in gone)]
    own = {name for name, alone in zip(sorted(losses), mixing.unmixed, strict=True) if alone}
    for client in receivers:
        with watch.of(client):
            if client.name in own:
                client.receive_own(federation.link, round_)
            else:
                client.receive(federation.link, round_)
    return mixing, receivers


def _validate(
    federation: Federation, round_: int, receivers: Sequence[Client], watch: "_Watch", validate: Validate
) -> dict[str, float]:
    """Measure the new models and keep the best of each client; return the metrics of those that have one."""
    following = federation.state(round_ + 1)
    metrics: dict[str, float] = {}
    for client in receivers:
        with watch.of(client):
            metric = validate(client)
        if metric is None:
            continue
        federation.link.report(client.name, round_, metric)
        model = following.personal.get(client.name, following.adapters[client.name])
        remembered = client.served_model.encoding is not None
        held = federation.best.get(client.name)
        federation.best[client.name] = judged(held, metric, round_, dict(model), remembered)
        metrics[client.name] = metric
    return metrics


class _Watch:
    """Measures a round: as a whole, and by client."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}
        self._wall = 0.0

    @contextmanager
    def of(self, client: Client) -> Iterator[None]:
        """Add the seconds of what is done inside to those of a client."""
        before = self._wall
        with self.waiting():
            yield
        self.spent(client, self._wall - before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave the time of what is done inside out of the server's."""
        started = time.perf_counter()
        yield
        self._wall += time.perf_counter() - started

    def spent(self, client: Client, seconds: float) -> None:
        """Add seconds to those of a client."""
        self._spent[client.name] = self._spent.get(client.name, 0.0) + seconds

    def times(self) -> tuple[float, float]:
        """Return the seconds of the round, and those that it would take if its clients ran side by side."""
        seconds = time.perf_counter() - self._started
        return seconds, seconds - self._wall + max(self._spent.values(), default=0.0)

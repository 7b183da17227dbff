"""Replay of a trained run: rounds run again with a tap at every block, requests served again.

A replayed round runs the same `Client.train_round` from the stored start of the round, so it yields what crossed at
every cut at once, and hands it on without storing it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.audit.queries import asked
from pplr_audit.audit.replay.catalogue import Keep, Titles, seen_of
from pplr_audit.audit.tap_points import OF_TRAINING, Trace
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.architectures import body
from pplr_audit.models.cut import CutModel
from pplr_audit.models.taps import Sink, tap, tappable
from pplr_audit.models.uncut import UncutModel
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.view import Answer, Record
from pplr_audit.training.client import Client
from pplr_audit.training.link import Link, Recorder
from pplr_audit.training.rounds import Federation, RoundState
from pplr_audit.training.side_by_side import side_by_side, width

MASKS = Trace("activation", -1)
"""Trace of the masks beside the activations, which lie at no layer."""
SERVED = (Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT)
"""Channels of serving that cross the cut."""
AT_ONCE = 2**27
"""Most bytes of records that are handed from one process to another in memory."""


@dataclass(frozen=True)
class Watched:
    """A sample's place among its client's training samples, and the opaque number that attacks know it by."""

    row: int
    sample: int
    length: int
    """Tokens of the sequence; what lies beyond is padding."""


def training_records(
    federation: Federation,
    parts: CutModel,
    state: RoundState,
    watched: Mapping[str, Sequence[Watched]],
    wanted: Collection[Trace],
    keep: Keep,
    *,
    every: bool = False,
) -> None:
    """Record what crosses at the ``wanted`` places in the round that ``state`` starts, for the watched samples.

    What a defense changes on the wire is recorded at the link, as its receiver got it; all else where two blocks meet.

    Of clients that did not train in the round there is no record. A sample that the round holds more than once (local
    epochs, a personal model beside the shared one) is recorded the first time, or ``every`` time. The federation is
    left in the middle of nowhere: resume it before it is used for anything else.
    """
    federation.resume(state)
    present = federation.training_in(state.round, state.best)
    received = _received(federation, parts, wanted)

    def record(client: Client, keep: Keep) -> None:
        watch = Watch(state.round, watched[client.name], wanted, every, received, federation.task.catalogue)
        train_watched(client, federation.link, parts, watch, keep)

    chosen = [client for client in federation.clients if watched.get(client.name) and client in present]
    few = bytes_of(federation, parts, chosen, watched, wanted, state.round) <= AT_ONCE
    if few and width(len(chosen)) > 1 and not federation.guards.composed.defenses:
        for kept in side_by_side([partial(_kept, record, client) for client in chosen]):
            for trace, recorded in kept:
                keep(trace, recorded)
        return
    for client in chosen:
        record(client, keep)


@dataclass(frozen=True)
class Watch:
    """What is recorded of one client's round: its samples, at some taps, the first time that they cross or each."""

    round: int
    samples: Sequence[Watched]
    traces: Collection[Trace]
    every: bool = False
    received: Mapping[Channel, Trace] = field(default_factory=dict)
    """Channels of which not what a tap sees is recorded, but what the link's receiver got."""
    catalogue: Sequence[Prompt] = ()
    """The public prompts that the client encodes, in this order."""


def train_watched(client: Client, link: Link, parts: CutModel, watch: Watch, keep: Keep) -> float:
    """Train a client's round as always, and keep what is watched; return the loss."""
    tapped_at = set(watch.traces) - set(watch.received.values())
    layers = {trace.layer for trace in tapped_at}
    gradients = any(trace.kind == "gradient" for trace in tapped_at)
    victims = {w.sample: w for w in watch.samples}
    titles, plan = Titles(watch.catalogue), client.plan(watch.round)
    look = _Lookout(client.name, watch.round, plan, victims, keep, titles=titles, every=watch.every)
    # Layer 0 is always tapped: it tells forward passes apart.
    tapped = [each for each in tappable(parts) if each.layer == 0 or each.layer in layers]
    before = link.recorder
    try:
        link.recorder = look.recorder(watch.received) if watch.received else before
        with tap(tapped, look.activation(tapped_at), of_pass=look.gradient(tapped_at) if gradients else None):
            return client.train_round(link, watch.round, look.begin_step)
    finally:
        link.recorder = before


def _kept(record: Callable[[Client, Keep], None], client: Client) -> list[tuple[Trace, Record]]:
    """Return a client's records, of a round that runs in a fork."""
    kept: list[tuple[Trace, Record]] = []
    record(client, lambda trace, recorded: kept.append((trace, recorded)))
    return kept


def bytes_of(
    federation: Federation, parts: CutModel, clients: Sequence[Client], watched: Mapping[str, Sequence[Watched]],
    wanted: Collection[Trace], round_: int,
) -> int:  # fmt: skip
    """Return about how many bytes the records of a round have."""
    tokens = sum(w.length for client in clients for w in watched[client.name]) * federation.training.local_epochs
    taps, catalogue = Counter(trace.kind == "catalogue" for trace in wanted), federation.task.catalogue
    times = sum(client.encodings(round_) + 1 for client in clients)
    titles = times * sum(len(catalogue[place]) for place in seen_of(catalogue))
    return (tokens * taps[False] + titles * taps[True]) * int(parts.client.config.hidden_size) * 4


def _received(federation: Federation, parts: CutModel, wanted: Collection[Trace]) -> dict[Channel, Trace]:
    """Return the channels on which a defense acts whose traces are wanted: taps see what the sender sent there."""
    at = {"front": parts.front, "back": parts.layers - parts.back}
    traces = {channel: Trace(kind, at[side]) for channel, (kind, side) in OF_TRAINING.items()}
    traces[Channel.INFERENCE_ACTIVATIONS] = Trace("catalogue", parts.front)  # nothing else is only encoded in a round
    return {c: trace for c, trace in traces.items() if federation.guards.on(c) and trace in wanted and parts.trunk}


@dataclass
class _Pass:
    """One forward pass of a step: the rows of the client's samples in it, and what was recorded of it."""

    step: int
    batch: int
    """Samples in the whole step."""
    rows: Int[np.ndarray, "rows"]
    done: set[Trace] = field(default_factory=set)


class _Lookout:
    """Called with what enters each block in each step of one client's round; keeps the victims' rows.

    The client tells when a step begins. Within it each forward pass takes the next rows of the step's batch, as one
    that goes sample by sample does; nearly always there is one pass with all of them, and none in an empty step.
    """

    def __init__(
        self, client: str, round_: int, plan: Sequence[Int[np.ndarray, "batch"]], victims: Mapping[int, Watched],
        keep: Keep, *, titles: Titles | None = None, every: bool = False,
    ) -> None:  # fmt: skip
        self._client, self._round, self._plan, self._titles = client, round_, plan, titles
        self._victims, self._keep, self._every = victims, keep, every
        self._step = -1
        self._passes: list[_Pass] = []
        self._entered = 0
        self._seen = Counter[tuple[Trace, int]]()

    def begin_step(self, step: int) -> None:
        self._step, self._passes, self._entered = step, [], 0
        if self._titles is not None:
            self._titles.begin()

    def activation(self, wanted: Collection[Trace]) -> Sink:
        """Return the sink of what enters a layer."""

        def sink(layer: int, hidden: Float[Tensor, "batch seq hidden"]) -> None:
            if not torch.is_grad_enabled():  # what is only encoded is the public catalogue
                self._encoded(Trace("catalogue", layer), hidden, wanted)
                return
            self._entered += layer == 0
            self._look(Trace("activation", layer), hidden, self._pass(self._entered - 1, len(hidden)), wanted)

        return sink

    def gradient(self, wanted: Collection[Trace]) -> Callable[[int], Callable[[Tensor], None]]:
        """Return what makes a sink for the gradient of the pass that is going on."""

        def of_pass(layer: int) -> Callable[[Tensor], None]:
            trace, now = Trace("gradient", layer), self._passes[-1] if self._passes else None
            return lambda values: None if now is None else self._look(trace, values, now, wanted)

        return of_pass

    def recorder(self, received: Mapping[Channel, Trace]) -> Recorder:
        """Return a recorder of what crosses the link on some channels."""

        def record(crossing: Crossing) -> None:
            trace = received.get(crossing.channel)
            if trace is not None and trace.kind == "catalogue":
                self._encoded(trace, crossing.tensors["hidden"], (trace,))
            elif trace is not None:
                (values,) = crossing.tensors.values()
                self._look(trace, values, self._pass(crossing.forward, len(values)), (trace,))

        return record

    def masks(self, crossing: Crossing) -> None:
        """Record the masks that the server was told: of each row what stands before its padding."""
        if crossing.channel == Channel.METADATA and len(crossing.tensors.get("mask", ())):
            mask = crossing.tensors["mask"].float()
            lengths = [int(row.nonzero().max()) + 1 if row.any() else 0 for row in mask]
            self._look(MASKS, mask, self._pass(crossing.forward, len(mask)), (MASKS,), lengths)

    def _encoded(self, trace: Trace, hidden: Float[Tensor, "batch seq hidden"], wanted: Collection[Trace]) -> None:
        if trace in wanted and self._titles is not None:
            for place, states in self._titles.of(trace, hidden):
                self._keep(trace, Record(place, self._client, self._round, self._step, states, len(hidden)))

    def _pass(self, number: int, count: int) -> _Pass:
        if number == len(self._passes):
            batch, before = self._plan[self._step], sum(len(each.rows) for each in self._passes)
            start = before % len(batch)
            self._passes.append(_Pass(self._step, len(batch), batch[start : start + count]))
        return self._passes[number]

    def _look(
        self, trace: Trace, values: Float[Tensor, "batch seq *hidden"], now: _Pass, wanted: Collection[Trace],
        lengths: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        if trace not in wanted or trace in now.done:
            return  # a backward pass in parts, sample by sample, comes after the whole one
        now.done.add(trace)
        for place, sample in enumerate(now.rows):
            victim = self._victims.get(int(sample))
            if victim is None or (self._seen[trace, victim.row] and not self._every):
                continue
            before = self._seen[trace, victim.row]
            self._seen[trace, victim.row] += 1
            tensor = values[place, : victim.length if lengths is None else lengths[place]].clone()
            record = Record(victim.row, self._client, self._round, now.step, tensor, now.batch, occurrence=before)
            self._keep(trace, record)


def received_masks(
    federation: Federation, state: RoundState, watched: Mapping[str, Sequence[Watched]], *, every: bool = False
) -> list[Record]:
    """Record the same as `mask_records` where a defense changes what is told: the round runs again for it.

    A sample that the round holds more than once is recorded the first time, or ``every`` time.
    """
    found: list[Record] = []
    federation.resume(state)
    before, present = federation.link.recorder, federation.training_in(state.round, state.best)
    for client in federation.clients:
        victims = {w.sample: w for w in watched.get(client.name, ())}
        if victims and client in present:
            plan = client.plan(state.round)
            look = _Lookout(
                client.name, state.round, plan, victims, lambda _, record: found.append(record), every=every
            )
            try:
                federation.link.recorder = look.masks
                client.train_round(federation.link, state.round, look.begin_step)
            finally:
                federation.link.recorder = before
    return found


def mask_records(
    plans: Mapping[str, Sequence[Int[np.ndarray, "batch"]]], round_: int, watched: Mapping[str, Sequence[Watched]]
) -> list[Record]:
    """The mask that crosses beside the activations of each watched sample, padding taken off: a 1 for each token.

    Nothing has to be run for it. A sample that the round holds more than once is recorded the first time.

    Args:
        plans: by client the rows of its samples in each step of the round.
    """
    records = []
    for client, victims in watched.items():
        place = {w.sample: w for w in victims}
        for step, rows in enumerate(plans[client]):
            found = [place.pop(int(sample)) for sample in rows if int(sample) in place]
            records += [Record(w.row, client, round_, step, torch.ones(w.length), len(rows)) for w in found]
    return records


def serving_records(
    whole: UncutModel, state: RoundState, requests: Mapping[str, Sequence[tuple[int, Prompt]]], layers: Sequence[int],
    keep: Keep,
) -> None:  # fmt: skip
    """Record h_l at each of ``layers`` while each client's trained model reads its users' prompts.

    Args:
        requests: per client, opaque number and prompt of each request.
    """
    for client, own in requests.items():
        prompts = [prompt for _, prompt in own]
        for place, states in whole.states(prompts, layers, state.served(client), serving=True):
            for layer, hidden in states.items():
                keep(Trace("activation", layer), Record(own[place][0], client, state.round, -1, hidden))


def received_records(
    federation: Federation, parts: CutModel, state: RoundState, requests: Mapping[str, Sequence[tuple[int, Prompt]]],
    keep: Keep,
) -> None:  # fmt: skip
    """Record the same at the cut that ran, as what a defense changes on the wire was received at the other end.

    Each request is a message of its own, with noise of its own. The federation is left serving the trained models.

    Args:
        requests: per client, opaque number and prompt of each request.
    """
    federation.resume(state)
    federation.deliver()
    federation.link.restart(state.round)  # behind the rounds, whose requests were others
    layers = {
        Channel.INFERENCE_ACTIVATIONS: parts.front, Channel.INFERENCE_OUTPUT: parts.layers - parts.back,
    }  # fmt: skip
    before, task = federation.link.recorder, federation.task
    for client in federation.clients:
        for row, prompt in requests.get(client.name, ()):

            def record(crossing: Crossing, row: int = row) -> None:
                trace = Trace("activation", layers[crossing.channel])
                hidden = crossing.tensors["hidden"][0].clone()
                keep(trace, Record(row, crossing.client, state.round, -1, hidden))

            try:
                federation.link.recorder = record
                with torch.no_grad(), client.served(federation.link).model() as model:
                    body(model)(**task.inputs(model, [prompt], serving=True))
            finally:
                federation.link.recorder = before


def query_records(
    whole: UncutModel, state: RoundState, queries: Mapping[str, Sequence[tuple[int, Prompt]]], *, held: bool = False
) -> list[Answer]:
    """Token log-probabilities of each query's answer, from the personal model of the client it was put to.

    Args:
        held: put the queries to the newest models that the server made, where clients have others of their own.
    """
    records = list[Answer]()
    for client, own in queries.items():
        encoding = state.encodings.get(client) if held else state.encoding(client)
        adapter = state.sent(client) if held else state.served(client)
        answers = asked(whole, [prompt for _, prompt in own], adapter, encoding)
        for (row, _), answer in zip(own, answers, strict=True):
            records.append(Answer(row, client, state.round, -1, torch.from_numpy(answer)))
    return records

"""Replay of a trained run: rounds run again with a tap at every block, requests served again.

A replayed round runs the same `Client.train_round` from the stored start of the round, so it yields what crossed at
every cut at once, and hands it on without storing it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.cut import CutModel
from pplr_audit.models.taps import tap, tappable
from pplr_audit.models.uncut import UncutModel
from pplr_audit.threat_model.view import Answer, Record
from pplr_audit.training.rounds import Federation, RoundState

Keep = Callable[[Trace, Record], None]
"""Called with every record; its tensor is nobody else's."""


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
) -> None:
    """Record what crosses at the ``wanted`` places in the round that ``state`` starts, for the watched samples.

    Of clients that did not train in the round there is no record. A sample that the round holds more than once (local
    epochs, a personal model beside the shared one) is recorded the first time. The federation is left in the middle of
    nowhere: resume it before it is used for anything else.
    """
    federation.resume(state)
    present = federation.training_in(state.round, state.best)
    layers = {trace.layer for trace in wanted}
    for client in federation.clients:
        victims = {w.sample: w for w in watched.get(client.name, ())}
        if not victims or client not in present:
            continue
        look = _Lookout(client.name, state.round, client.plan(state.round), victims, wanted, keep)
        # Layer 0 is always tapped: it is what counts the steps.
        tapped = [each for each in tappable(parts) if each.layer == 0 or each.layer in layers]
        gradients = any(trace.kind == "gradient" for trace in wanted)
        with tap(tapped, look.activation, look.gradient if gradients else None):
            client.train_round(federation.link, state.round)


class _Lookout:
    """Called with what enters each block in each step of one client's round; keeps the victims' rows."""

    def __init__(
        self, client: str, round_: int, plan: Sequence[Int[np.ndarray, "batch"]], victims: Mapping[int, Watched],
        wanted: Collection[Trace], keep: Keep,
    ) -> None:  # fmt: skip
        self._client, self._round, self._plan = client, round_, plan
        self._victims, self._wanted, self._keep = victims, wanted, keep
        self._step = -1
        self._seen: set[tuple[Trace, int]] = set()

    def activation(self, layer: int, hidden: Float[Tensor, "batch seq hidden"]) -> None:
        if not torch.is_grad_enabled():
            return  # what is only encoded, such as the public catalogue
        self._step += layer == 0
        self._look(Trace("activation", layer), hidden)

    def gradient(self, layer: int, gradient: Float[Tensor, "batch seq hidden"]) -> None:
        self._look(Trace("gradient", layer), gradient)

    def _look(self, trace: Trace, values: Float[Tensor, "batch seq hidden"]) -> None:
        if trace not in self._wanted:
            return
        rows = self._plan[self._step]
        for place, sample in enumerate(rows):
            victim = self._victims.get(int(sample))
            if victim is not None and (trace, victim.row) not in self._seen:
                self._seen.add((trace, victim.row))
                tensor = values[place, : victim.length].clone()
                record = Record(victim.row, self._client, self._round, self._step, tensor, len(rows))
                self._keep(trace, record)


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


def query_records(
    whole: UncutModel, state: RoundState, queries: Mapping[str, Sequence[tuple[int, Prompt]]]
) -> list[Answer]:
    """Token log-probabilities of each query's answer, from the personal model of the client it was put to."""
    records = list[Answer]()
    for client, own in queries.items():
        encoding = state.encoding(client)
        answers = whole.log_probs([prompt for _, prompt in own], state.served(client), encoding)
        for (row, _), answer in zip(own, answers, strict=True):
            records.append(Answer(row, client, state.round, -1, torch.from_numpy(answer)))
    return records

"""From a trained run to what an adversary saw: rounds run again with a tap at every block, requests served again.

A replayed round runs the same `Client.train_round` from the stored start of the round, so it yields what crossed at
every cut at once, and hands it on without storing it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.cut import CutModel, tap, tappable
from pplr_audit.models.whole import WholeModel
from pplr_audit.pplr.rounds import Federation, RoundState
from pplr_audit.views import Record


@dataclass(frozen=True)
class Watched:
    """A victim's place in its client's training samples, and the opaque number that attacks know it by."""

    row: int
    sample: int
    length: int
    """Tokens of the sequence; what lies beyond is padding."""


def training_records(
    federation: Federation,
    parts: CutModel,
    state: RoundState,
    watched: Mapping[str, Sequence[Watched]],
    layers: Sequence[int],
) -> dict[int, list[Record]]:
    """What enters each of ``layers`` in the round that ``state`` starts, for the watched samples of each client.

    Of clients that did not train in the round there is no record. A sample that the round holds more than once (local
    epochs, a personal model beside the shared one) is recorded the first time. The federation is left in the middle of
    nowhere: resume it before it is used for anything else.
    """
    federation.resume(state)
    present = federation.training_in(state.round, state.best)
    records: dict[int, list[Record]] = {layer: [] for layer in layers}
    for client in federation.clients:
        victims = {w.sample: w for w in watched.get(client.name, ())}
        if not victims or client not in present:
            continue
        look = _Lookout(client.name, state.round, client.plan(state.round), victims, records)
        # Layer 0 is always tapped: it is what counts the steps.
        blocks = [(layer, block) for layer, block in tappable(parts) if layer == 0 or layer in records]
        with tap(blocks, look):
            client.train_round(federation.link, state.round)
    return records


class _Lookout:
    """Called with what enters each block in each step of one client's round; keeps the victims' rows."""

    def __init__(
        self,
        client: str,
        round_: int,
        plan: Sequence[Int[np.ndarray, "batch"]],
        victims: Mapping[int, Watched],
        records: dict[int, list[Record]],
    ) -> None:
        self._client, self._round, self._plan = client, round_, plan
        self._victims, self._records = victims, records
        self._step = -1
        self._seen: set[tuple[int, int]] = set()

    def __call__(self, layer: int, hidden: Float[Tensor, "batch seq hidden"]) -> None:
        if not torch.is_grad_enabled():
            return  # what is only encoded, such as the public catalogue
        self._step += layer == 0
        if layer not in self._records:
            return
        for place, sample in enumerate(self._plan[self._step]):
            victim = self._victims.get(int(sample))
            if victim is not None and (layer, victim.row) not in self._seen:
                self._seen.add((layer, victim.row))
                tensor = hidden[place, : victim.length].clone()
                self._records[layer].append(Record(victim.row, self._client, self._round, self._step, tensor))


def serving_records(
    whole: WholeModel, state: RoundState, requests: Mapping[str, Sequence[tuple[int, Prompt]]], layers: Sequence[int]
) -> dict[int, list[Record]]:
    """What enters each of ``layers`` when each client's trained model reads its users' prompts.

    Args:
        requests: per client, opaque number and prompt of each request.
    """
    records: dict[int, list[Record]] = {layer: [] for layer in layers}
    for client, asked in requests.items():
        prompts = [prompt for _, prompt in asked]
        for place, states in whole.states(prompts, layers, state.served(client), serving=True):
            for layer, hidden in states.items():
                records[layer].append(Record(asked[place][0], client, state.round, -1, hidden))
    return records


def query_records(
    whole: WholeModel, state: RoundState, queries: Mapping[str, Sequence[tuple[int, Prompt]]]
) -> list[Record]:
    """Token log-probabilities of each query's answer, from the personal model of the client it was put to."""
    records = []
    for client, asked in queries.items():
        memory = state.memory(client)
        answers = whole.log_probs([prompt for _, prompt in asked], state.served(client), memory)
        for (row, _), answer in zip(asked, answers, strict=True):
            records.append(Record(row, client, state.round, -1, torch.from_numpy(answer)))
    return records


class KnownModel:
    """A model that an adversary can run: the whole model under one set of adapter values, or (None) the base model."""

    def __init__(self, whole: WholeModel, adapter: Mapping[str, Tensor] | None) -> None:
        self._whole, self._adapter = whole, adapter

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        return self._whole.states(prompts, layers, self._adapter)

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        return self._whole.log_probs(prompts, self._adapter)

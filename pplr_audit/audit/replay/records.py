"""From a trained run to what an adversary saw: rounds run again with a tap at every block, requests served again.

A replayed round runs the same `Client.train_round` from the stored start of the round, so it yields what crossed at
every cut at once, and hands it on without storing it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import NotApplicable
from pplr_audit.models.cut import CutModel, tap, tappable
from pplr_audit.models.recommenders.task import Memory
from pplr_audit.models.token_tree import Branches, Prefix
from pplr_audit.models.uncut import Front, WholeModel
from pplr_audit.threat_model.attack import Record
from pplr_audit.training.rounds import Federation, RoundState


@dataclass(frozen=True)
class Trace:
    """What is looked at: h_l, or dLoss/dh_l, at layer l from 0 to L."""

    kind: Literal["activation", "gradient"]
    layer: int


NO_MODEL = "this attack runs the model, and the adversary has no weights, only pairs of a colluding client"

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
    """What crosses where it is ``wanted`` in the round that ``state`` starts, of the watched samples of each client.

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
    whole: WholeModel, state: RoundState, requests: Mapping[str, Sequence[tuple[int, Prompt]]], layers: Sequence[int],
    keep: Keep,
) -> None:  # fmt: skip
    """What enters each of ``layers`` when each client's trained model reads its users' prompts.

    Args:
        requests: per client, opaque number and prompt of each request.
    """
    for client, asked in requests.items():
        prompts = [prompt for _, prompt in asked]
        for place, states in whole.states(prompts, layers, state.served(client), serving=True):
            for layer, hidden in states.items():
                keep(Trace("activation", layer), Record(asked[place][0], client, state.round, -1, hidden))


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
    """A model that an adversary can run: the whole model under one set of adapter values, or (None) the base model.

    Args:
        memory: what the model goes by, where the adversary knows it; else it works it out once.
    """

    def __init__(self, whole: WholeModel, adapter: Mapping[str, Tensor] | None, memory: Memory | None = None) -> None:
        self._whole, self._adapter, self._memory = whole, adapter, memory

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        return self._whole.states(prompts, layers, self._adapter)

    def extend(
        self, prefix: Prefix, tokens: Int[np.ndarray, "nodes"], parents: Sequence[int], layers: Sequence[int]
    ) -> Branches:
        return self._whole.extend(prefix, torch.from_numpy(tokens), parents, layers, self._adapter)

    @property
    def causal(self) -> bool:
        return self._whole.causal

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        return self._whole.log_probs(prompts, self._adapter, self._remembered())

    def recommend(
        self, history: Ragged, popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]]:
        """As `Task.recommend`."""
        served = self._whole.served(self._adapter, self._remembered())
        return self._whole.task.recommend(served, history, popularity)

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        return self._whole.enter(layer, embeddings, mask, self._adapter)

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        return self._whole.logits(layer, hidden, self._adapter, self._remembered())

    def front(self, layer: int) -> Front:
        return self._whole.front(layer, self._adapter)

    def _remembered(self) -> Memory:
        if self._memory is None:
            self._memory = self._whole.memory(self._adapter)
        return self._memory


class NoModel:
    """In the place of a model that an adversary does not have."""

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        raise NotApplicable(NO_MODEL)

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        raise NotApplicable(NO_MODEL)

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        raise NotApplicable(NO_MODEL)

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        raise NotApplicable(NO_MODEL)

    def extend(
        self, prefix: Prefix, tokens: Int[np.ndarray, "nodes"], parents: Sequence[int], layers: Sequence[int]
    ) -> Branches:
        raise NotApplicable(NO_MODEL)

    def front(self, layer: int) -> Front:
        raise NotApplicable(NO_MODEL)

    @property
    def causal(self) -> bool:
        raise NotApplicable(NO_MODEL)

"""The threat model as types: who sees what, what they know besides, and how an attack answers.

An attack is handed a `View` and `Knowledge` and nothing else. Rows are numbered without meaning; which user a row
belongs to, and what is true of it, stands in another object that attacks are never handed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.channels import Channel
from pplr_audit.data.prompts import Prompt, Prompts

Secret = Literal["history", "label", "membership", "attribute"]

SEES: Mapping[str, frozenset[Channel]] = {
    "trunk_host": frozenset(
        {
            Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.TRUNK_GRADIENTS,
            Channel.METADATA, Channel.TRUNK_UPDATE, Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT,
        }
    ),
    "aggregator": frozenset({Channel.CLIENT_UPDATE, Channel.STATUS, Channel.PERSONAL_MODEL}),
    "outsider": frozenset({Channel.MODEL_OUTPUT}),
}  # fmt: skip
"""What each adversary sees by itself."""


def channels_of(adversary: str) -> frozenset[Channel]:
    """Every channel that ``adversary`` sees; ``server`` is trunk host and aggregator in one, as in PPLR."""
    if adversary == "server":
        return SEES["trunk_host"] | SEES["aggregator"]
    return SEES[adversary]


@dataclass(frozen=True)
class Record:
    """What crossed of one row of one batch, padding taken off by the mask that crossed with it."""

    row: int
    client: str
    round: int
    step: int
    tensor: Float[Tensor, "length *width"]
    batch: int = 1
    """Rows of the batch that it crossed in."""
    beside: Mapping[Channel, Float[Tensor, "length *width"]] = field(default_factory=dict)
    """What crossed of the same row in the same step on the channels that the attack reads besides."""


@dataclass(frozen=True)
class View:
    """What one adversary saw at one cut under one defence, on the channel that an attack reads and those beside it.

    ``front`` and ``back`` are None where no such channel depends on that side of the cut.
    """

    adversary: str
    channel: Channel
    front: int | None
    back: int | None
    defense: str
    records: tuple[Record, ...]

    def shuffled(self, generator: np.random.Generator) -> "View":
        """The negative control: what crossed is dealt to other rows, of the same client where it has several.

        No record keeps its own, so there is nothing to find. Needs two records.
        """
        groups: dict[str, list[int]] = {}
        for place in generator.permutation(len(self.records)):
            groups.setdefault(self.records[place].client, []).append(int(place))
        rings = [ring for _, ring in sorted(groups.items()) if len(ring) > 1]
        alone = [ring[0] for _, ring in sorted(groups.items()) if len(ring) == 1]
        if len(alone) == 1 and rings:
            rings[0] = rings[0] + alone
        elif alone:
            rings.append(alone)
        dealt = list(self.records)
        for ring in rings:  # a cycle over a random order moves every record
            for place, other in zip(ring, [ring[-1], *ring[:-1]], strict=True):
                source = self.records[other]
                dealt[place] = replace(
                    self.records[place], tensor=source.tensor, step=source.step, batch=source.batch,
                    beside=source.beside,
                )  # fmt: skip
        return replace(self, records=tuple(dealt))


class Model(Protocol):
    """A model that the adversary can run by itself."""

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """What enters each of ``layers`` (from 0) for each prompt: its place, and h_l by l."""
        ...

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer."""
        ...

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        """What the model makes of ``hidden`` when it enters ``layer`` (L: the end of all blocks), differentiable.

        Of the next token at every position (batch, length, vocab), or, where a sequence is answered by one item, of
        the catalogue (batch, items).
        """
        ...


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an adversary knows besides its view; everything here is public or was sent to it."""

    level: str
    """``front``: every client's model at the start of the round, as PPLR's server has it; ``base``: public weights."""
    prompts: Prompts
    """The template and the catalogue's titles as tokens."""
    embeddings: Float[Tensor, "vocab hidden"]
    """The input word embeddings of the base model."""
    base: Model
    copies: Mapping[tuple[str, int], Model]
    """Each client's model as it stood at the start of a round, by (client, round); empty for level ``base``."""
    layers: tuple[int, ...]
    """Every front that this audit asks about, so that one pass can serve them all."""
    history: int
    """How many items a prompt holds at most."""
    depth: int
    """Blocks of the model."""
    queries: Mapping[int, Prompt] = field(default_factory=dict)
    """For an adversary who asks a model: what it asked, by row."""

    def copy(self, client: str, round_: int) -> Model:
        """The best copy of a client's model that the adversary has."""
        return self.copies.get((client, round_), self.base)


class BudgetExhausted(Exception):
    """An attack ran out of what it may spend."""


class Budget:
    """Seconds that an attack may spend on one cell, from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises BudgetExhausted once the time is up. Attacks call it between rows."""
        if time.monotonic() > self._end:
            raise BudgetExhausted(f"more than {self.seconds:g} s")


class NotApplicable(Exception):
    """The view cannot carry what the attack is after; the reason is the message."""


@dataclass(frozen=True)
class Guess:
    """An attack's answer, sealed before the truth is opened.

    For ``history``: ``rows``, ``token_offsets`` and ``tokens`` (one guess a position), ``slot_offsets`` and ``items``
    (slots, depth): the best items of the whole catalogue for each slot, oldest slot first.
    For ``label``: ``rows`` and ``labels`` (rows, depth): the best items of the whole catalogue for each row, the best
    first, -1 where there are fewer. An answer may hold several of these; each is scored where the truth is known.
    For ``membership``: ``rows`` and one score a row under the name of each mode; higher means member.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the report should say of how the answer was found; never scored."""


class Attack(Protocol):
    """Parameters in, one verb, a guess out. One that reads several channels at once names the others in `beside`."""

    name: str
    secret: Secret
    channels: frozenset[Channel]
    """The channels it can read, one at a time."""
    controls: int
    """How often the negative control is run (more for a score that is noisy over a shuffle)."""

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        """Raises NotApplicable or BudgetExhausted; any other error is reported as ``failed``."""
        ...


def beside(attack: Attack) -> frozenset[Channel]:
    """The channels that an attack needs besides the one it reads, of the same steps (`Record.beside`)."""
    return frozenset(getattr(attack, "beside", ()))

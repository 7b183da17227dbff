"""The threat model as types: who sees what, what they know besides, and how an attack answers.

An attack is handed a `View` and `Knowledge` and nothing else. Rows are numbered without meaning; which user a row
belongs to, and what is true of it, stands in another object that attacks are never handed.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pplr_audit.channels import Channel
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.models.tree import Branches, Prefix

Secret = Literal["history", "label", "membership", "attribute", "linkage"]

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
    """Every channel that ``adversary`` sees; ``server`` is trunk host and aggregator in one, as in PPLR.

    ``malicious_server`` sees no more, but chooses what it sends.
    """
    if adversary in ("server", "malicious_server"):
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


class Front(Protocol):
    """Embeddings and first blocks with weights of their own, whose adapter can be trained."""

    def __call__(self, prompts: Sequence[Prompt]) -> tuple[Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]]:
        """h_k of each prompt, padded on the right, and the mask of what is no padding; differentiable."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


class Model(Protocol):
    """A model that the adversary can run by itself."""

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """What enters each of ``layers`` (from 0) for each prompt: its place, and h_l by l."""
        ...

    @property
    def causal(self) -> bool:
        """Whether a token is read without those behind it (a decoder), so that prefixes can be extended."""
        ...

    def extend(
        self, prefix: Prefix, tokens: Int[np.ndarray, "nodes"], parents: Sequence[int], layers: Sequence[int]
    ) -> Branches:
        """What enters each of ``layers`` for a tree of tokens behind ``prefix``, of a causal model; each node has an
        earlier one as parent, or -1 where it follows the prefix. The prefix was read by this model, as deep at least.
        """
        ...

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer."""
        ...

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        """What enters ``layer`` when these stand in the place of the tokens' embeddings, differentiable."""
        ...

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        """What the model makes of ``hidden`` when it enters ``layer`` (L: the end of all blocks), differentiable.

        Of the next token at every position (batch, length, vocab), or, where a sequence is answered by one item, of
        the catalogue (batch, items).
        """
        ...

    def front(self, layer: int) -> Front:
        """A copy of the embeddings and the first ``layer`` blocks."""
        ...


class Colluder(Protocol):
    """A client that hands the adversary prompts of its own users, and what crossed of them."""

    client: str
    prompts: Sequence[Prompt]

    def states(
        self, places: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """As `Model.states`, of those of its prompts at ``places``."""
        ...


Pair = tuple[Int[Tensor, "length"], dict[int, Float[Tensor, "length hidden"]]]
"""The tokens of a prompt, and h_l by l."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an adversary knows besides its view; everything here is public or was sent to it."""

    level: str
    """``front``: every client's model at the start of the round, as PPLR's server has it; ``base``: public weights;
    ``auxiliary``: no weights at all, only what a colluding client hands on."""
    prompts: Prompts
    """The template and the catalogue's titles as tokens."""
    embeddings: Float[Tensor, "vocab hidden"]
    """The input word embeddings of the base model; of level ``auxiliary`` the adversary's own codes of the words."""
    base: Model
    copies: Mapping[tuple[str, int], Model]
    """Each client's model as it stood at the start of a round, by (client, round); empty for level ``base``."""
    layers: tuple[int, ...]
    """Every front that this audit asks about, so that one pass can serve them all."""
    history: int
    """How many items a prompt holds at most."""
    depth: int
    """Blocks of the model."""
    _: KW_ONLY
    loss_on: str = "title"
    """What is trained on, as the public scenario says: the answer's tokens (``title``), or ``all``."""
    queries: Mapping[int, Prompt] = field(default_factory=dict)
    """For an adversary who asks a model: what it asked, by row."""
    auxiliary: Literal["matched", "public", "none"] = "matched"
    """The text that it runs its copies on: over the same catalogue, over another one, or none."""
    elsewhere: Prompts | None = None
    """The template over that other catalogue."""
    colluder: Colluder | None = None
    """Of level ``auxiliary``."""
    known_attributes: Mapping[int, str] = field(default_factory=dict)
    """For an attack on an attribute: its value, by row, for the users of whom it is known; the others are asked for."""

    def copy(self, client: str, round_: int) -> Model:
        """The best copy of a client's model that the adversary has."""
        return self.copies.get((client, round_), self.base)

    @property
    def facts(self) -> dict[str, Any]:
        """What a finding says of it besides its level; who asks a model learns from no text."""
        if self.colluder is not None:
            return {"colluder": self.colluder.client}
        return {} if self.queries else {"auxiliary": self.auxiliary}

    def source(self, client: str, round_: int) -> tuple[str, int]:
        """Whose `pairs` a client's are: clients with the same source share them, and all that is learned from them."""
        if self.colluder is not None:
            return self.colluder.client, round_
        return (client, round_) if (client, round_) in self.copies else ("", 0)

    def text(self) -> Prompts:
        """The template over the catalogue that auxiliary prompts are drawn from. Raises NotApplicable where none is."""
        text = self.elsewhere if self.auxiliary == "public" else self.prompts
        if self.auxiliary == "none" or text is None:
            raise NotApplicable("the adversary has no auxiliary text, and this attack learns from some")
        return text

    def pairs(
        self, client: str, round_: int, layers: Sequence[int], count: int, held_out: int, seed: int
    ) -> tuple[Iterator[Pair], Iterator[Pair]]:
        """What to learn the inversion of a client's front from: ``count`` prompts to fit on, ``held_out`` to choose by.

        They are prompts over random items, each as likely as any other and none of a real user, run through the best
        copy of the client's model; or those of the colluding client, fewer where it has not so many.

        Raises:
            NotApplicable: there is no auxiliary text, or the colluding client has less than two prompts.
        """
        generator = np.random.default_rng(seed)
        if self.colluder is not None:
            own = self.colluder.prompts
            if len(own) < 2:
                raise NotApplicable(f"{self.colluder.client}, who colludes, has {len(own)} prompts, and two are needed")
            held_out = min(held_out, max(1, len(own) // 5))
            order = [int(place) for place in generator.permutation(len(own))][: count + held_out]
            prompts = [own[place] for place in order]
            held, fit = (self.colluder.states(part, layers) for part in (order[:held_out], order[held_out:]))
            return _paired(prompts[held_out:], fit), _paired(prompts[:held_out], held)
        text = self.text()
        drawn = [text.random(self.history, generator) for _ in range(count + held_out)]
        fit_on, choose_on, model = drawn[:count], drawn[count:], self.copy(client, round_)
        return _paired(fit_on, model.states(fit_on, layers)), _paired(choose_on, model.states(choose_on, layers))


def _paired(
    prompts: Sequence[Prompt], states: Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]
) -> Iterator[Pair]:
    return ((torch.from_numpy(prompts[place].tokens), by_layer) for place, by_layer in states)


class BudgetExhausted(Exception):
    """An attack ran out of what it may spend."""


class Budget:
    """Seconds that an attack may spend on one cell, from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises BudgetExhausted once the time is up. Attacks call it between rows."""
        if not self.left():
            raise BudgetExhausted(f"more than {self.seconds:g} s")

    def left(self, share: float = 1.0) -> bool:
        """Whether less than ``share`` of the time has gone: for an attack that may do more, or less, for a row."""
        return time.monotonic() <= self._end - (1 - share) * self.seconds


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
    For ``attribute``: ``rows`` and ``values`` (rows, values): a score for each of the known values, in alphabetical
    order, higher where it is the likelier; rows of users whose value is known are passed over.
    For ``linkage``: ``rows``, and for pairs of rows ``first``, ``second`` (row numbers) and ``scores``, higher where
    the two are the likelier of one user; pairs within a client are enough.
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


def asked_attribute(attack: Attack) -> tuple[str, float]:
    """Which attribute an attack on one is after (`attribute`), and of what share of the users it knows it (`known`)."""
    return str(getattr(attack, "attribute", "")), float(getattr(attack, "known", 0.5))


Lure = Callable[[Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]], Float[Tensor, "batch seq hidden"]]
"""From what a client sent in a step of training, h_k and its mask, to the gradient that it is sent back."""


class Active(Attack, Protocol):
    """An attack by a server that also chooses what it sends: a training of its own is run at every front.

    Its `run` then gets what crossed of the victims in the last round of that training, and the same knowledge.
    """

    active: Literal[True]

    def lure(self, knowledge: Knowledge, front: int, budget: Budget) -> Lure:
        """What the server sends in place of dLoss/dh_k; called before the training, at cut k = ``front``."""
        ...


def as_active(attack: Attack) -> Active | None:
    """The attack, if it is one by a server that chooses what it sends."""
    return cast(Active, attack) if getattr(attack, "active", False) else None

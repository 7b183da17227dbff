"""A view and the observations in it: all that one adversary recorded on a channel, and its control, shuffled.

An observation has a type: a sequence that crossed, an answer to a query, an update of one client and round, or a sum of
updates. Each type says how it is dealt to others, so that there is nothing to find.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, Self

import numpy as np
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypeVar

from pplr_audit.threat_model.channels import Channel


class Observation(Protocol):
    """One thing that an adversary recorded."""

    @property
    def row(self) -> int:
        """The number that it goes by in the view; an answer speaks of rows."""
        ...

    @property
    def round(self) -> int: ...
    @property
    def step(self) -> int:
        """The local step in which it crossed; -1 for what crosses once a round."""
        ...

    @property
    def occurrence(self) -> int:
        """Tells what crossed of one row in one round apart."""
        ...

    @property
    def tensors_read(self) -> Iterable[Float[Tensor, "*shape"]]:
        """All that an attack would compute with."""
        ...

    def ring(self, newest: int) -> str | None:
        """Return the name of those among which it is dealt, or None where it stays; ``newest``: the last round."""
        ...

    def dealt(self, source: Self) -> Self:
        """Return the same row with what crossed of another."""
        ...


@dataclass(frozen=True)
class Record:
    """One row of one batch as it crossed, padding taken off by the mask that crossed with it."""

    row: int
    client: str
    round: int
    step: int
    tensor: Float[Tensor, "length *width"]
    batch: int = 1
    """Rows of the batch that it crossed in."""
    also_reads: Mapping[Channel, Float[Tensor, "length *width"]] = field(default_factory=dict)
    """Tensors of the same row and step on the other channels that the attack reads."""
    occurrence: int = 0
    """Number of times that the row had crossed before in its round: in earlier epochs, or of another model."""
    generated: Float[Tensor, "new *width"] | None = None
    """Tensor of the tokens that a served model generated behind the row's prompt, which crossed one by one; None where
    there is none."""

    @property
    def tensors_read(self) -> Iterable[Float[Tensor, "*shape"]]:
        return (self.tensor, *self.also_reads.values(), *([self.generated] if self.generated is not None else []))

    def ring(self, newest: int) -> str | None:
        """Rows are dealt among those of their client."""
        del newest
        return self.client

    def dealt(self, source: Self) -> Self:
        return replace(
            self, tensor=source.tensor, step=source.step, batch=source.batch, also_reads=source.also_reads,
            generated=source.generated,
        )  # fmt: skip


class Answer(Record):
    """A model's answer to the query of the row (`Knowledge.queries`): log-probabilities of its tokens.

    ``client`` is the one whose personal model answered.
    """


@dataclass(frozen=True)
class Update:
    """Named tensors that crossed once in a round of one client: its update, its new model, or its status.

    A ``client_update`` and a ``trunk_update`` are before - after, and so point downhill. ``personal_model`` holds the
    weights that came back, ``status`` the training loss, and the metric that decides stopping where there is one.
    With a ``step`` of 0 or more it is the gradient of the trunk's tensors in that local step, which the host computes.
    """

    row: int
    client: str
    """Its client; empty where naming it is the question."""
    round: int
    tensors: Mapping[str, Float[Tensor, "*shape"]]
    """Tensors by absolute name."""
    start: Mapping[str, Float[Tensor, "*shape"]] = field(default_factory=dict)
    """The adapter that it started from, as far as the adversary has it: for an update the model at the start of the
    round, for a personal model the client's own before mixing."""
    step: int = -1

    @property
    def occurrence(self) -> int:
        """Tells the updates of one row and round apart: those of single steps."""
        return self.step

    @property
    def tensors_read(self) -> Iterable[Float[Tensor, "*shape"]]:
        return self.tensors.values()

    def ring(self, newest: int) -> str | None:
        """Updates of the newest round are dealt among its clients; those of earlier ones stay, as they are known."""
        return "" if self.round == newest else None

    def dealt(self, source: Self) -> Self:
        return replace(self, tensors=source.tensors, start=source.start)


@dataclass(frozen=True)
class Aggregate:
    """The sum of several clients' updates in one round, each times its client's samples, as in secure aggregation."""

    row: int
    clients: tuple[str, ...]
    """The clients whose updates are in it."""
    round: int
    tensors: Mapping[str, Float[Tensor, "*shape"]]
    """Tensors by absolute name."""
    step: int = -1

    @property
    def occurrence(self) -> int:
        """A round has one sum."""
        return 0

    @property
    def tensors_read(self) -> Iterable[Float[Tensor, "*shape"]]:
        return self.tensors.values()

    def ring(self, newest: int) -> None:
        """A round has one sum, and nobody to deal it to."""
        del newest

    def dealt(self, source: Self) -> Self:
        return replace(self, tensors=source.tensors, clients=source.clients)


Traffic = Callable[[str, int], Iterator[Float[Tensor, "length hidden"]]]
"""Function from a client and a round to everything that crossed of it at the cut, one sequence at a time."""
Seen = TypeVar("Seen", bound=Observation, default=Record)


@dataclass(frozen=True)
class View(Generic[Seen]):
    """All that one adversary saw at one cut under one defense, on the channels that an attack reads.

    ``front`` and ``back`` are None where no such channel depends on that side of the cut. ``records`` hold observations
    of one type: `Record` by default; an attack on updates writes ``View[Update]``.
    """

    adversary: str
    channel: Channel
    front: int | None
    back: int | None
    defense: str
    records: tuple[Seen, ...]
    asked: Mapping[int, str] = field(default_factory=dict)
    """The rows that an answer may speak of, with their client (empty where naming it is the question), where these are
    not simply the rows of the records."""

    traffic: Traffic | None = field(default=None, compare=False)
    """Everything that crossed of a client in a round, one by one and without a word on whose it is; for attacks that
    say ``traffic = True``. It is no answer's row, and the control leaves it."""

    def seen_of(self, client: str, round_: int) -> Iterator[Float[Tensor, "length hidden"]]:
        """Yield the traffic of a client in a round; nothing where there is none."""
        return self.traffic(client, round_) if self.traffic is not None else iter(())

    @property
    def rows(self) -> frozenset[int]:
        """The rows that an answer may speak of."""
        return frozenset(self.asked) or frozenset(record.row for record in self.records)

    def legible(self) -> Self:
        """Return the view without unusable observations: empty, not finite, or too large to be squared.

        An attack is run on the others, so that one broken row does not hide what the rest give away.
        """
        kept = tuple(record for record in self.records if _legible(record))
        return self if len(kept) == len(self.records) else replace(self, records=kept)

    @property
    def dealable(self) -> bool:
        """True if two observations or more can be dealt to each other, so that there is a control."""
        return len(self._places()) > 1

    def shuffled(self, generator: np.random.Generator) -> Self:
        """The negative control: what crossed is dealt to other rows, of the same client where it has several.

        No row keeps its own, so there is nothing to find. Needs a view that is `dealable`.
        """
        places, newest, records = self._places(), self._newest, [*self.records]
        rings = [self.records[place].ring(newest) or "" for place in places]
        others: dict[int, int] = {}
        for place, other in zip(places, dealt(rings, generator), strict=True):
            records[place] = self.records[place].dealt(self.records[places[other]])
            others[self.records[place].row] = self.records[places[other]].row
        several = {(each.row, each.round, each.occurrence): each for each in self.records}
        later = self._later()
        kept = [record for place, record in enumerate(records) if place not in later]
        for record in (self.records[place] for place in sorted(later)):
            # Of a row that crossed less often there is less to deal.
            source = several.get((others.get(record.row, record.row), record.round, record.occurrence))
            kept += [record.dealt(source)] if source is not None else []
        return replace(self, records=tuple(kept))

    @property
    def _newest(self) -> int:
        return max((record.round for record in self.records), default=0)

    def _places(self) -> list[int]:
        """The places of all that can be dealt: of a row the first, as the others follow it."""
        if self.adversary == "peer" and all(isinstance(record, Update) for record in self.records):
            return []  # peers are sent their own models, and ask about others
        newest, later = self._newest, self._later()
        places = (place for place in range(len(self.records)) if place not in later)
        return [place for place in places if self.records[place].ring(newest) is not None]

    def _later(self) -> set[int]:
        """The places of crossings of a row behind its first one."""
        rows, later = set[int](), set[int]()
        for place, record in enumerate(self.records):
            if record.row in rows:
                later.add(place)
            rows.add(record.row)
        return later


def _legible(seen: Observation) -> bool:
    read = [*seen.tensors_read]
    return bool(read) and all(_finite(tensor) for tensor in read)


def _finite(tensor: Float[Tensor, "*shape"]) -> bool:
    return bool(tensor.numel()) and bool(tensor.float().square().sum().isfinite())


def dealt(clients: Sequence[str], generator: np.random.Generator) -> list[int]:
    """Return for each place the one whose belongings it is dealt: another of the same client where it has several.

    Nobody keeps their own. Needs two places.
    """
    groups: dict[str, list[int]] = {}
    for place in generator.permutation(len(clients)):
        groups.setdefault(clients[place], []).append(int(place))
    rings = [ring for _, ring in sorted(groups.items()) if len(ring) > 1]
    alone = [ring[0] for _, ring in sorted(groups.items()) if len(ring) == 1]
    if len(alone) == 1 and rings:
        rings[0] = rings[0] + alone
    elif alone:
        rings.append(alone)
    found = [*range(len(clients))]
    for ring in rings:  # a cycle over a random order moves everybody
        for place, other in zip(ring, [ring[-1], *ring[:-1]], strict=True):
            found[place] = other
    return found

"""A view: all that one adversary recorded on a channel, row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.threat_model.channels import Channel


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


@dataclass(frozen=True)
class View:
    """All that one adversary saw at one cut under one defense, on the channels that an attack reads.

    ``front`` and ``back`` are None where no such channel depends on that side of the cut.
    """

    adversary: str
    channel: Channel
    front: int | None
    back: int | None
    defense: str
    records: tuple[Record, ...]

    def legible(self) -> "View":
        """Return the view without unusable rows: empty, not finite, or too large to be squared.

        An attack is run on the others, so that one broken row does not hide what the rest give away.
        """
        kept = tuple(r for r in self.records if all(_finite(t) for t in (r.tensor, *r.also_reads.values())))
        return self if len(kept) == len(self.records) else replace(self, records=kept)

    def shuffled(self, generator: np.random.Generator) -> "View":
        """The negative control: what crossed is dealt to other rows, of the same client where it has several.

        No record keeps its own, so there is nothing to find. Needs two records.
        """
        records = []
        for record, other in zip(self.records, dealt([r.client for r in self.records], generator), strict=True):
            source = self.records[other]
            records.append(
                replace(
                    record, tensor=source.tensor, step=source.step, batch=source.batch, also_reads=source.also_reads
                )
            )
        return replace(self, records=tuple(records))


def _finite(tensor: Float[Tensor, "length *width"]) -> bool:
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

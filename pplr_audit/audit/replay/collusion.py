"""A colluding client: what it hands the adversary are prompts of its own users and what crossed of them in the round.

The adversary runs no model then. Its knowledge ends with what it is handed, dropout and stale steps included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.samples import Samples

MOST = 1024
"""Prompts that are handed on, at most."""


def colluder_among(samples: Mapping[str, Samples]) -> str | None:
    """The client with the most training samples, of equals the first by name; None where one client holds them all."""
    return max(sorted(samples), key=lambda client: len(samples[client])) if len(samples) > 1 else None


def colluded(trace: Trace) -> tuple[str, Trace]:
    """The key in the spool of what crossed of the colluding client, which is apart from the victims'."""
    return "colluded", trace


def handed_on(samples: Samples, prompts: Prompts, first: int, seed: int) -> dict[int, tuple[int, Prompt]]:
    """Samples drawn by the seed, numbered from ``first``: row to the sample's place, and its prompt."""
    order = np.random.default_rng(seed).permutation(len(samples))[:MOST]
    return {
        row: (int(place), prompts.build(samples.history[place], int(samples.targets[place])))
        for row, place in enumerate(order, first)
    }


class Collusion:
    """A `knowledge.Colluder`.

    Args:
        prompts: by row.
        followed: answers a hash of all that what crossed of them follows from.
        spool: answers where what crossed of these rows lies.
    """

    def __init__(
        self, client: str, prompts: Mapping[int, Prompt], followed: Callable[[], str], spool: Callable[[], Spool]
    ) -> None:
        self.client, self._followed = client, followed
        self.prompts: Sequence[Prompt] = list(prompts.values())
        self._rows, self._spool = list(prompts), spool

    @cached_property
    def digest(self) -> str:
        return self._followed()

    def states(
        self, places: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        rows, spool = [self._rows[place] for place in places], self._spool()
        streams = [spool.stream(colluded(Trace("activation", layer)), rows) for layer in layers]
        for place, records in enumerate(zip(*streams, strict=True)):
            yield place, {layer: record.tensor for layer, record in zip(layers, records, strict=True)}


def codes(like: Float[Tensor, "vocab hidden"], seed: int) -> Float[Tensor, "vocab hidden"]:
    """Draw a random direction for each word, for an adversary who does not have the embeddings."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)

"""The recommender's side of a language model: its input, its loss, and its ranking of the catalogue.

The client, the replay and the adversaries' copies run the model; a `Task` tells them how. It holds nothing private.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import Batch, Prompt, Prompts

Weights = Literal["trained", "base", "training"]
"""Weights that a model is asked under: a client's trained ones, the public ones, or those in the midst of a round."""

CatalogueEncoding = Mapping[str, Tensor]
"""Tensors that a model works out once and then goes by, such as RecFormer's item table; empty where there are none."""


class NotFinite(ArithmeticError):
    """A model's scores are NaN or infinite: there is no best among them."""


@dataclass
class Tally:
    """Work of serving so far, padding included; sums over requests."""

    requests: int = 0
    prompt_positions: int = 0
    generated: int = 0
    """Tokens generated along one beam."""
    title_positions: int = 0
    """Positions of the generated titles, when they are embedded."""


class Served(Protocol):
    """A trained model that serves requests, wherever its layers are."""

    encoding: CatalogueEncoding | None
    """Encoding that it goes by; None where that is to be worked out by the model as it is."""
    tally: Tally

    def model(self, weights: Weights = "trained", *, catalogue: bool = False) -> AbstractContextManager[Any]:
        """The model in evaluation mode, within the block. ``catalogue``: what it will read is public."""
        ...


class Task(Protocol):
    """One recommender on one backbone and catalogue."""

    prompts: Prompts
    base_encoding: CatalogueEncoding
    """Encoding that the base model works out."""
    fixed: bool
    """True if that stays the encoding throughout."""
    catalogue: Sequence[Prompt]
    """Prompts from which the encoding is worked out, in the order in which the model reads them; none where there is
    none."""
    catalogue_positions: int
    """Positions of the batches by which the encoding is worked out, padding included; 0 where there is none."""

    def inputs(self, model: Any, prompts: Sequence[Prompt], *, serving: bool) -> dict[str, Tensor]:
        """Return the arguments of the model's forward pass."""
        ...

    def loss(self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Float[Tensor, ""]:
        """Mean over the samples, to be minimized."""
        ...

    def losses(self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Float[Tensor, "batch"]:
        """Return the loss of each sample, which depends on no other sample; `loss` is their mean."""
        ...

    def logits(
        self, model: Any, like: Float[Tensor, "batch length hidden"], encoding: CatalogueEncoding
    ) -> Float[Tensor, "batch *answers"]:
        """Return the logits of ``model`` for sequences of this shape without padding, whatever their tokens are: of the
        next token at every position, or of all items."""
        ...

    def log_probs(
        self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding
    ) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer, or of its target among all items: one number."""
        ...

    def query_batches(self, prompts: Sequence[Prompt]) -> Sequence[Int[np.ndarray, "rows"]]:
        """Return the places of prompts that `log_probs` puts through the model together, batch by batch.

        Some batches asked about without the others have the same numbers, to the bit.
        """
        ...

    def refreshes(self, round_: int, epoch: int, step: int) -> bool:
        """True if the catalogue is encoded anew before a step of a local epoch (both from 0) of a round."""
        ...

    def encode_catalogue(self, model: Any) -> dict[str, Tensor]:
        """The encoding that ``model`` works out, in evaluation mode."""
        ...

    def settled(self, round_: int) -> bool:
        """True if the catalogue is not encoded again after round ``round_``."""
        ...

    def recommend(
        self, served: Served, history: Ragged, popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]]:
        """Scores of the whole catalogue, higher is better, for a few histories at a time: their places, and the scores.

        Args:
            popularity: how often each item was had by those who train.

        Raises:
            NotFinite: what the scores were to come from is not finite.
        """
        ...

    def generated(
        self, served: Served, prompts: Sequence[Prompt], popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "new"], Float[np.ndarray, "items"]]]:
        """Yield the tokens that the model generates behind each prompt, one after the other, up to the first end token,
        and the scores of the whole catalogue by them; nothing where it answers without.

        Args:
            popularity: as of `recommend`.

        Raises:
            NotFinite: what the model says of the next token is not finite.
        """
        ...


def tensors(batch: Batch) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Tokens, mask and which tokens are learned."""
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.mask), torch.from_numpy(batch.learned)


def by_length(lengths: Sequence[int] | Int[np.ndarray, "rows"], positions: int) -> Iterator[Int[np.ndarray, "rows"]]:
    """The places of sequences of these lengths in batches of nearly equal length, so that there is little padding.

    A batch has at most so many positions, padding included, unless a sequence alone has more; the shortest come first.

    >>> [rows.tolist() for rows in by_length([5, 1, 9, 2], 10)]
    [[1, 3], [0], [2]]
    """
    order, sizes = np.argsort(lengths, kind="stable"), np.sort(lengths)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * sizes[stop] <= positions:
            stop += 1
        yield order[start:stop]
        start = stop


def padded(lengths: Sequence[int] | Int[np.ndarray, "rows"], positions: int) -> int:
    """Positions of the batches of `by_length`, padding included."""
    sizes = np.asarray(lengths)
    return sum(len(rows) * int(sizes[rows].max()) for rows in by_length(lengths, positions))

"""Candidate inputs: what enters a linear layer for each token of the catalogue's titles, at each position.

What enters the attention of the first block follows from a token, its position and what the recommender marks it with
(its item's place, say), and from no other token: so one table has all candidates. Deeper layers read what attention has
mixed. There a title is put into random prompts, and what enters at its tokens stands for what would enter in others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.update.first_inputs import FirstInputs
from pplr_audit.attacks.update.sparse import powers
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.threat_model.knowledge import Model

RANDOM = 256
"""Random prompts that tell the usual inputs of a layer, and the usual item, by its number, at each place."""
KEPT = 2**27
"""Most numbers of a table that is kept; a larger one is made again for each update."""


@dataclass(frozen=True)
class Background:
    """All that a layer's update has besides what is looked for: other inputs, and noises of two kinds."""

    scale: Float[Tensor, "width"]
    """Size of each number of what enters."""
    moments: Float[Tensor, "width width"]
    """Second moments of what usually enters."""

    @classmethod
    def of(cls, inputs: Float[Tensor, "many width"]) -> "Background":
        """Return the background of a layer with these usual inputs."""
        moments = inputs.T @ inputs / len(inputs)
        return cls(moments.diagonal().sqrt().clamp(min=1e-12), moments)

    @property
    def kinds(self) -> Float[Tensor, "kinds width width"]:
        """Covariances: of other inputs, of what an optimizer bends number by number, and of noise alike in all."""
        return torch.stack([self.moments, self.scale.square().diag(), torch.eye(len(self.scale)).to(self.moments)])

    def whitening(self, measured: Float[Tensor, "rows width"], iterations: int) -> Float[Tensor, "width width"]:
        """Return the change of coordinates in which measurements that hold nothing but background are white."""
        none = measured.new_zeros(0, measured.shape[1])
        _, noise = powers(measured, none, torch.zeros(0, dtype=torch.long), self.kinds, iterations)
        values, vectors = torch.linalg.eigh((noise[:, None, None] * self.kinds).sum(0))
        white: Tensor = vectors / values.clamp(min=1e-12 * float(values.max())).sqrt()
        return white


class TitleInputs:
    """What enters a layer in front of the first attention, for words of titles at places.

    Args:
        model: that is run.
        layer: name of the layer.
        prompts: the template and the titles as tokens.
        usual: prompts over random items.
    """

    def __init__(self, model: Model, layer: str, prompts: Prompts, usual: Sequence[Prompt]) -> None:
        self._layer, self._prompts, self._length = layer, prompts, max(map(len, usual))
        self._first = FirstInputs(model, [layer], prompts.max_tokens)
        self.placed = self._first.placed or self._first.marked
        """True if a word enters otherwise at another place: for the place itself, or for the item that it is of."""
        self._orders = _usual_orders(usual, self._length)
        marked = np.stack([prompts.titles.values, prompts.content.values], 1)
        self.words, at = np.unique(marked, axis=0, return_inverse=True)
        """Token, and 1 where it is an item's own; 0 where it stands in all items."""
        self._at = at.reshape(-1)
        few = len(self.words) * self.places * model.linears[layer].inputs <= KEPT
        self._kept = [*self._made()] if few else []

    @property
    def places(self) -> int:
        """Number of places at which a word is tried."""
        return self._length if self.placed else 1

    def title(self, item: int) -> Int[np.ndarray, "length"]:
        """The words of an item's title, by their rows in `words`."""
        start, stop = self._prompts.titles.offsets[item : item + 2]
        return self._at[start:stop]

    def table(self) -> Iterator[tuple[int, Float[Tensor, "words places width"]]]:
        """Yield the first of some words, and what enters for each of them at each place, in single precision."""
        yield from self._kept or self._made()

    def _made(self) -> Iterator[tuple[int, Float[Tensor, "words places width"]]]:
        tokens, own = self.words.T
        for start, seen in self._first.table(tokens, own > 0, self._orders[: self.places]):
            yield start, seen[self._layer].float()

    def of(
        self, titles: Sequence[tuple[int, int]]
    ) -> tuple[Int[np.ndarray, "words"], Int[np.ndarray, "words"], Float[Tensor, "words width"]]:
        """Return the words of titles, each an item and the place at which it begins.

        All of a title belongs to the item of the number that is usual in its middle.

        Returns the rows of the words in `words`, the title of each by its place in ``titles``, and what enters.
        """
        words = [self.title(item) for item, _ in titles]
        lengths = np.array([len(each) for each in words])
        starts = np.array([start for _, start in titles])
        middles = np.minimum(starts + lengths // 2, self._length - 1)
        orders = np.maximum(1, self._orders[middles])
        flat, which = np.concatenate(words), np.repeat(np.arange(len(titles)), lengths)
        inside = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = starts[which] + inside if self._first.placed else np.zeros_like(inside)
        tokens, own = self.words[flat].T
        return flat, which, self._first.at(tokens, own > 0, places, orders[which])[self._layer].double()


@dataclass(frozen=True)
class Occurrences:
    """What enters a deeper layer at the tokens of titles within random prompts.

    Args:
        model: that is run.
        layer: name of the layer.
        prompts: random prompts in which each item stands several times.
    """

    model: Model
    layer: str
    prompts: Sequence[Prompt]

    @cached_property
    def found(self) -> list[tuple[int, Float[Tensor, "length width"]]]:
        """Each item that stands in a prompt, with what enters at the tokens of its title."""
        seen = []
        for place, inputs in self.model.entering(self.prompts, [self.layer]):
            prompt = self.prompts[place]
            slots = torch.from_numpy(prompt.slots)
            seen += [(int(item), inputs[self.layer][slots == slot].double()) for slot, item in enumerate(prompt.items)]
        return seen


def covering(prompts: Prompts, times: int, history: int, generator: np.random.Generator) -> list[Prompt]:
    """Return prompts over random items in which every item of the catalogue stands about so many times."""
    items = np.concatenate([generator.permutation(len(prompts.titles)) for _ in range(times)])
    parts = (items[start : start + history] for start in range(0, len(items), history))
    return [prompts.build(part, int(generator.integers(len(prompts.titles)))) for part in parts]


def _usual_orders(usual: Sequence[Prompt], length: int) -> Int[np.ndarray, "length"]:
    """Return the number of the item that most prompts have at each place, from 1."""
    counts = np.zeros((length, 1 + max(int(prompt.order.max()) for prompt in usual)), dtype=np.int64)
    for prompt in usual:
        counts[np.arange(len(prompt)), prompt.order] += 1
    return np.asarray(counts.argmax(1))

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

from pplr_audit.attacks.update.sparse import powers
from pplr_audit.data.prompts import TEMPLATE, Prompt, Prompts
from pplr_audit.threat_model.knowledge import Model

NO_ITEMS = np.empty(0, dtype=np.int64)
RANDOM = 256
"""Random prompts that tell the usual inputs of a layer, and the usual place of an item at each position."""


CHUNK = 64
"""Words whose inputs are made together."""
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


class FirstInputs:
    """What enters a layer in front of the first attention, for words of titles at positions.

    Args:
        model: that is run.
        layer: name of the layer.
        prompts: the template and the titles as tokens.
        usual: prompts over random items.
    """

    def __init__(self, model: Model, layer: str, prompts: Prompts, usual: Sequence[Prompt]) -> None:
        self._model, self._layer, self._prompts = model, layer, prompts
        self.length = max(map(len, usual))
        self._places = _usual_places(usual, self.length)
        marked = np.stack([prompts.titles.values, prompts.content.values], 1)
        self.words, at = np.unique(marked, axis=0, return_inverse=True)
        """Token, and 1 where it is an item's own; 0 where it stands in all items."""
        self._at = at.reshape(-1)
        self.placed = not self._same_everywhere()
        """True if a word enters otherwise at another position."""
        few = len(self.words) * self.positions * self._model.linears[layer].inputs <= KEPT
        self._kept = [*self._made(CHUNK)] if few else []

    @property
    def positions(self) -> int:
        return self.length if self.placed else 1

    def title(self, item: int) -> Int[np.ndarray, "length"]:
        """The words of an item's title, by their rows in `words`."""
        start, stop = self._prompts.titles.offsets[item : item + 2]
        return self._at[start:stop]

    def table(self) -> Iterator[tuple[int, Float[Tensor, "words positions width"]]]:
        """Yield the first of some words, and what enters for each of them at each position, in single precision."""
        yield from self._kept or self._made(CHUNK)

    def _made(self, words: int) -> Iterator[tuple[int, Float[Tensor, "words positions width"]]]:
        for first in range(0, len(self.words), words):
            part = range(first, min(first + words, len(self.words)))
            if self.placed:
                seen = self._entering([self._prompt([word] * self.length) for word in part])
                yield first, torch.stack(seen).float()
            else:
                yield first, torch.cat(self._entering([self._prompt([*part])]))[:, None].float()

    def place(self, start: int, length: int) -> int:
        """Return the place in the prompt, counted from 1, that a title from ``start`` on most likely has."""
        return max(1, int(self._places[min(start + length // 2, self.length - 1)]))

    def at(
        self, words: Int[np.ndarray, "many"], positions: Int[np.ndarray, "many"], places: Int[np.ndarray, "many"]
    ) -> Float[Tensor, "many width"]:
        """Return what enters for words at positions, in titles at these places of the prompt."""
        if not self.placed:
            return torch.cat(self._entering([self._prompt(words.tolist())]))
        order = np.lexsort((words, positions))
        turn = np.empty(len(words), dtype=np.int64)  # words of one position are read in different prompts
        starts = np.flatnonzero(np.diff(positions[order], prepend=-1))
        turn[order] = np.arange(len(words)) - np.repeat(starts, np.diff(np.append(starts, len(words))))
        grid = np.zeros((2, int(turn.max()) + 1, self.length), dtype=np.int64)
        grid[:, turn, positions] = np.stack([words, places])
        prompts = [self._prompt(row, in_title) for row, in_title in zip(grid[0].tolist(), grid[1], strict=True)]
        seen = torch.stack(self._entering(prompts))
        return seen[torch.from_numpy(turn), torch.from_numpy(positions)]

    def _prompt(self, words: Sequence[int], places: Int[np.ndarray, "words"] | None = None) -> Prompt:
        chosen, count = self.words[list(words)], len(words)
        if places is None:
            places = self._places[:count] if self.placed else np.ones(count, dtype=np.int64)
        slots = np.where(chosen[:, 1] > 0, 0, TEMPLATE)
        return Prompt(chosen[:, 0].copy(), slots, NO_ITEMS, count, places)

    def _entering(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "length width"]]:
        found = dict(self._model.entering(prompts, [self._layer]))
        return [found[place][self._layer].double() for place in range(len(prompts))]

    def _same_everywhere(self) -> bool:
        word, count = self.words[:1], min(self.length, 8)
        slots = np.where(np.repeat(word[:, 1], count) > 0, 0, TEMPLATE)
        repeated = Prompt(np.repeat(word[:, 0], count), slots, NO_ITEMS, count, self._places[:count])
        (seen,) = self._entering([repeated])
        return bool(torch.allclose(seen, seen[:1].expand_as(seen), rtol=1e-4, atol=1e-6))


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


def _usual_places(usual: Sequence[Prompt], length: int) -> Int[np.ndarray, "length"]:
    """Return the item, counted from 1, that most prompts have at each position."""
    counts = np.zeros((length, 1 + max(int(prompt.order.max()) for prompt in usual)), dtype=np.int64)
    for prompt in usual:
        counts[np.arange(len(prompt)), prompt.order] += 1
    return np.asarray(counts.argmax(1))

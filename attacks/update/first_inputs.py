"""What enters the first block: it follows from a word, its place and its mark, whatever stands around them.

So all candidates can be tried as one table (Petrov et al. 2024, arXiv 2405.15586, section 4.2). A mark says which item
a word belongs to, and if it is the item's own: recommenders add vectors for that. The model itself tells whether places
and marks count: with rotary positions, a word enters alike wherever it stands.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.threat_model.knowledge import Model

NO_ITEMS = np.empty(0, dtype=np.int64)
TOGETHER = 2048
"""Words, each at a place, whose inputs are made together: few enough for a processor's cache."""
PACKED = 32
"""Words in one prompt where places do not count."""

By = dict[str, Float[Tensor, "words places width"]]
"""Inputs by layer."""


def text(
    tokens: Sequence[int] | Int[np.ndarray, "length"], order: int | Sequence[int] | Int[np.ndarray, "length"] = 0,
    own: bool | Sequence[bool] | Bool[np.ndarray, "length"] = False,
) -> Prompt:  # fmt: skip
    """Return a prompt of bare tokens.

    Args:
        order: number of the item that a token belongs to, from 1, or 0 for none; one for all, or one for each.
        own: if a token is the item's own; the others of an item are its template.
    """
    values = np.asarray(tokens, dtype=np.int64)
    items, marks = np.broadcast_to(order, values.shape).astype(np.int64), np.broadcast_to(own, values.shape)
    return Prompt(values, np.where(marks, items - 1, TEMPLATE), NO_ITEMS, len(values), items)


class FirstInputs:
    """What enters layers in front of the first attention.

    Args:
        model: that is run.
        layers: names of such layers.
        longest: most tokens that the model reads at once.
    """

    def __init__(self, model: Model, layers: Sequence[str], longest: int) -> None:
        self._model, self._layers, self._packed = model, [*layers], min(PACKED, longest)
        plain, marked = (seen[layers[0]] for seen in self._made([text([1, 1]), text([1, 1], 1, own=True)]))
        self.placed = not torch.allclose(plain[0], plain[1], rtol=1e-4, atol=1e-6)
        """True if a word enters otherwise at another place."""
        self.marked = not torch.allclose(plain, marked, rtol=1e-4, atol=1e-6)
        """True if a word enters otherwise as part of an item."""

    def table(
        self, words: Int[np.ndarray, "words"], own: Bool[np.ndarray, "words"], orders: Int[np.ndarray, "places"]
    ) -> Iterator[tuple[int, By]]:
        """Yield the number of some first word, and what enters for it and words behind it at each of the first places.

        Args:
            own: if a word is an item's own.
            orders: number of the item that each place belongs to.
        """
        places = len(orders)
        size = max(1, TOGETHER // places) if self.placed else max(self._packed, TOGETHER // places)
        for first in range(0, len(words), size):
            part, marks = words[first : first + size], own[first : first + size]
            if self.placed:
                rows = zip(part, marks, strict=True)
                prompts = [text(np.full(places, word), orders, np.full(places, mark)) for word, mark in rows]
            else:
                prompts = self._pack(np.repeat(part, places), np.tile(orders, len(part)), np.repeat(marks, places))
            seen = {layer: torch.cat([row[layer] for row in self._made(prompts)]) for layer in self._layers}
            yield first, {layer: inputs.view(len(part), places, -1) for layer, inputs in seen.items()}

    def at(
        self, words: Int[np.ndarray, "many"], own: Bool[np.ndarray, "many"], places: Int[np.ndarray, "many"],
        orders: Int[np.ndarray, "many"],
    ) -> dict[str, Float[Tensor, "many width"]]:  # fmt: skip
        """Return what enters for each word at its place, as part of the item of its number."""
        if not self.placed:
            rows = self._made(self._pack(words, orders, own))
            return {layer: torch.cat([row[layer] for row in rows]) for layer in self._layers}
        by_place = np.lexsort((words, places))
        turn = np.empty(len(words), dtype=np.int64)  # words of one place are read in different prompts
        starts = np.flatnonzero(np.diff(places[by_place], prepend=-1))
        turn[by_place] = np.arange(len(words)) - np.repeat(starts, np.diff(np.append(starts, len(words))))
        grid = np.zeros((3, int(turn.max()) + 1, int(places.max()) + 1), dtype=np.int64)
        grid[:, turn, places] = np.stack([words, orders, own])
        seen = self._made([text(row, items, marks > 0) for row, items, marks in grid.transpose(1, 0, 2)])
        where = torch.from_numpy(turn), torch.from_numpy(places)
        return {layer: torch.stack([row[layer] for row in seen])[where] for layer in self._layers}

    def _pack(
        self, words: Int[np.ndarray, "many"], orders: Int[np.ndarray, "many"], own: Bool[np.ndarray, "many"]
    ) -> list[Prompt]:
        parts = [slice(start, start + self._packed) for start in range(0, len(words), self._packed)]
        return [text(words[part], orders[part], own[part]) for part in parts]

    def _made(self, prompts: Sequence[Prompt]) -> list[dict[str, Float[Tensor, "length width"]]]:
        """Return what enters for each prompt, in their order."""
        found = dict(self._model.entering(prompts, self._layers))
        return [found[place] for place in range(len(prompts))]

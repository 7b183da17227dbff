"""A front that reads many continuations of one prefix at once: tree attention over cached keys and values.

The continuations are a tree of tokens, and one pass reads all of it: each token stands at the position that it would
have, and sees the prefix and its own ancestors. What continuations have in common is read once, and whichever of them
is chosen is the next prefix (SpecInfer, Miao et al. 2023, arXiv 2305.09781, section 4.2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Kept = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values (1, heads, tokens, width) of each block."""


@dataclass(frozen=True)
class Prefix:
    """Tokens that were read, and what the blocks keep of them; the default is the start of a sequence."""

    length: int = 0
    kept: Kept = ()

    def upto(self, length: int) -> "Prefix":
        """The first tokens of it, or all where it is shorter."""
        kept = tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in self.kept)
        return Prefix(min(length, self.length), kept)


@dataclass(frozen=True)
class Branches:
    """A tree that was read."""

    states: Mapping[int, Float[Tensor, "nodes hidden"]]
    """States that enter each layer, by l."""
    before: int
    kept: Kept

    def along(self, nodes: Sequence[int] | Int[Tensor, "path"]) -> Prefix:
        """The prefix and the nodes of one path that begins at it, in their order."""
        path = torch.as_tensor(nodes, dtype=torch.long)
        columns = torch.cat([torch.arange(self.before), self.before + path])
        kept = tuple((keys[:, :, columns], values[:, :, columns]) for keys, values in self.kept)
        return Prefix(len(columns), kept)


def asked(config: Any, before: int, tokens: Int[Tensor, "nodes"], parents: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of a body, besides the cache, that read a tree behind ``before`` tokens.

    Args:
        parents: of each node an earlier one, or -1 where it follows the prefix.
    """
    total = len(tokens)
    places = torch.arange(before + total)
    sees = torch.zeros(total, before + total, dtype=torch.bool)
    sees[:, :before] = True
    if all(parent < 0 for parent in parents):  # all follow the prefix
        sees[:, before:] = torch.eye(total, dtype=torch.bool)
        places[before:] = before
        parents = ()
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] = sees[parent]
            places[before + node] = places[before + parent] + 1
        else:
            places[before + node] = before
        sees[node, before + node] = True
    return {
        "input_ids": tokens[None], "position_ids": places[None, before:], "use_cache": True,
        "attention_mask": _masks(config, sees[None, None], places[before:, None] - places),
    }  # fmt: skip


def _masks(
    config: Any, sees: Bool[Tensor, "1 1 nodes total"], apart: Int[Tensor, "nodes total"]
) -> Tensor | dict[str, Tensor]:
    """The mask in the form that the library takes as it is: one, or one for each kind of layer that the model has."""
    window = getattr(config, "sliding_window", None)
    near = sees if window is None else sees & (apart < window)
    if config._attn_implementation == "eager":  # adds its mask to the scores
        sees, near = (torch.zeros(s.shape).masked_fill(~s, torch.finfo(torch.float32).min) for s in (sees, near))
    if getattr(config, "layer_types", None):
        return {"full_attention": sees, "sliding_attention": near}
    return near

"""Sends what crosses the cut in one byte a number."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pplr_audit.threat_model import Channel, Crossing, Defense, Turn


class Code(Defense):
    """255 levels between the smallest and the largest number of each tensor, which cross with them."""

    name = "code"
    acts = frozenset({"wire"})
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS})

    def encode(self, crossing: Crossing, turn: Turn) -> Mapping[str, Tensor]:
        hidden = crossing.tensors["hidden"]
        low, high = hidden.min(), hidden.max()
        levels = ((hidden - low) / (high - low) * 255).round().to(torch.uint8)
        return {"levels": levels, "range": torch.stack([low, high])}

    def decode(self, crossing: Crossing, turn: Turn) -> Mapping[str, Tensor]:
        low, high = crossing.tensors["range"]
        return {"hidden": crossing.tensors["levels"].float() / 255 * (high - low) + low}

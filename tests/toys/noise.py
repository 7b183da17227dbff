"""Adds Gaussian noise to all numbers that cross the cut, and to what a client says of itself."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pplr_audit.threat_model import Channel, Crossing, Defense, Turn


class Noise(Defense):
    """Noise of standard deviation ``scale`` on activations, gradients and status, in training and in serving."""

    name = "noise"
    acts = frozenset({"wire"})
    channels = frozenset(
        {
            Channel.FRONT_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.STATUS, Channel.INFERENCE_ACTIVATIONS,
            Channel.INFERENCE_OUTPUT,
        }
    )  # fmt: skip

    def __init__(self, scale: float = 0.01) -> None:
        self.scale = scale

    def apply(self, crossing: Crossing, turn: Turn) -> Mapping[str, Tensor]:
        draw = turn.generator()
        return {
            name: value + self.scale * torch.randn(value.shape, generator=draw, dtype=value.dtype)
            if value.is_floating_point()
            else value
            for name, value in crossing.tensors.items()
        }

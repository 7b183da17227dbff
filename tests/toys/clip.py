"""Clips each sample's gradient by one norm over both ends of the cut, adds noise, and draws batches by Poisson."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pplr_audit.threat_model import Defense, PerSample, Turn, poisson


class Clip(Defense):
    """The sampled Gaussian mechanism, with nobody who accounts for it."""

    name = "clip"
    acts = frozenset({"sampler", "samples"})
    unit, neighbors = "sample", "add_or_remove"

    def __init__(self, norm: float = 1.0, noise: float = 0.0) -> None:
        self.norm, self.noise = norm, noise

    def batches(self, lengths: np.ndarray, size: int, generator: np.random.Generator) -> Sequence[np.ndarray]:
        return poisson(len(lengths), size, generator)

    def tell(self, gradients: PerSample, turn: Turn) -> Mapping[str, Tensor]:
        return {"squared_norms": sum(gradients.squared_norms().values(), torch.zeros(turn.batch)).double()}

    def combine(self, gradients: PerSample, heard: Mapping[str, Tensor], turn: Turn) -> Mapping[str, Tensor]:
        turn.kept["steps"] = turn.kept.get("steps", torch.tensor(0)) + 1
        squared = self.tell(gradients, turn)["squared_norms"] + heard.get("squared_norms", 0)
        summed = gradients.weighted_sum((self.norm / squared.sqrt().clamp(min=1e-12)).clamp(max=1.0))
        return {
            name: (value + self.noise * self.norm * torch.randn(value.shape, generator=turn.generator(name)))
            / turn.batch_size
            for name, value in summed.items()
        }

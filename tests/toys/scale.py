"""Scales all gradients in local training, at both ends of the cut."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pplr_audit.threat_model import Defense, Turn


class Scale(Defense):
    """Every gradient times ``factor``; it counts the steps that it saw."""

    name = "scale"
    acts = frozenset({"gradients"})

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def gradients(self, gradients: Mapping[str, Tensor], turn: Turn) -> Mapping[str, Tensor]:
        turn.kept["steps"] = turn.kept.get("steps", torch.tensor(0)) + 1
        return {name: self.factor * value for name, value in gradients.items()}

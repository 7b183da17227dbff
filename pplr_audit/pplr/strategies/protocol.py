"""What a strategy gets from the clients after a round, and what it must answer: the one thing rivals differ in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit import scenario


@dataclass(frozen=True)
class Contribution:
    """One client's round as the server knows it."""

    client: str
    adapter: Mapping[str, Tensor]
    """After the local training, before any mixing, by absolute name."""
    update: Mapping[str, Tensor]
    """Adapter before - adapter after (a descent direction)."""
    loss: float
    """Mean training loss of the round."""
    samples: int


@dataclass(frozen=True)
class Mixing:
    """What each client takes from each other: row i holds the weights of all clients in the new model of client i."""

    matrix: Float[np.ndarray, "clients clients"]
    similarity: Float[np.ndarray, "clients clients"] | None = None
    status: Float[np.ndarray, "clients"] | None = None
    speed: Float[np.ndarray, "clients"] | None = None


class Strategy(Protocol):
    """Decides after each round who learns what from whom. Built with the scenario's training section."""

    def __init__(self, training: scenario.Training) -> None: ...

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        """The weights for round ``round_`` (from 1), rows and columns in the order of ``contributions``."""
        ...

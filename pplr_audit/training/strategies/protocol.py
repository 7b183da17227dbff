"""The strategy's contract: what it gets from the clients after a round, and the mixing that it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float
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
    """Weights of the mixing: row i holds the weights of all clients in the new model of client i."""

    matrix: Float[np.ndarray, "clients clients"]
    similarity: Float[np.ndarray, "clients clients"] | None = None
    status: Float[np.ndarray, "clients"] | None = None
    speed: Float[np.ndarray, "clients"] | None = None
    absent: Float[np.ndarray, "clients"] | None = None
    """The weights in the new model of every client that did not train in the round; None lets each keep its own."""

    @property
    def unmixed(self) -> Bool[np.ndarray, "clients"]:
        """True for each client that gets its own model back unchanged: its row is the unit vector."""
        return np.asarray((self.matrix == np.eye(len(self.matrix))).all(axis=1))


@dataclass(frozen=True)
class Local:
    """Changes that a strategy makes to the local training of every client, on both sides of the cut."""

    proximal: float = 0.0
    """mu: the local loss gets mu / 2 · ||theta - theta at the round's start||²."""
    personal: float | None = None
    """lambda: beside the shared model each client trains one of its own, which is never mixed and which it serves; its
    loss gets lambda / 2 · ||theta - shared theta at the round's start||². None: there is no such model."""


class Strategy(Protocol):
    """Decides after each round who learns what from whom. Subclass it; it is built with the scenario's training.

    ``mixing`` is all that a strategy must say; what else it can change has a default here.
    """

    pooled: bool = False
    """One client, `pplr_audit.data.allocation.EVERYONE`, holds all samples, and serves all users."""
    local: Local = Local()
    needs: Literal["updates", "sum"] = "updates"
    """``sum``: its mixing goes by names, losses and samples alone, and every client that it gives a new model gets the
    average weighted by samples, so that the sum of the updates is enough."""

    def __init__(self, training: scenario.Training) -> None:
        del training

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        """The weights for round ``round_`` (from 1), rows and columns in the order of ``contributions``.

        ``contributions`` are those of the clients that trained in the round, in alphabetical order of their names.
        """
        ...


def sample_shares(contributions: Sequence[Contribution]) -> Float[np.ndarray, "clients"]:
    """Each client's share of all training samples: the weights of federated averaging."""
    samples = np.array([c.samples for c in contributions], dtype=np.float64)
    return np.asarray(samples / samples.sum())

"""Row moves: how much each row of an update tells that a token was read, or that a token or item was an answer.

A row of the word embeddings has no gradient but from the sequences that hold its token (Melis et al., *Exploiting
Unintended Feature Leakage in Collaborative Learning*, IEEE S&P 2019, section 4.1). So it moved, or it did not, and size
tells all.

A row v_i that answers are compared with has one from every sequence b with point x_b. With p_i(b) the softmax:

    dLoss/dv_i = sum_b (p_i(b) - [i is the answer of b]) x_b

All rows but those of answers move along one common drift, sum_b p_i(b) x_b, of which the median row is a copy that a
minority of answers does not bend. Two things follow.

With SGD p_i is small beside 1, and a row of an answer leaves the ray of the drift: its distance from that ray tells.

AdamW divides each number by the root of a running mean of its squares. All numbers that keep their sign move as far,
small gradients or not. So rows that were never an answer move most, and those that were one hold back: their large
squares slow down whatever comes later, and the answer pulls against the drift. Size tells the opposite. By how much a
row falls short of the drift is weighed number by number, as a linear discriminant does (Fisher, *Annals of Eugenics* 7,
1936): by the drift over the square of the spread between rows.
"""

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-30


def read_by(moves: Float[Tensor, "rows width"]) -> Float[Tensor, "rows"]:
    """Return how far each row moved, for rows that only those who read them move."""
    size: Tensor = moves.norm(dim=1)
    return size


def answered_by(moves: Float[Tensor, "rows width"], optimizer: str) -> Float[Tensor, "rows"]:
    """Return how much each row moved as one of an answer does, for rows that every sequence moves.

    Args:
        moves: before - after, without decay.
        optimizer: adamw, or sgd.
    """
    drift = moves.median(dim=0).values
    if optimizer == "adamw":
        spread = (moves - drift).abs().median(dim=0).values
        weights = drift / spread.square().clamp(min=TINY)
        return (drift - moves) @ torch.where(spread > 0, weights, 0.0)
    along = moves @ drift / drift.norm().clamp(min=TINY)
    beside = moves - along[:, None] * drift / drift.norm().clamp(min=TINY)
    distance: Tensor = (beside.square().sum(1) + along.clamp(max=0).square()).sqrt()
    return distance

"""Closed form: how the loss changes with each item's score, from the gradient that came back.

A loss that sees nothing but the scores z of the items has dLoss/dh = J' c, with J = dz/dh and c = dLoss/dz. For a
cross-entropy c is p - y, the chance that its softmax gives each item less 1 at the label, whichever items it was taken
over: all of them, or only the batch's own, which the server does not know. So no loss has to be guessed:

    c = (J')⁺ g        the least c with that gradient, of which the label's entry is the one far below 0

The pseudoinverse is not formed. LSQR reaches c by products with J' (a backward pass) and with J (a backward pass
through that one, which is linear). Scores are cosines with encoded items, so J has no more than rank H, and what is
found is c projected on as many directions.

Source: that the last layer's gradient holds p - y, and so the label, is iDLG's observation (Zhao et al. 2020, arXiv
2001.02610), there for one sample and a linear layer; LSQR is Paige and Saunders 1982.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, lsqr
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

FIRST, STEPS = 20, 100
"""Steps of LSQR: before it is asked whether going on is of use, and at the most."""
NEAR = 1e-5
"""Relative residual at which it ends."""


@dataclass(frozen=True)
class Solved:
    """The scores that explain the gradient best."""

    change: Float[np.ndarray, "items"]
    """c: the change of the loss with each item's score; below 0 where the loss falls as the score rises."""
    distance: float
    """Unexplained rest of the gradient that came back, in units of its norm: from 0 to 1."""


def solved(
    back: Callable[[Float[Tensor, "1 length hidden"]], Float[Tensor, "1 items"]],
    hidden: Float[Tensor, "length hidden"], gradient: Float[Tensor, "length hidden"], wanted: float = 1.0,
) -> Solved:  # fmt: skip
    """The least change of scores that has this gradient.

    Args:
        back: z(h), from what entered the last layers to the items' scores.
        hidden: what entered.
        gradient: of one sequence's own loss.
        wanted: the distance that is of use; what is farther away after the first steps, as noise and the gradients of
            other sequences are, is not solved to the end.
    """
    entered = hidden[None].detach().clone().requires_grad_()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
        scores = back(entered)[0]
        weights = torch.zeros_like(scores).requires_grad_()
        (pulled,) = torch.autograd.grad(scores, entered, weights, create_graph=True)  # J' weights, linear in them

    def backward(change: Float[np.ndarray, "items"]) -> Float[np.ndarray, "length*hidden"]:
        along = torch.from_numpy(change).to(scores).flatten()
        (found,) = torch.autograd.grad(scores, entered, along, retain_graph=True)
        return found.flatten().double().numpy()

    def forward(step: Float[np.ndarray, "length*hidden"]) -> Float[np.ndarray, "items"]:
        along = torch.from_numpy(step).to(scores).reshape(entered.shape)
        (slope,) = torch.autograd.grad(pulled, weights, along, retain_graph=True)
        return slope.double().numpy()

    operator = LinearOperator((hidden.numel(), len(scores)), matvec=backward, rmatvec=forward, dtype=np.float64)
    size = max(float(gradient.norm()), 1e-30)
    goal = (gradient / size).flatten().double().numpy()

    def after(steps: int) -> Solved:
        change = lsqr(operator, goal, atol=0.0, btol=NEAR, conlim=0.0, iter_lim=steps)[0]
        return Solved(change * size, float(np.linalg.norm(operator.matvec(change) - goal)))

    first = after(FIRST)
    return first if first.distance > wanted else after(STEPS)

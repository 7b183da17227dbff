"""Drift: how far a client's front has moved from an adversary's copy, learned from known plaintext.

Of the public catalogue the adversary has both: X, what the client's front made of it when it crossed, and Y, what the
copy makes of the same words. A linear map of their difference is fitted,

    W = (X'X + lambda I)^-1 X'(Y - X)        (both centered),

and x + (x - mean of X) W + mean of (Y - X) is then read as what the copy would have made. Titles are short and stand
alone. Where they say nothing, as of late positions, the penalty leaves x as it is. lambda is chosen on titles held out:
the one by which the states of the copy are met best.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.threat_model.artifacts import Tensors
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.knowledge import Knowledge, Model, Plaintext
from pplr_audit.threat_model.outcomes import NotApplicable

STRENGTHS = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
"""Candidates for lambda, in units of the mean diagonal of X'X."""
HELD_OUT = 5
"""One title of so many is held out."""
Undone = Callable[[Float[Tensor, "length hidden"]], Float[Tensor, "length hidden"]]
"""Function from what crossed to what the copy would have made."""


def undone(plaintext: Plaintext, model: Model, layer: int, knowledge: Knowledge, budget: Budget) -> Undone:
    """Return what takes the drift off a client's h_l at ``layer``.

    Raises:
        NotApplicable: what crossed of the catalogue is not finite.
        BudgetExhausted: the time is up.
    """
    sources = {
        each: {"plaintext": plaintext.digest, "model": model.digest, "layer": each}
        for each in sorted({layer, *knowledge.layers})
    }

    def fit(layers: Sequence[int]) -> Iterator[tuple[int, Tensors]]:
        return _fits(plaintext, model, layers, budget)

    fitted = knowledge.fitted_together("drift", sources, fit, layer)
    weight, x_mean, mean = fitted["weight"], fitted["x_mean"], fitted["mean"]
    return lambda x: x + (x - x_mean) @ weight + mean


def _fits(
    plaintext: Plaintext, model: Model, layers: Sequence[int], budget: Budget
) -> Iterator[tuple[int, Tensors]]:  # fmt: skip
    """Fit ``layers`` in one pass over the copy; nothing of one depends on which others there are."""
    made = dict(model.states(plaintext.prompts, layers))
    crossed = dict(plaintext.states(layers))
    for layer in layers:
        budget.check()
        parts = []
        for held in (False, True):
            places = [place for place in sorted(crossed) if (place % HELD_OUT == HELD_OUT - 1) == held]
            if not places:  # fewer titles than are held out
                places = sorted(crossed)
            x = torch.cat([crossed[place][layer] for place in places]).double()
            parts.append((x, torch.cat([made[place][layer] for place in places]).double() - x))
        if not all(bool(values.isfinite().all()) for part in parts for values in part):
            raise NotApplicable("what crossed of the catalogue is not finite")
        yield layer, _fit(*parts[0], *parts[1])


def _fit(
    x: Float[Tensor, "positions hidden"], moved: Float[Tensor, "positions hidden"],
    held_x: Float[Tensor, "held hidden"], held_moved: Float[Tensor, "held hidden"],
) -> Tensors:  # fmt: skip
    """Return the map whose lambda leaves least of the drift of the titles held out, of equals the largest."""
    x_mean, mean = x.mean(0), moved.mean(0)
    centered = x - x_mean
    values, vectors = torch.linalg.eigh(centered.T @ centered)
    values = values.clamp_min(0)
    rotated, scale = vectors.T @ (centered.T @ (moved - mean)), float(values.mean()) or 1.0
    best: tuple[float, Tensor] | None = None
    for strength in reversed(STRENGTHS):
        weight = vectors @ (rotated / (values + strength * scale)[:, None])
        left = float((held_moved - mean - (held_x - x_mean) @ weight).square().mean())
        if best is None or left < best[0]:
            best = left, weight
    assert best is not None
    return {"weight": best[1].float(), "x_mean": x_mean.float(), "mean": mean.float()}

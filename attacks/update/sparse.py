"""Few of many: the groups of candidate vectors that a matrix of measurements is made of, by empirical Bayes.

Each measurement, a row of Y (rows, width), is a sum of candidate vectors (columns, width) with weights of its own, plus
noise. A group's weights are drawn with one variance, its power. The powers that make Y likeliest are zero for nearly
all groups, even where there are more true candidates than measurements, when no test of the span alone can tell them.
They are found by the fixed point of Wipf, Owen, Attias, Sekihara & Nagarajan, *NeuroImage* 49 (2010), section 3 (after
Wipf & Rao, *IEEE Transactions on Signal Processing* 55, 2007). With K = sum of power x Aᵀ A + sum of power x N,

    power ← power · sqrt( mean over rows of |A K⁻¹ y|² / trace(A K⁻¹ Aᵀ) )

where N are the covariances of noises of several kinds, each with a power of its own that is found in the same way.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

QUIETEST = 1e-6
"""Least power of a noise, as a share of the power of the measurements: float32 has no less."""
NEGLIGIBLE = 1e-8
"""Share of the largest power below which a group is dropped."""


def powers(
    measured: Float[Tensor, "rows width"], columns: Float[Tensor, "columns width"], groups: Int[Tensor, "columns"],
    noises: Float[Tensor, "kinds width width"], iterations: int, check: Callable[[], None] = lambda: None,
) -> tuple[Float[Tensor, "groups"], Float[Tensor, "kinds"]]:  # fmt: skip
    """Return the power of each group, 0 for those that explain nothing, and that of each kind of noise.

    Args:
        groups: of each column, from 0.
        noises: covariances, of which one has full rank.
        check: called before each iteration.

    >>> one = torch.eye(3, dtype=torch.double)
    >>> found, _ = powers(one[:1].repeat(2, 1), one, torch.arange(3), one[None], 50)
    >>> int(found.argmax()), bool((found[1:] < 1e-6 * found[0]).all())
    (0, True)
    """
    count, size = (int(groups.max()) + 1 if len(groups) else 0), float(measured.square().mean())
    power = measured.new_full((count,), size / max(1, len(columns)))
    noise = size / len(noises) / noises.diagonal(dim1=1, dim2=2).mean(1)
    least = QUIETEST * noise
    kept = torch.arange(len(columns))
    for _ in range(iterations):
        check()
        part, of = columns[kept], groups[kept]
        covariance = (part.T * power[of]) @ part + (noise[:, None, None] * noises).sum(0)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        through, seen = part @ inverse, measured @ inverse
        energy, own = (through @ measured.T).square().mean(1), (through * part).sum(1)
        summed = measured.new_zeros(2, count).index_add_(1, of, torch.stack([energy, own]))
        power = power * (summed[0] / summed[1].clamp(min=1e-30)).sqrt()
        theirs = torch.einsum("rw,kwv,rv->k", seen, noises, seen) / len(measured)
        noise = (noise * (theirs / (noises * inverse).sum((1, 2)).clamp(min=1e-30)).sqrt()).maximum(least)
        if count:
            power[power < NEGLIGIBLE * power.max()] = 0.0
            kept = torch.nonzero(power[groups])[:, 0]
    return power, noise

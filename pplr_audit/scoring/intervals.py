"""Intervals of means when the observations of one user belong together.

Percentile bootstrap over clusters (Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, § 3.8), widened
for quantities in [0, 1] to the Clopper-Pearson interval at the effective number of observations (Korn & Graubard,
*Survey Methodology* 24, 1998): near 0 and 1 the bootstrap sees too little of what it did not draw, and where every
cluster says the same its interval has no width at all, which would claim certainty from a handful of users.

Twenty users, every one of them hit: the exact bound is 0.025 ** (1 / 20).

>>> estimate = mean_estimate(np.ones(20), np.arange(20), seed=0)
>>> estimate.value, round(estimate.low, 4), estimate.high, estimate.n
(1.0, 0.8316, 1.0, 20)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import betaincinv, ndtri, stdtrit

CHUNK = 2_000_000
"""Most weights held at once, in array elements."""

FEW_KINDS = 256
"""Most kinds of clusters for which drawing the number of each kind is cheaper than drawing the clusters."""

NO_SPREAD = 1e-20
"""A variance below this is rounding: the clusters agree."""

FEW = 10
"""Fewest clusters that differ for a bootstrap of a difference; with fewer it claims too much."""

FEW_FOR_A_RATIO = 100
"""Fewest clusters of unequal sizes for a 95 % interval of a ratio to hold its level."""

COVERED_BY_FEW = (0.88, 0.97)
"""Least and most of the simulated worlds in which it then holds the truth: histories of unequal lengths, read alike or
the worse the longer. Where a few users have most of the tokens it is less."""

OF_FOLDS = 2.0
"""Variance of a score over folds at chance, in units of the variance of redrawing users.

Two folds learn from each other, so that with nothing to be found the one does well when the other does. Redrawing users
leaves the classifiers as they are and sees half of it; no estimate sees all of it without bias (Bengio & Grandvalet,
JMLR 5, 2004). Where there is much to find, this is more than it takes.
"""


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that covers the truth, over repeated draws of users, with the level asked for."""

    value: float
    low: float
    high: float
    n: int
    """Observations that counted."""


def mean_estimate(
    values: Float[np.ndarray, "n"],
    clusters: Int[np.ndarray, "n"],
    *,
    seed: int | None,
    level: float = 0.95,
    draws: int = 2000,
) -> Estimate:
    """The mean over all observations, with an interval that treats each cluster (user) as one draw.

    Without a seed no interval is drawn: both its ends are the value.

    Raises ValueError on no observations, on NaN or infinity, and for values outside [0, 1] that come from one cluster.
    """
    return ratio_estimate(values, np.ones(len(values), dtype=np.int64), clusters, seed=seed, level=level, draws=draws)


def ratio_estimate(
    sums: Float[np.ndarray, "n"] | Int[np.ndarray, "n"],
    counts: Int[np.ndarray, "n"],
    clusters: Int[np.ndarray, "n"],
    *,
    seed: int | None,
    level: float = 0.95,
    draws: int = 2000,
) -> Estimate:
    """``mean_estimate`` of observations added up beforehand: row i holds ``counts[i]`` that total ``sums[i]``.

    That is what token accuracy needs: hits over tokens, some rows with more tokens than others. With fewer than
    ``FEW_FOR_A_RATIO`` clusters the interval covers the truth as often as ``COVERED_BY_FEW`` says. Raises as
    ``mean_estimate`` does.
    """
    totals, sizes = _by_cluster(sums, counts, clusters)
    value, variance = _ratio(totals, sizes)
    if seed is None:
        return Estimate(value, value, value, int(sizes.sum()))
    bounded = bool((sums >= 0).all() and (sums <= counts).all())
    if len(sizes) == 1 and not bounded:
        raise ValueError("an interval needs at least two clusters, or values in [0, 1]; got one cluster")
    low, high = _percentile(totals, sizes, seed, level, draws)
    if bounded:
        wide_low, wide_high = proportion_interval(value, variance, len(sizes), level)
        low, high = min(low, wide_low), max(high, wide_high)
    return Estimate(value, min(low, value), max(high, value), int(sizes.sum()))


def paired_difference(
    a: Float[np.ndarray, "n"],
    b: Float[np.ndarray, "n"],
    clusters: Int[np.ndarray, "n"],
    *,
    seed: int,
    level: float = 0.95,
    draws: int = 2000,
) -> Estimate:
    """The mean of a - b, for two scores of the same observations in the same order.

    Values in [0, 1] that agree for all but a few clusters are bounded one side at a time: the gains and the losses
    each get half of the error. Raises as ``mean_estimate`` does.
    """
    if a.shape != b.shape:
        raise ValueError(f"a pair needs two scores of the same observations; got {len(a)} and {len(b)}")
    ones = np.ones(len(a), dtype=np.int64)
    totals, sizes = _by_cluster(a - b, ones, clusters)
    value, variance = _ratio(totals, sizes)
    bounded = all(bool((side >= 0).all() and (side <= 1).all()) for side in (a, b))
    if len(sizes) == 1 and not bounded:
        raise ValueError("an interval needs at least two clusters, or values in [0, 1]; got one cluster")
    low, high = _percentile(totals, sizes, seed, level, draws)
    if bounded:
        # (d + 1) / 2 lies in [0, 1]; halving the difference quarters its variance.
        wide_low, wide_high = proportion_interval((value + 1) / 2, variance / 4, len(sizes), level)
        low, high = min(low, 2 * wide_low - 1), max(high, 2 * wide_high - 1)
    gains, _ = _by_cluster(np.maximum(a - b, 0), ones, clusters)
    losses, _ = _by_cluster(np.maximum(b - a, 0), ones, clusters)
    if bounded and np.count_nonzero(gains + losses) < FEW:
        half = (1 + level) / 2
        gain_low, gain_high = proportion_interval(*_ratio(gains, sizes), len(sizes), half)
        loss_low, loss_high = proportion_interval(*_ratio(losses, sizes), len(sizes), half)
        low, high = min(low, gain_low - loss_high), max(high, gain_high - loss_low)
    return Estimate(value, min(low, value), max(high, value), len(a))


def widened(estimate: Estimate, times: float) -> Estimate:
    """The same share, in [0, 1], where its variance is so many ``times`` that of redrawing the clusters.

    >>> wider = widened(Estimate(0.5, 0.4, 0.7, 30), 4)
    >>> round(wider.low, 4), round(wider.high, 4)
    (0.3, 0.9)
    """
    by = times**0.5
    low, high = (estimate.value + by * (end - estimate.value) for end in (estimate.low, estimate.high))
    return replace(estimate, low=max(low, 0.0), high=min(high, 1.0))


def clopper_pearson(hits: float | int, trials: float | int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion; hits and trials may be fractions of an effective sample.

    >>> tuple(round(bound, 4) for bound in clopper_pearson(1, 10))
    (0.0025, 0.445)
    """
    if not 0 <= hits <= trials or trials <= 0:
        raise ValueError(f"expected 0 <= hits <= trials and some trials; got {hits} of {trials}")
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def proportion_interval(value: float, variance: float, clusters: int, level: float = 0.95) -> tuple[float, float]:
    """Korn & Graubard's interval of a quantity in [0, 1] whose estimate has this variance between clusters.

    Effective sample n = value (1 - value) / variance · (z / t)², with t of ``clusters`` - 1 degrees of freedom.
    Where the clusters agree on c there is no variance to go by. A share q = ((1 - level) / 2) ** (1 / clusters)
    of the population then says c and the rest may say anything: [c q, c q + 1 - q], Clopper-Pearson where c is 0 or 1.
    """
    tail = (1 - level) / 2
    if clusters == 1 or variance <= NO_SPREAD or not 0 < value < 1:
        share = tail ** (1 / clusters)
        return value * share, value * share + 1 - share
    effective = value * (1 - value) / variance * float(ndtri(tail) / stdtrit(clusters - 1, tail)) ** 2
    return clopper_pearson(value * effective, effective, level)


def cluster_weights(
    strata: Int[np.ndarray, "clusters"], draws: int, generator: np.random.Generator, width: int = 1
) -> Iterator[Int[np.ndarray, "chunk clusters"]]:
    """Yield how often each cluster is drawn, chunk of draws by chunk: each stratum is redrawn at its size.

    ``width`` is the number of elements the caller holds per cluster, so that its memory stays bounded too.
    """
    order = np.argsort(strata, kind="stable")
    _, starts, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    clusters = len(strata)
    rows = max(1, CHUNK // (clusters * width))
    for first in range(0, draws, rows):
        chunk = min(rows, draws - first)
        weights = np.empty((chunk, clusters), dtype=np.int64)
        for start, size in zip(starts, sizes, strict=True):
            picks = generator.integers(0, size, (chunk, size)) + np.arange(chunk)[:, None] * size
            drawn = np.bincount(picks.ravel(), minlength=chunk * size).reshape(chunk, size)
            weights[:, order[start : start + size]] = drawn
        yield weights


def _by_cluster(
    sums: Float[np.ndarray, "n"] | Int[np.ndarray, "n"], counts: Int[np.ndarray, "n"], clusters: Int[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "clusters"], Float[np.ndarray, "clusters"]]:
    """Sum and count of each cluster that has observations."""
    if not len(sums) == len(counts) == len(clusters):
        raise ValueError(f"expected one cluster per value; got {len(sums)} values and {len(clusters)} clusters")
    if (counts < 0).any() or counts.sum() == 0:
        raise ValueError("there is nothing to average: no observation counts")
    if not np.isfinite(sums).all():
        raise ValueError(f"expected finite values; got {int((~np.isfinite(sums)).sum())} that are NaN or infinite")
    _, index = np.unique(clusters, return_inverse=True)
    totals = np.bincount(index, weights=sums)
    sizes = np.bincount(index, weights=counts)
    return totals[sizes > 0], sizes[sizes > 0]


def _ratio(totals: Float[np.ndarray, "clusters"], sizes: Float[np.ndarray, "clusters"]) -> tuple[float, float]:
    """The pooled mean and its variance between clusters, linearized."""
    value = float(totals.sum() / sizes.sum())
    clusters = len(sizes)
    if clusters == 1:
        return value, 0.0
    spread = float(((totals - value * sizes) ** 2).sum() / sizes.sum() ** 2)
    return value, spread * clusters / (clusters - 1)


def _percentile(
    totals: Float[np.ndarray, "clusters"], sizes: Float[np.ndarray, "clusters"], seed: int, level: float, draws: int
) -> tuple[float, float]:
    """Quantiles of the pooled mean over redrawn clusters.

    Clusters with the same sum and count are exchangeable: drawing how many of each kind come up is the same bootstrap,
    and a hit rate has only a few kinds, whatever the number of users.
    """
    generator = np.random.default_rng(seed)
    each = np.stack([totals, sizes], axis=1)
    kinds, multiplicity = np.unique(each, axis=0, return_counts=True)
    if len(kinds) <= FEW_KINDS:
        resampled = generator.multinomial(len(sizes), multiplicity / len(sizes), size=draws) @ kinds
    else:
        strata = np.zeros(len(sizes), dtype=np.int64)
        resampled = np.concatenate([weights @ each for weights in cluster_weights(strata, draws, generator)])
    tail = (1 - level) / 2
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], [tail, 1 - tail])
    return float(low), float(high)

"""Share of pairs in which one user's score is above another's, with users redrawn: AUC and its like.

An AUC is the share of pairs that come out right, and each user is in many pairs. Redrawing users gives a pair (i, j)
the weight w_i w_j, the bootstrap of a U-statistic (Davison & Hinkley, *Bootstrap Methods and their Application*, 1997,
§ 3.8), widened near 0 and 1 as `intervals` does it. Three of four pairs are won here:

>>> high, low = np.array([0.35, 0.8]), np.array([0.1, 0.4])
>>> won(high, low).mean().item()
0.75
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.scoring.intervals import Estimate, cluster_weights, proportion_interval

Pairs = tuple[Float[np.ndarray, "users users"], Bool[np.ndarray, "users users"]]
"""Two tables over pairs of users: how far each pair is won (1, ½ for a tie, 0), and whether it counts."""


def won(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> Float[np.ndarray, "n m"]:
    """1 where a stands above b, ½ where both are equal."""
    return np.asarray((a[:, None] > b) + 0.5 * (a[:, None] == b))


def share_won(pairs: Sequence[Pairs]) -> float:
    """The share of pairs won, as the mean of several comparisons; of those without a pair nothing is said.

    Raises ValueError where none has a pair.
    """
    users = len(pairs[0][0]) if pairs else 0
    share = float(_shares(pairs, np.ones((1, users), dtype=np.int64))[0])
    if not np.isfinite(share):
        raise ValueError("there is no pair to compare")
    return share


def share_estimate(
    pairs: Sequence[Pairs],
    strata: Int[np.ndarray, "users"],
    *,
    independent: int,
    seed: int | None,
    level: float = 0.95,
    draws: int = 2000,
) -> Estimate:
    """``share_won`` with an interval from redrawing users within strata; without a seed its ends are the value.

    Args:
        independent: how many pairs can be formed of which no two share a user: if all of them come out one way, the
            share behind them is at least 0.025 ** (1 / independent), at 95 %.
    """
    value = share_won(pairs)
    counted = np.any([inside.any(0) | inside.any(1) for _, inside in pairs], axis=0)
    if seed is None:
        return Estimate(value, value, value, int(counted.sum()))
    generator = np.random.default_rng(seed)
    drawn = [_shares(pairs, weights) for weights in cluster_weights(strata, draws, generator, width=2 * len(pairs))]
    # A draw without a pair leaves nothing to compare.
    resampled = np.concatenate(drawn)
    resampled = resampled[np.isfinite(resampled)]
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # Redrawing k shows (k - 1) / k of the variance.
    variance = float(resampled.var()) * independent / max(independent - 1, 1)
    wide_low, wide_high = proportion_interval(value, variance, independent, level)
    return Estimate(value, min(float(low), wide_low, value), max(float(high), wide_high, value), int(counted.sum()))


def _shares(pairs: Sequence[Pairs], weights: Int[np.ndarray, "draws users"]) -> Float[np.ndarray, "draws"]:
    """Return the share for each draw of users; NaN where no comparison has a pair."""
    w = weights.astype(np.float64)
    total, told = np.zeros(len(w)), np.zeros(len(w))
    for wins, inside in pairs:
        above = ((w @ np.where(inside, wins, 0.0)) * w).sum(1)
        count = ((w @ inside.astype(np.float64)) * w).sum(1)
        total += np.divide(above, count, out=np.zeros(len(w)), where=count > 0)
        told += count > 0
    return np.asarray(np.divide(total, told, out=np.full(len(w), np.nan), where=told > 0))

"""How evenly a federation serves its clients: spread, worst client and Jain's index, each with an interval.

Each user has a score x and belongs to a client; m_c is the mean over the users of client c, n the number of clients.

    standard deviation   sqrt(sum_c (m_c - mean m)^2 / n)      in units of the score; 0: all clients are served alike
    worst client         min_c m_c
    Jain's index         (sum_c m_c)^2 / (n sum_c m_c^2)       1/n: one client has it all; 1: all alike

Sources: standard deviation as in Li et al. 2021 (Ditto, arXiv 2012.04221, section 4); Jain, Chiu & Hawe 1984, equation
2. Clients count alike, however many users they have.

**Intervals** are conditional on the clients there are: users are redrawn inside each of them, and clients that have one
user each are redrawn themselves. Noise in the m_c biases all three (clients that are served alike never look alike), so
that percentiles of a bootstrap, which has the noise twice, miss the truth every time when all are served alike.

- Standard deviation and Jain's index: a test is inverted (Carpenter & Bithell, Statistics in Medicine 19, 2000, section
  3.4). The clients' deviations are scaled to every t from 0 up, the redrawn users' noise is added, and the interval
  holds every t under which the observed value is none of the 5 % most extreme.
- Worst client: its m_c is bounded from below by any client's own bound, from above where all bounds hold at once
  (Bonferroni), each by Korn & Graubard's interval.
- Differences between two strategies: the hull of the basic and the percentile bootstrap; the bias mostly cancels.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.scoring.intervals import Estimate, cluster_weights, proportion_interval

Measure = Literal["standard_deviation", "worst_client", "jain"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
STEPS = 81
"""Spreads that are tried."""


def standard_deviation(means: Float[np.ndarray, "*draws clients"]) -> Float[np.ndarray, "*draws"]:
    """Over clients, in units of the score.

    >>> float(standard_deviation(np.array([0.25, 0.75])))
    0.25
    """
    return np.asarray(means.std(axis=-1))


def worst_client(means: Float[np.ndarray, "*draws clients"]) -> Float[np.ndarray, "*draws"]:
    """The lowest mean."""
    return np.asarray(means.min(axis=-1))


def jain(means: Float[np.ndarray, "*draws clients"]) -> Float[np.ndarray, "*draws"]:
    """Jain's index; 1 where every client has nothing, since then all have the same.

    >>> float(jain(np.array([1.0, 0.0]))), float(jain(np.array([0.2, 0.2, 0.2]))), float(jain(np.array([1.0, 3.0])))
    (0.5, 1.0, 0.8)
    """
    squares = means.shape[-1] * (means**2).sum(axis=-1)
    totals = means.sum(axis=-1) ** 2
    return np.asarray(np.divide(totals, squares, out=np.ones_like(squares), where=squares > 0))


_FUNCTIONS: dict[Measure, Callable[[Float[np.ndarray, "*draws clients"]], Float[np.ndarray, "*draws"]]] = {
    "standard_deviation": standard_deviation, "worst_client": worst_client, "jain": jain,
}  # fmt: skip


def balance_estimates(
    values: Float[np.ndarray, "users"],
    clients: Int[np.ndarray, "users"],
    *,
    seed: int,
    level: float = 0.95,
    draws: int = 2000,
) -> dict[Measure, Estimate]:
    """Every measure of one strategy, from one score in [0, 1] a user. Raises ValueError with fewer than two clients."""
    names = _checked(values, clients)
    (means,), (drawn,) = _client_means([values], clients, names, seed, draws)
    found: dict[Measure, Estimate] = {}
    for measure, function in _FUNCTIONS.items():
        value = float(function(means))
        if len(names) == len(values):
            low, high = _percentiles(function(drawn), level)
        elif measure == "worst_client":
            low, high = _worst_interval(values, clients, names, level)
        else:
            low, high = _inverted(function, means, drawn - means, level)
        found[measure] = Estimate(value, min(low, value), max(high, value), len(values))
    return found


def balance_differences(
    a: Float[np.ndarray, "users"],
    b: Float[np.ndarray, "users"],
    clients: Int[np.ndarray, "users"],
    *,
    seed: int,
    level: float = 0.95,
    draws: int = 2000,
) -> dict[Measure, Estimate]:
    """Every measure of ``a`` minus that of ``b``, for two strategies' scores of the same users in the same order.

    Both are redrawn together, so that what is hard about a user cancels. Raises ValueError as `balance_estimates` does,
    and for two lists of different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"a pair needs two scores of the same users; got {len(a)} and {len(b)}")
    names = _checked(a, clients)
    _checked(b, clients)
    means, (drawn_a, drawn_b) = _client_means([a, b], clients, names, seed, draws)
    found: dict[Measure, Estimate] = {}
    for measure, function in _FUNCTIONS.items():
        value = float(function(means[0]) - function(means[1]))
        first, second = function(drawn_a), function(drawn_b)
        low, high = _percentiles(first - second, level)
        ends = [low, high, max(-1.0, 2 * value - high), min(1.0, 2 * value - low)]
        if measure == "worst_client" and len(names) < len(a) and not np.array_equal(a, b):
            # A client without a single hit is never redrawn with one, so the draws alone say too little.
            one, other = (
                (float(function(mean)), *_worst_interval(of_users, clients, names, level))
                for mean, of_users in zip(means, (a, b), strict=True)
            )
            ends += _of_difference(one, other, _correlation(first, second))
        found[measure] = Estimate(value, min(value, *ends), max(value, *ends), len(a))
    return found


def _checked(values: Float[np.ndarray, "users"], clients: Int[np.ndarray, "users"]) -> Int[np.ndarray, "clients"]:
    """The clients that have users."""
    if len(values) != len(clients):
        raise ValueError(f"expected one client per user; got {len(values)} scores and {len(clients)} clients")
    if not np.isfinite(values).all() or (values < 0).any() or (values > 1).any():
        raise ValueError("expected scores in [0, 1]")
    names = np.unique(clients)
    if len(names) < 2:
        raise ValueError(f"balance needs at least two clients with users; got {len(names)}")
    return np.asarray(names)


def _client_means(
    scores: list[Float[np.ndarray, "users"]],
    clients: Int[np.ndarray, "users"],
    names: Int[np.ndarray, "clients"],
    seed: int,
    draws: int,
) -> tuple[list[Float[np.ndarray, "clients"]], list[Float[np.ndarray, "draws clients"]]]:
    """Each client's mean as it is, and in every draw, for each of ``scores``; one draw of users for all of them."""
    member = (clients[:, None] == names).astype(np.float64)
    sizes = member.sum(axis=0)
    sums = [score[:, None] * member for score in scores]
    drawn: list[list[Float[np.ndarray, "chunk clients"]]] = [[] for _ in scores]
    generator = np.random.default_rng(seed)
    if len(names) == len(clients):  # the clients are the users
        for weights in cluster_weights(np.zeros_like(clients), draws, generator):
            picks = np.repeat(np.tile(np.arange(len(clients)), len(weights)), weights.ravel())
            for place, score in enumerate(scores):
                drawn[place].append(score[picks].reshape(len(weights), len(clients)))
        return list(scores), [np.concatenate(parts) for parts in drawn]
    # Strata are redrawn at their size, so that the number of users of a client stays what it is.
    for weights in cluster_weights(clients, draws, generator):
        for place, values in enumerate(sums):
            drawn[place].append(weights @ values / sizes)
    return [values.sum(axis=0) / sizes for values in sums], [np.concatenate(parts) for parts in drawn]


def _percentiles(drawn: Float[np.ndarray, "draws"], level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _inverted(
    function: Callable[[Float[np.ndarray, "*draws clients"]], Float[np.ndarray, "*draws"]],
    means: Float[np.ndarray, "clients"],
    noise: Float[np.ndarray, "draws clients"],
    level: float,
) -> tuple[float, float]:
    """The range of ``function`` over the spreads under which its observed value is not extreme."""
    observed, middle, spread = function(means), means.mean(), float(means.std())
    alternating = np.where(np.arange(len(means)) % 2 == 0, 1.0, -1.0)
    direction = (means - middle) / spread if spread > 1e-12 else alternating - alternating.mean()
    accepted = []
    for t in np.linspace(0, spread + 5 * float(noise.std()), STEPS):
        true = np.clip(middle + t * direction, 0, 1)
        low, high = _percentiles(function(true + noise), level)
        if low <= observed <= high:
            accepted.append(float(function(true)))
    return (min(accepted), max(accepted)) if accepted else (float(observed), float(observed))


def _of_difference(
    a: tuple[float, float, float], b: tuple[float, float, float], correlation: float
) -> tuple[float, float]:
    """Bounds of a difference, from two values with theirs (MOVER; Zou and Donner, Statistics in Medicine 27, 2008)."""

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))

    value = a[0] - b[0]
    return value - reach(a[0] - a[1], b[2] - b[0]), value + reach(a[2] - a[0], b[0] - b[1])


def _correlation(a: Float[np.ndarray, "draws"], b: Float[np.ndarray, "draws"]) -> float:
    """Of two measures over the draws; 0 where one of them does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 < b.std() else 0.0


def _worst_interval(
    values: Float[np.ndarray, "users"],
    clients: Int[np.ndarray, "users"],
    names: Int[np.ndarray, "clients"],
    level: float,
) -> tuple[float, float]:
    """Bounds of the lowest mean: below by any client alone, above by all of them at once."""
    lows, highs = [], []
    for name in names:
        own = values[clients == name]
        variance = float(own.var(ddof=1)) / len(own) if len(own) > 1 else 0.0
        lows.append(proportion_interval(float(own.mean()), variance, len(own), level)[0])
        highs.append(proportion_interval(float(own.mean()), variance, len(own), 1 - (1 - level) / len(names))[1])
    return min(lows), min(highs)

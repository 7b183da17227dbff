"""Balance of a federation between its clients: spread, worst client and Jain's index, each with an interval.

Each user has a score x and belongs to a client; m_c is the mean over the users of client c, n the number of clients.

    standard deviation   sqrt(sum_c (m_c - mean m)^2 / n)      in units of the score; 0: all clients are served alike
    worst client         min_c m_c
    Jain's index         (sum_c m_c)^2 / (n sum_c m_c^2)       1/n: one client has it all; 1: all alike

Sources: standard deviation as in Li et al. 2021 (Ditto, arXiv 2012.04221, section 4); Jain, Chiu & Hawe 1984, equation
2. Clients count alike, however many users they have.

**Intervals** are conditional on the clients there are: users are redrawn inside each of them, and clients that have one
user each are redrawn themselves. Noise in the m_c biases all three: clients that are served alike never look alike.

- Standard deviation and Jain's index: a test is inverted (Carpenter & Bithell, Statistics in Medicine 19, 2000, section
  3.4). The clients' deviations are scaled to every size t from 0 up, noise is added, and the interval holds every t
  under which the observed value is none of the 5 % most extreme. The noise is skewed as
  that of hits is (`scoring/noisy_means.py`): by normal noise clients that are served alike, and seldom hit, differ.
  With .6 hits expected of a client Jain's index is held in .88 of the worlds. Where clients differ in size, what the
  smallest one hides decides, so that a spread by it alone, up or down, is tried too. With a client below
  `FEWEST` users no such interval held what it should in simulations, and there is none: the answer is a `Refusal`; so
  is that of fewer than `FEWEST` clients of one user each.
- Worst client: its m_c is bounded from below by any client's own bound, from above where all bounds hold at once
  (Bonferroni), each by Korn & Graubard's interval.
- Differences of the standard deviation and of Jain's index: from both intervals (MOVER), around values without noise,
  s^2 - mean of the noise's variance. Two strategies' noise is correlated, since their users are the same, which counts
  as far as both spreads stand out from it. With a small client this is wider than it need be.
- Differences of worst clients: the hull of the basic and the percentile bootstrap, and MOVER. The hull, and draws with
  pseudo-users, are also for differences where each client is one user.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.scoring.intervals import Estimate, cluster_weights, proportion_interval
from pplr_audit.scoring.noisy_means import NoisyMeans

Measure = Literal["standard_deviation", "worst_client", "jain"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
STEPS = 25
"""Spreads that are tried; between them the interval's ends are interpolated."""

FEWEST = 20
"""Users of a client below which nothing is said about the spread over clients."""


@dataclass(frozen=True)
class Refusal:
    """A value whose interval cannot be had, and why."""

    value: float
    n: int
    reason: str


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


Function = Callable[[Float[np.ndarray, "*draws clients"]], Float[np.ndarray, "*draws"]]
World = tuple[Float[np.ndarray, "steps clients"], Mapping[Function, Float[np.ndarray, "steps draws"]]]
"""True means under several spreads, and each measure of spread over means that are drawn around them."""
_FUNCTIONS: dict[Measure, Function] = {
    "standard_deviation": standard_deviation, "worst_client": worst_client, "jain": jain,
}  # fmt: skip
_SPREADS = (standard_deviation, jain)


def balance_estimates(
    values: Float[np.ndarray, "users"],
    clients: Int[np.ndarray, "users"],
    *,
    seed: int,
    level: float = 0.95,
    draws: int = 2000,
) -> dict[Measure, Estimate | Refusal]:
    """Every measure of one strategy, from one score in [0, 1] a user. Raises ValueError with fewer than two clients."""
    names = _checked(values, clients)
    if len(names) == len(values):
        return _of_single_users(values, seed, level, draws)
    noisy = NoisyMeans.of(values, clients, names)
    normal = np.random.default_rng(seed).standard_normal((draws, len(names)))
    worlds = _worlds(noisy, normal) if noisy.sizes.min() >= FEWEST else []
    found: dict[Measure, Estimate | Refusal] = {}
    for measure, function in _FUNCTIONS.items():
        value = float(function(noisy.means))
        if measure == "worst_client":
            low, high = _worst_interval(values, clients, names, level)
        elif noisy.sizes.min() < FEWEST:
            found[measure] = Refusal(value, len(values), _too_few(noisy))
            continue
        else:
            low, high = _inverted(function, noisy, worlds, level)
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
) -> dict[Measure, Estimate | Refusal]:
    """Every measure of ``a`` minus that of ``b``, for two strategies' scores of the same users in the same order.

    Both are redrawn together, so that what is hard about a user cancels. Raises ValueError as `balance_estimates` does,
    and for two lists of different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"a pair needs two scores of the same users; got {len(a)} and {len(b)}")
    names = _checked(a, clients)
    _checked(b, clients)
    if len(names) == len(a):
        return _differences_of_single_users(a, b, seed, level, draws)
    if np.array_equal(a, b):
        return {measure: Estimate(0.0, 0.0, 0.0, len(a)) for measure in MEASURES}
    means, (drawn_a, drawn_b) = _client_means([a, b], clients, names, seed, draws)
    pair = NoisyMeans.of(a, clients, names), NoisyMeans.of(b, clients, names)
    enough = pair[0].sizes.min() >= FEWEST
    sides = _sides(pair, _shared_luck(a, b, clients), seed, draws) if enough else []
    found: dict[Measure, Estimate | Refusal] = {}
    for measure, function in _FUNCTIONS.items():
        value = float(function(means[0]) - function(means[1]))
        if measure == "worst_client":
            first, second = function(drawn_a), function(drawn_b)
            # A client without a single hit is never redrawn with one, so the draws alone say too little.
            one, other = (
                (float(function(mean)), *_worst_interval(of_users, clients, names, level))
                for mean, of_users in zip(means, (a, b), strict=True)
            )
            ends = [*_both_ways(value, first - second, level)]
            ends += _of_difference(one, other, _correlation(first, second))
        elif enough:
            ends = [*_difference_of_spreads(function, sides, level)]
        else:
            found[measure] = Refusal(value, len(a), _too_few(pair[0]))
            continue
        found[measure] = Estimate(value, min(value, *ends), max(value, *ends), len(a))
    return found


def _of_single_users(
    values: Float[np.ndarray, "users"], seed: int, level: float, draws: int
) -> dict[Measure, Estimate | Refusal]:
    """Every measure where each client is one user; the users are redrawn.

    Two pseudo-users, one with all and one with nothing, stand for those that were not drawn (as in Agresti & Coull, The
    American Statistician 52, 1998): without them 50 users look more alike than they are.
    """
    users = len(values)
    own = np.arange(users)
    _, (drawn,) = _client_means([values], own, own, seed, draws)
    picks = np.random.default_rng(seed).integers(0, users + 2, (draws, users))
    more = np.append(values, [0.0, 1.0])[picks]
    found: dict[Measure, Estimate | Refusal] = {}
    for measure, function in _FUNCTIONS.items():
        value = float(function(values))
        if measure != "worst_client" and users < FEWEST:
            found[measure] = Refusal(value, users, _too_few_of_one(users))
            continue
        ends = [*_percentiles(function(drawn), level)]
        if measure != "worst_client":
            ends += _percentiles(function(more), level)
        found[measure] = Estimate(value, min(value, *ends), max(value, *ends), users)
    return found


def _differences_of_single_users(
    a: Float[np.ndarray, "users"], b: Float[np.ndarray, "users"], seed: int, level: float, draws: int
) -> dict[Measure, Estimate | Refusal]:
    """The same for differences, with four pseudo-users: all or nothing by ``a``, and all or nothing by ``b``.

    Without them two strategies that a handful of users tell apart differ by too little, in .4 to .9 of the worlds.
    """
    users = len(a)
    own = np.arange(users)
    _, (drawn_a, drawn_b) = _client_means([a, b], own, own, seed, draws)
    picks = np.random.default_rng(seed).integers(0, users + 4, (draws, users))
    more_a, more_b = np.append(a, [0.0, 1.0, 0.0, 1.0])[picks], np.append(b, [0.0, 0.0, 1.0, 1.0])[picks]
    found: dict[Measure, Estimate | Refusal] = {}
    for measure, function in _FUNCTIONS.items():
        value = float(function(a) - function(b))
        if measure != "worst_client" and users < FEWEST:
            found[measure] = Refusal(value, users, _too_few_of_one(users))
            continue
        ends = [*_both_ways(value, function(drawn_a) - function(drawn_b), level)]
        if measure != "worst_client":
            ends += _percentiles(function(more_a) - function(more_b), level)
        found[measure] = Estimate(value, min(value, *ends), max(value, *ends), users)
    return found


def _too_few(noisy: NoisyMeans) -> str:
    return f"a client has {noisy.sizes.min()} users; below {FEWEST} nothing can be said about the spread over clients"


def _too_few_of_one(users: int) -> str:
    return (
        f"there are {users} clients of one user each; below {FEWEST} nothing can be said about the spread over clients"
    )


def row(found: Estimate | Refusal) -> dict[str, Any]:
    """The fields ``value``, ``ci`` and ``n`` of a row of a document, and ``reason`` where ``ci`` is null."""
    if isinstance(found, Refusal):
        return {"value": found.value, "ci": None, "n": found.n, "reason": found.reason}
    return {"value": found.value, "ci": [found.low, found.high], "n": found.n}


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


def _both_ways(value: float, drawn: Float[np.ndarray, "draws"], level: float) -> tuple[float, float, float, float]:
    """The ends of the percentile interval of a difference, and those of the basic one."""
    low, high = _percentiles(drawn, level)
    return low, high, max(-1.0, 2 * value - high), min(1.0, 2 * value - low)


def _worlds(noisy: NoisyMeans, normal: Float[np.ndarray, "draws clients"]) -> list[World]:
    """One world for each way in which clients may differ, over all spreads that are tried, one after the other."""
    found: list[World] = []
    middle, spread = float(noisy.means.mean()), float(noisy.means.std())
    noise = float((noisy.deviations(np.full(len(noisy.means), middle)) ** 2).mean()) ** 0.5
    for way in noisy.directions() if 0 < middle < 1 else ():
        true = np.clip(middle + np.linspace(0, spread + 5 * noise, STEPS)[:, None] * way, 0, 1)
        drawn = ([function(means) for function in _SPREADS] for means in (noisy.drawn(at, normal) for at in true))
        found.append((true, dict(zip(_SPREADS, map(np.stack, zip(*drawn, strict=True)), strict=True))))
    return found


def _inverted(function: Function, noisy: NoisyMeans, worlds: Sequence[World], level: float) -> tuple[float, float]:
    """The range of ``function`` over the spreads under which its observed value is not extreme."""
    if not worlds:  # nobody hit, or everybody: one client may be as far off as its size lets it
        at, smallest = float(noisy.means.mean()), int(noisy.sizes.min())
        low, high = proportion_interval(at, 0.0, smallest, level)
        far = np.where(np.arange(len(noisy.means)) == np.argmin(noisy.sizes), low if at > 0.5 else high, at)
        ends = float(function(noisy.means)), float(function(far))
        return min(ends), max(ends)
    found = [_inverted_along(function, float(function(noisy.means)), *world, level) for world in worlds]
    return min(low for low, _ in found), max(high for _, high in found)


def _inverted_along(
    function: Function, observed: float, true: Float[np.ndarray, "steps clients"],
    drawn: Mapping[Function, Float[np.ndarray, "steps draws"]], level: float,
) -> tuple[float, float]:  # fmt: skip
    """The same where the clients differ in one way only, more or less of it."""
    sizes = function(true)
    quantiles = np.quantile(drawn[function], [(1 - level) / 2, (1 + level) / 2], axis=1).T
    if function is jain:  # falls as clients drift apart
        sizes, quantiles, observed = -sizes, -quantiles[:, ::-1], -observed
    # A spread is too large where nearly all draws are above what was seen, too small where nearly all are below it.
    low, high = (np.interp(observed, np.maximum.accumulate(q), sizes) for q in (quantiles[:, 1], quantiles[:, 0]))
    return (-float(high), -float(low)) if function is jain else (float(low), float(high))


@dataclass(frozen=True)
class _Side:
    """One of two strategies: its means, the luck that was drawn for it, and the worlds drawn by that."""

    noisy: NoisyMeans
    normal: Float[np.ndarray, "draws clients"]
    worlds: list[World]


def _sides(pair: Sequence[NoisyMeans], luck: float, seed: int, draws: int) -> list[_Side]:
    """Both strategies; ``luck`` is the correlation of their noise."""
    generator = np.random.default_rng(seed)
    first = generator.standard_normal((draws, len(pair[0].means)))
    second = luck * first + max(1 - luck**2, 0.0) ** 0.5 * generator.standard_normal(first.shape)
    return [_Side(noisy, normal, _worlds(noisy, normal)) for noisy, normal in zip(pair, (first, second), strict=True)]


def _difference_of_spreads(function: Function, pair: Sequence[_Side], level: float) -> tuple[float, float]:
    """Bounds of ``function`` of the first less that of the second."""
    sides, drawn, shares = [], [], []
    for each in pair:
        low, high = _inverted(function, each.noisy, each.worlds, level)
        still, share = each.noisy.without_noise()
        sides.append((min(max(float(function(still)), low), high), low, high))
        drawn.append(function(still + each.normal * each.noisy.deviations(each.noisy.means)))
        shares.append(share)
    return _of_difference(sides[0], sides[1], _correlation(*drawn) * shares[0] * shares[1])


def _shared_luck(
    a: Float[np.ndarray, "users"], b: Float[np.ndarray, "users"], clients: Int[np.ndarray, "users"]
) -> float:
    """The correlation of two scores of the same users inside clients; 0 where one does not vary there."""
    _, place = np.unique(clients, return_inverse=True)
    off = [each - (np.bincount(place, weights=each) / np.bincount(place))[place] for each in (a, b)]
    return _correlation(off[0], off[1])


def _of_difference(
    a: tuple[float, float, float], b: tuple[float, float, float], correlation: float
) -> tuple[float, float]:
    """Bounds of a difference, from two values with theirs (MOVER; Zou and Donner, Statistics in Medicine 27, 2008)."""

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))

    value = a[0] - b[0]
    return value - reach(a[0] - a[1], b[2] - b[0]), value + reach(a[2] - a[0], b[0] - b[1])


def _correlation(a: Float[np.ndarray, "draws"], b: Float[np.ndarray, "draws"]) -> float:
    """Correlation of two measures over the draws; 0 where one of them does not vary."""
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

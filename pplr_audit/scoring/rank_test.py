"""The exact test of an AUC of one half: how likely are as many won pairs where the coins decide who is a member?

Where there is nothing to find, every choice of as many members among the users of each client is as likely as the real
one (randomization test: Mann & Whitney, *Ann. Math. Statist.* 18, 1947; with ties by midranks and the shift algorithm
of Streitberg & Röhmel, *Statistical Software Newsletter* 12, 1986). The test estimates no variance. So it finds more
leaks than an interval does, whose width is estimated.

Three members above three others: one choice of twenty.

>>> round(auc_p(np.arange(6.0), np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, dtype=int)), 12)
0.05
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import fftconvolve
from scipy.special import gammaln, ndtr
from scipy.stats import rankdata

from pplr_audit.scoring.membership import Labels

WORK = 100_000_000
"""Additions that one client may cost; beyond, the normal distribution of the same mean and variance stands in."""
FINEST = 1 << 20
"""Most steps of won pairs, each of which counts as two; beyond, a step is several pairs, so that memory is bounded."""
LEAST = 1e-15
"""Smallest p-value that is returned."""
Client = tuple[bytes, int]
"""The doubled ranks of a client's users in ascending order, as bytes of 64-bit integers, and its number of members."""


def auc_p(scores: Float[np.ndarray, "n"], labels: Labels, groups: Int[np.ndarray, "n"]) -> float:
    """Return the one-sided p-value of ``within_groups_auc`` against one half; one score a user.

    It is exact up to about 120 users a client, however many clients there are. A larger client counts by the normal
    distribution with the variance that its ties leave, except where so many are tied that the exact one is quick.
    Among thousands of users won pairs are counted in steps: those that might be dealt are rounded up, those that were
    won down, so that p is never too small.
    """
    clients: list[Client] = []
    won = pairs = 0
    for group in np.unique(groups):
        inside = groups == group
        members = labels[inside] == 1
        doubled = np.rint(2 * rankdata(scores[inside])).astype(np.int64)
        among = int(members.sum())
        if 0 < among < len(doubled):
            clients.append((np.sort(doubled).tobytes(), among))
            won += int(doubled[members].sum()) - among * (among + 1)
            pairs += 2 * among * (len(doubled) - among)
    step = 1 + pairs // FINEST
    return float(_tails(tuple(sorted(clients)), step)[won // step]) if won else 1.0


@lru_cache(maxsize=16)
def _tails(clients: tuple[Client, ...], step: int) -> Float[np.ndarray, "steps"]:
    """Probability of at least each number of won pairs in all clients together, a pair counted twice and a tie once."""
    chances = np.ones(1)
    for ranks, members in clients:
        chances = np.maximum(fftconvolve(chances, _won(ranks, members, step)), 0.0)
    return np.asarray(np.clip(np.cumsum(chances[::-1])[::-1] / chances.sum(), LEAST, 1.0))


@lru_cache(maxsize=16)
def _won(ranks: bytes, members: int, step: int) -> Float[np.ndarray, "steps"]:
    """Probability of each number of won pairs in one client, rounded up to whole steps."""
    doubled = np.frombuffer(ranks, dtype=np.int64)
    kinds, counts = np.unique(doubled, return_counts=True)
    tied = kinds[counts.argmax()]
    # Those who share the commonest score are all alike: it is enough to count them.
    apart, alike = np.sort(doubled[doubled != tied])[::-1], int(counts.max())
    most = min(len(apart), members)
    span = int(apart[:most].sum()) + 1
    pairs = 2 * members * (len(doubled) - members)
    steps = -(-pairs // step)
    if len(apart) * most * span > WORK:
        deviation = (members * (len(doubled) - members) / len(doubled) * doubled.var(ddof=1)) ** 0.5
        ends = (np.arange(steps + 2) - 1) * step + 0.5
        return np.asarray(np.diff(ndtr((ends - pairs / 2) / deviation)))
    ways = np.zeros((most + 1, span))
    ways[0, 0] = 1.0
    for rank in apart:
        ways[1:, rank:] += ways[:-1, :-rank]
    found = np.zeros(steps + 1)
    least = members * (members + 1)
    for chosen in range(max(0, members - alike), most + 1):
        rest = members - chosen
        share = np.exp(_log_ways(alike, rest) - _log_ways(len(doubled), members))
        reached = np.flatnonzero(ways[chosen])
        np.add.at(found, -(-(reached + rest * tied - least) // step), share * ways[chosen, reached])
    return found


def _log_ways(users: int, chosen: int) -> float:
    return float(gammaln(users + 1) - gammaln(chosen + 1) - gammaln(users - chosen + 1))

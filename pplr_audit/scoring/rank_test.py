"""The exact test of an AUC of one half: how likely are as many won pairs where the coins decide who is a member?

Where there is nothing to find, every choice of as many members among the users of each client is as likely as the real
one (randomization test: Mann & Whitney, *Ann. Math. Statist.* 18, 1947; with ties by midranks and the shift algorithm
of Streitberg & Röhmel, *Statistical Software Newsletter* 12, 1986). No variance is estimated, which is why the test
finds more than an interval whose width is.

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
LEAST = 1e-15
"""Smallest p-value that the sum over clients resolves."""
Client = tuple[bytes, int]
"""The doubled ranks of a client's users in ascending order, as bytes of 64-bit integers, and its number of members."""


def auc_p(scores: Float[np.ndarray, "n"], labels: Labels, groups: Int[np.ndarray, "n"]) -> float:
    """Return the one-sided p-value of ``within_groups_auc`` against one half; one score a user.

    It is exact up to about 120 users a client, however many clients there are. A larger client counts by the normal
    distribution with the variance that its ties leave, except where so many are tied that the exact one is quick.
    """
    clients: list[Client] = []
    won = 0
    for group in np.unique(groups):
        inside = groups == group
        members = labels[inside] == 1
        doubled = np.rint(2 * rankdata(scores[inside])).astype(np.int64)
        among = int(members.sum())
        if 0 < among < len(doubled):
            clients.append((np.sort(doubled).tobytes(), among))
            won += int(doubled[members].sum()) - among * (among + 1)
    return float(_tails(tuple(sorted(clients)))[won]) if won else 1.0


@lru_cache(maxsize=64)
def _tails(clients: tuple[Client, ...]) -> Float[np.ndarray, "doubled_pairs"]:
    """Probability of at least each number of won pairs in all clients together, a pair counted twice and a tie once."""
    chances = np.ones(1)
    for ranks, members in clients:
        chances = np.maximum(fftconvolve(chances, _won(ranks, members)), 0.0)
    return np.asarray(np.clip(np.cumsum(chances[::-1])[::-1] / chances.sum(), LEAST, 1.0))


@lru_cache(maxsize=64)
def _won(ranks: bytes, members: int) -> Float[np.ndarray, "doubled_pairs"]:
    """Probability of each number of won pairs in one client."""
    doubled = np.frombuffer(ranks, dtype=np.int64)
    kinds, counts = np.unique(doubled, return_counts=True)
    tied = kinds[counts.argmax()]
    # Those who share the commonest score are all alike: it is enough to count them.
    apart, alike = np.sort(doubled[doubled != tied])[::-1], int(counts.max())
    most = min(len(apart), members)
    span = int(apart[:most].sum()) + 1
    pairs = 2 * members * (len(doubled) - members)
    if len(apart) * most * span > WORK:
        deviation = (members * (len(doubled) - members) / len(doubled) * doubled.var(ddof=1)) ** 0.5
        return np.asarray(np.diff(ndtr((np.arange(pairs + 2) - 0.5 - pairs / 2) / deviation)))
    ways = np.zeros((most + 1, span))
    ways[0, 0] = 1.0
    for rank in apart:
        ways[1:, rank:] += ways[:-1, :-rank]
    found = np.zeros(pairs + 1)
    least = members * (members + 1)
    for chosen in range(max(0, members - alike), most + 1):
        rest = members - chosen
        share = np.exp(_log_ways(alike, rest) - _log_ways(len(doubled), members))
        reached = np.flatnonzero(ways[chosen])
        found[reached + rest * tied - least] += share * ways[chosen, reached]
    return found


def _log_ways(users: int, chosen: int) -> float:
    return float(gammaln(users + 1) - gammaln(chosen + 1) - gammaln(users - chosen + 1))

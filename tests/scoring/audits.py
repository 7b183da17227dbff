"""Audits made of scores alone: members and non-members whose scores are drawn, as many attacks as wanted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from pplr_audit.scoring.influence import of_auc
from pplr_audit.scoring.intervals import Estimate, proportion_interval
from pplr_audit.scoring.membership import within_groups_auc
from pplr_audit.scoring.verdicts import ALPHA, Claim, Measured, Reference, compared, corrected, variance_of

CLIENTS = 5


def above(areas: Sequence[float], side: int, generator: np.random.Generator, together: float = 0.0) -> list[bool]:
    """Of each attack, whether it is above its baseline in one audit.

    Args:
        areas: by attack, the true AUC (binormal).
        side: members, and as many non-members, in clients of about one size.
        together: how far the attacks' scores go together, from 0 to 1.
    """
    labels, clients = np.repeat([0, 1], side), np.tile(np.arange(CLIENTS), 2 * side)[: 2 * side]
    shared = generator.normal(size=2 * side)
    claims, clear = [], []
    for area in areas:
        noise = together**0.5 * shared + (1 - together) ** 0.5 * generator.normal(size=2 * side)
        scores = noise + labels * norm.ppf(area) * 2**0.5
        own = measured(scores, labels, clients)
        comparison = compared(own, Reference("chance", 0.5))
        claims.append(Claim(comparison.p, (own.influence,)))
        clear.append(comparison.difference_ci[0] > 0)
    found = corrected(claims, seed=int(generator.integers(2**31)), draws=1000)
    return [bool(p <= ALPHA and each) for p, each in zip(found, clear, strict=True)]


def measured(scores: Any, labels: Any, clients: Any) -> Measured:
    """An AUC with its influence, and the interval that follows from it."""
    value = within_groups_auc(scores, labels, clients)
    moved = of_auc(scores, labels, np.arange(len(scores)), clients)
    pairs = len(scores) // 2
    low, high = proportion_interval(value, variance_of(moved, pairs), pairs)
    return Measured(Estimate(value, low, high, len(scores)), moved, pairs)


def theory(area: float, side: int, attacks: int = 1) -> float:
    """How often a leak of this AUC is found among so many independent attacks, by the normal approximation.

    The variances are those of the Mann-Whitney statistic within a client, where there is nothing and where there is
    this leak (Bamber, *J. Math. Psychol.* 12, 1975), the binormal's integrals by quadrature.
    """
    users, shift = side / CLIENTS, norm.ppf(area) * 2**0.5
    at = np.linspace(-8, 8, 4001)
    two = float((norm.pdf(at) * (at[1] - at[0]) * norm.cdf(at + shift) ** 2).sum())  # one above two of the others
    nothing = (2 * users + 1) / (12 * users**2) / CLIENTS
    leak = (area * (1 - area) + 2 * (users - 1) * (two - area**2)) / users**2 / CLIENTS
    needed = norm.isf(1 - (1 - ALPHA) ** (1 / attacks))
    return float(norm.cdf((area - 0.5 - needed * nothing**0.5) / leak**0.5))

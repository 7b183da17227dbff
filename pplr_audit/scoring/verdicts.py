"""Verdicts: is a value above all that it must be above, and still so when it is the best of many?

A finding has one comparison for each thing that an attack could owe its value to: chance, its own control, popularity.
It is above its baseline where it is above each of them. The null hypothesis, that one of them explains it, is a union,
so each is tested at the full level and the largest p-value counts (intersection-union test: Berger, *Technometrics* 24,
1982); no correction is due for their number, as all must be rejected, and no maximum of estimates is ever a constant.

A sentence that names the strongest of several findings speaks for all of them. The p-values are corrected for that by
the step-down maximum of studentized statistics over redrawn users (Romano & Wolf, *JASA* 100, 2005), who are the same
users in all findings, so that findings which go together cost less than their number; and never by more than Holm's
(*Scand. J. Statist.* 6, 1979), which is all there is where single users are not known or do not vary.

Twenty findings, one of them with p = .001; no users are known:

>>> [round(p, 3) for p in corrected([Claim(0.001, ()), *[Claim(0.5, ())] * 19], seed=0)][:2]
[0.02, 1.0]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import betainc, ndtr, ndtri, stdtrit
from scipy.stats import hypergeom

from pplr_audit.scoring.influence import Influence
from pplr_audit.scoring.intervals import FEW, NO_SPREAD, Estimate, clopper_pearson, proportion_interval

ALPHA = 0.025
"""One-sided, so that whatever is above has a 95 % interval of the difference that lies above 0."""
DRAWS = 4000


@dataclass(frozen=True)
class Reference:
    """A reference that a value must be above.

    Args:
        influence: by user; empty for what is known exactly, such as chance.
        per_user: of a mean of shares, each user's.
        spread: variance that redrawing users does not show, such as that between draws of a control.
        p: the exact p-value of the finding against it, where there is one.
        about: what else is to be said of it, such as the number of draws.
    """

    name: str
    value: float
    influence: Influence = field(default_factory=dict)
    per_user: Mapping[int, float] = field(default_factory=dict)
    spread: float = 0.0
    p: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True if it is known exactly, such as chance."""
        return not self.influence and not self.spread


@dataclass(frozen=True)
class Measured:
    """A value with what its users say of it.

    Args:
        independent: of how many independent observations it is at most: users, or pairs of which no two share a user.
        low, high: what it may be; a share from 0 to 1.
    """

    estimate: Estimate
    influence: Influence
    independent: int
    per_user: Mapping[int, float] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """A value beside one thing that it must stand above; ``p`` is one-sided."""

    reference: Reference
    ci: tuple[float, float]
    difference: float
    difference_ci: tuple[float, float]
    p: float

    @property
    def exact(self) -> bool:
        """True if the reference is known exactly, such as chance."""
        return self.reference.exact


def compared(own: Measured, reference: Reference) -> Comparison:
    """The difference, its 95 % interval, and the probability of one as large where there is none.

    Both are of the same users, who are drawn together. Against a constant the interval is that of the value.
    """
    span = own.high - own.low
    ci = _interval(reference.value, variance_of(reference.influence, own.independent) + reference.spread, own)
    difference, exact = own.estimate.value - reference.value, reference.exact
    moved = less(own.influence, reference.influence)
    variance = (variance_of(moved, own.independent) + reference.spread) / span**2
    # A difference lies between -1 and 1 and is looked at as a share; one of a rate and a constant is the rate's.
    p = _tail((difference / span + 1) / 2, 0.5, variance / 4, own.independent)
    if exact and (own.per_user or variance <= NO_SPREAD):
        share, at = ((each - own.low) / span for each in (own.estimate.value, reference.value))
        p = _tail(share, at, variance, own.independent)
    if exact:
        p = p if reference.p is None else reference.p
        ends = own.estimate.low - reference.value, own.estimate.high - reference.value
        return Comparison(reference, ci, difference, (agreeing(ends[0], 0.0, p), ends[1]), p)
    low, high = (
        span * (2 * end - 1) for end in proportion_interval((difference / span + 1) / 2, variance / 4, own.independent)
    )
    if own.per_user and reference.per_user:
        few_p, few_low, few_high = _few(own, reference)
        p, low, high = max(p, few_p), min(low, few_low), max(high, few_high)
    low, high = agreeing(min(low, difference), 0.0, p), max(high, difference)
    return Comparison(reference, ci, difference, (low, high), p)


def agreeing(low: float, at: float, p: float) -> float:
    """Return the low end of a 95 % interval that agrees with the one-sided test of the value ``at``.

    An interval holds the values that are not rejected. If the test rejects ``at`` and all values below, the interval
    begins at ``at`` or above; if it does not, the interval begins at ``at`` or below. Its coverage stays: this leaves
    the truth out only where the test errs (Hsu & Berger, *JASA* 94, 1999; of several findings, Strassburger & Bretz,
    *Statistics in Medicine* 27, 2008).

    >>> agreeing(0.47, 0.5, 0.02), agreeing(0.51, 0.5, 0.03), agreeing(0.55, 0.5, 0.001), agreeing(0.4, 0.5, 0.2)
    (0.5, 0.5, 0.55, 0.4)
    """
    return max(low, at) if p <= ALPHA else min(low, at)


def exact_tpr_p(found: int, members: int, non_members: int, fpr: float) -> float:
    """The probability of so many members beyond the threshold of `tpr_at` where members are as non-members are.

    Of all users in the order of their scores, the number of members before one non-member more than ``fpr`` allows is
    negative hypergeometric (Johnson, Kemp & Kotz, *Univariate Discrete Distributions*, § 6.2.2).

    >>> exact_tpr_p(2, 2, 1, 0.0)  # both members before the one non-member: one order of three
    0.3333333333333333
    """
    if found == 0:
        return 1.0
    allowed = int(non_members * fpr + 1e-9)
    return float(hypergeom.sf(found - 1, members + non_members, members, min(found + allowed, members + non_members)))


def variance_of(influence: Influence, independent: int) -> float:
    """Return the variance of a value whose users are redrawn; redrawing k shows (k - 1) / k of it."""
    return float(np.square(list(influence.values())).sum()) * independent / max(independent - 1, 1)


def less(one: Influence, other: Influence) -> Influence:
    """The influence of the difference."""
    return {user: one.get(user, 0.0) - other.get(user, 0.0) for user in {**one, **other}}


@dataclass(frozen=True)
class Claim:
    """The part of a finding that the correction needs.

    Args:
        p: the largest of its comparisons.
        moved: by comparison, how each user moves the difference; none where users are not known. Holm's share is added
            for a finding of which one is missing or does not vary.
    """

    p: float
    moved: tuple[Influence, ...]


def corrected(findings: Sequence[Claim], *, seed: int, draws: int = DRAWS) -> list[float]:
    """The p-value of each, corrected for the number of all."""
    found = np.array([each.p for each in findings])
    z = -ndtri(found)
    order = np.argsort(z, kind="stable")
    highest, alone = np.full(draws, -np.inf), 0
    drawn = _redrawn(findings, seed, draws)
    # From the weakest on: each is corrected for itself and all that are weaker, the strongest for all.
    for rank, place in enumerate(order, start=1):
        own, p = drawn[place], findings[place].p
        highest = np.maximum(highest, own.statistics)
        alone += not own.whole
        reached = (1 + np.count_nonzero(highest >= z[place])) / (draws + 1) if alone < rank else 0.0
        found[place] = min(max(min(reached + alone * p, rank * p), p), 1.0)
    found[order[::-1]] = np.maximum.accumulate(found[order[::-1]])  # none is surer than a stronger one
    return [float(p) for p in found]


def simultaneous_level(influences: Sequence[Influence], *, seed: int, level: float = 0.95, draws: int = DRAWS) -> float:
    """The level at which intervals of all these values hold together with ``level``; at most Bonferroni's.

    By the maximum of the studentized deviations over redrawn users; a value without influence adds its own tail.
    """
    drawn = _redrawn([Claim(1.0, (each,)) for each in influences], seed, draws, sides=2)
    statistics = [each.statistics for each in drawn if each.whole]
    alone = len(drawn) - len(statistics)
    highest = np.sort(np.max(statistics, axis=0)) if statistics else np.zeros(0)
    low, high = 0.0, -float(ndtri((1 - level) / 2 / max(len(influences), 1)))
    for _ in range(50):
        z = (low + high) / 2
        beyond = (1 + len(highest) - np.searchsorted(highest, z)) / (draws + 1) if statistics else 0.0
        low, high = (z, high) if beyond + alone * 2 * float(ndtr(-z)) > 1 - level else (low, z)
    return max(level, 1 - 2 * float(ndtr(-high)))


@dataclass(frozen=True)
class _Drawn:
    statistics: Float[np.ndarray, "draws"]
    """The largest studentized deviation of a finding's comparisons in each draw of users; -inf where there is none."""
    whole: bool
    """True if all its comparisons vary over the draws."""


def _redrawn(findings: Sequence[Claim], seed: int, draws: int, sides: int = 1) -> list[_Drawn]:
    """Every user counts as often as a Poisson variable of mean 1 says, in all findings alike."""
    users = sorted({user for each in findings for moved in each.moved for user in moved})
    at = {user: place for place, user in enumerate(users)}
    weights = np.random.default_rng(seed).poisson(1.0, (draws, len(users))).astype(np.float64)
    found = []
    for each in findings:
        effects = np.zeros((len(users), len(each.moved)))
        for column, moved in enumerate(each.moved):
            effects[[at[user] for user in moved], column] = [*moved.values()]
        vary = np.square(effects).sum(0) > NO_SPREAD
        effects = effects[:, vary]
        with np.errstate(divide="ignore", invalid="ignore"):
            studentized = (weights @ effects - effects.sum(0)) / np.sqrt(weights @ np.square(effects))
        studentized = np.nan_to_num(studentized, nan=0.0, posinf=np.inf, neginf=-np.inf)
        sided = np.abs(studentized) if sides == 2 else studentized
        found.append(_Drawn(sided.max(1, initial=-np.inf), bool(len(vary)) and bool(vary.all())))
    return found


def _interval(value: float, variance: float, own: Measured) -> tuple[float, float]:
    """95 % of a reference; a constant is itself."""
    if variance <= NO_SPREAD:
        return value, value
    span = own.high - own.low
    share = (value - own.low) / span
    low, high = proportion_interval(share, variance / span**2, own.independent)
    return min(own.low + span * low, value), max(own.low + span * high, value)


def _tail(value: float, at: float, variance: float, clusters: int) -> float:
    """Return the one-sided level at which the interval of `proportion_interval` reaches down to ``at``.

    Its lower end is below ``at`` for all levels with a tail less than the incomplete beta function there, as the
    binomial's tail is one; without variance the share that agrees is bounded by (at / value) ** clusters.
    """
    if value <= at:
        return 1.0 if variance <= NO_SPREAD or value < at else 0.5
    if clusters == 1 or variance <= NO_SPREAD or not 0 < value < 1:
        return float((at / value) ** clusters)
    effective = value * (1 - value) / variance * float(ndtri(ALPHA) / stdtrit(clusters - 1, ALPHA)) ** 2
    return float(betainc(value * effective, (1 - value) * effective + 1, at)) if at > 0 else 0.0


def _few(own: Measured, reference: Reference) -> tuple[float, float, float]:
    """Compare two that differ for a few users only: the sign test's p-value, and an interval from gains and losses.

    How many differ is counted by the participation ratio, so that many small differences do not hide it.
    """
    apart = np.array([own.per_user[user] - reference.per_user.get(user, 0.0) for user in own.per_user])
    users, squares = len(apart), float(np.square(apart).sum())
    if squares <= NO_SPREAD or np.abs(apart).sum() ** 2 / squares >= FEW:
        return 0.0, np.inf, -np.inf
    span = own.high - own.low
    gains, losses = (float(np.maximum(side, 0).sum()) / span for side in (apart, -apart))
    half = 0.975
    gain_low, gain_high = clopper_pearson(gains, users, half)
    loss_low, loss_high = clopper_pearson(losses, users, half)
    p = float(betainc(gains, losses + 1, 0.5)) if gains > 0 else 1.0
    return p, span * (gain_low - loss_high), span * (gain_high - loss_low)

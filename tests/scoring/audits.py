"""Audits of membership made of scores alone, from the guess to the verdict: as many attacks as wanted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm, rankdata

from pplr_audit.audit.truth.comparisons import comparisons, influences, interval, listed
from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.runs.verdicts import with_verdicts
from pplr_audit.scoring.influence import of_auc
from pplr_audit.scoring.intervals import Estimate, proportion_interval
from pplr_audit.scoring.membership import within_groups_auc
from pplr_audit.scoring.rank_test import auc_p
from pplr_audit.scoring.verdicts import ALPHA, Claim, Measured, Reference, compared, corrected, variance_of
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.view import dealt

CLIENTS = 5
Json = dict[str, Any]


def above(areas: Sequence[float], side: int, generator: np.random.Generator, together: float = 0.0) -> list[bool]:
    """Tell for each attack whether it is above its baseline in one audit, by the test of an AUC and its correction.

    Args:
        areas: by attack, the true AUC (binormal).
        side: members, and as many non-members, in clients of about one size.
        together: how far the attacks' scores go together, from 0 to 1.
    """
    labels, clients = np.repeat([0, 1], side), np.tile(np.arange(CLIENTS), side)[: 2 * side]
    shared = generator.normal(size=2 * side)
    claims = []
    for area in areas:
        noise = together**0.5 * shared + (1 - together) ** 0.5 * generator.normal(size=2 * side)
        scores = noise + labels * norm.ppf(area) * 2**0.5
        own = measured(scores, labels, clients)
        p = compared(own, Reference("chance", 0.5, p=auc_p(scores, labels, clients))).p
        claims.append(Claim(p, (own.influence,)))
    return [p <= ALPHA for p in corrected(claims, seed=int(generator.integers(2**31)), draws=1000)]


def audit(
    areas: Sequence[float], side: int, generator: np.random.Generator, *,
    controls: int = 0, seed: int | None = None,
) -> list[Json]:  # fmt: skip
    """Return the findings of one such audit as a run scores, compares and corrects them; it takes longer.

    Args:
        areas, side: as of ``above``.
        controls: draws of each attack's control.
        seed: of the intervals; without one they are not drawn, and the verdict is the same.
    """
    rows, labels, clients = np.arange(2 * side), np.repeat([0, 1], side), np.tile(np.arange(CLIENTS), side)[: 2 * side]
    features = dict(enumerate(generator.normal(size=(2 * side, 2)).tolist()))
    users, at, member = (dict(zip(rows.tolist(), each.tolist(), strict=True)) for each in (rows, clients, labels))
    truth = MembershipTruth(users, at, member, features)
    level = generator.normal(size=CLIENTS)
    cells = []
    for number, area in enumerate(areas):
        # Losses are skewed, and each client has a level of its own; a member's is lower.
        losses = np.exp(0.5 * (generator.normal(size=2 * side) - labels * norm.ppf(area) * 2**0.5) + level[clients])
        score = truth.score(Guess({"rows": rows, "loss": -losses}), seed=seed)[0]
        crossed = (dealt([str(each) for each in clients], generator) for _ in range(controls))
        draws = [truth.score(Guess({"rows": rows, "loss": -losses[each]}), seed=None)[0] for each in crossed]
        found = comparisons(score, draws)
        row = {
            "secret": "membership", "metric": "auc", "defense": "none", "status": "ok", "attack": f"attack{number}",
            "value": score.estimate.value, "ci": [*interval(score, found)], "baseline": 0.5, "detail": {"mode": "loss"},
            "comparisons": listed(found),
        }  # fmt: skip
        cells.append({"findings": [row], "influence": {"auc/loss": influences(score, found)}})
    return with_verdicts(cells, seed=int(generator.integers(2**31)))


def measured(scores: Any, labels: Any, clients: Any) -> Measured:
    """An AUC with its influence, and the interval that follows from it."""
    value = within_groups_auc(scores, labels, clients)
    moved = of_auc(scores, labels, np.arange(len(scores)), clients)
    pairs = len(scores) // 2
    low, high = proportion_interval(value, variance_of(moved, pairs), pairs)
    return Measured(Estimate(value, low, high, len(scores)), moved, pairs)


def theory(area: float, side: int, attacks: int = 1, controls: int = 0, audits: int = 5_000) -> float:
    """How often a leak of this AUC is found among so many independent attacks by the ideal test, by simulation.

    The ideal test knows the variance of the Mann-Whitney statistic within clients where there is nothing, (m + n + 1) /
    12mn of each (*Ann. Math. Statist.* 18, 1947), and the level that each of independent attacks is due (Šidák, *JASA*
    62, 1967). The mean of some draws of a control has the variance of one over their number, and must be exceeded, too.
    """
    generator = np.random.default_rng(0)
    users = side // CLIENTS
    won = np.zeros(audits)
    for _ in range(CLIENTS):
        members = generator.normal(size=(audits, users)) + norm.ppf(area) * 2**0.5
        scores = np.concatenate([members, generator.normal(size=(audits, users))], axis=1)
        ranks = rankdata(scores, axis=1)[:, :users].sum(1)
        won += (ranks - users * (users + 1) / 2) / users**2 / CLIENTS
    deviation = ((2 * users + 1) / (12 * users**2) / CLIENTS) ** 0.5
    needed = -ndtri(1 - (1 - ALPHA) ** (1 / attacks))
    found = (won - 0.5) / deviation >= needed
    if controls:
        control = 0.5 + deviation * generator.normal(size=audits) / controls**0.5
        found &= (won - control) / deviation / (1 + 1 / controls) ** 0.5 >= needed
    return float(found.mean())

"""Audits of membership made of scores alone, judged as a run judges them, and how often an ideal test finds a leak."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm, rankdata

from pplr_audit.audit.truth.comparisons import comparisons, influences, interval, listed
from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.runs.verdicts import with_verdicts
from pplr_audit.scoring.verdicts import ALPHA
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.view import dealt

CLIENTS = 5
Json = dict[str, Any]


def candidates(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Label and client of each candidate: ``side`` non-members, then as many members, in clients of about one size."""
    return np.repeat([0, 1], side), np.tile(np.arange(CLIENTS), side)[: 2 * side]


def drawn(areas: Sequence[float], side: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Minus the losses that each attack sees, by its true AUC (binormal): skewed, and with a level by client."""
    labels, clients = candidates(side)
    level = generator.normal(size=CLIENTS)[clients]
    noise = (generator.normal(size=2 * side) - labels * norm.ppf(area) * 2**0.5 for area in areas)
    return [-np.exp(0.5 * each + level) for each in noise]


def audit(
    scores: Sequence[np.ndarray], generator: np.random.Generator, *, controls: int = 0, seed: int | None = None
) -> list[Json]:
    """Return the findings of one audit as a run scores, compares and corrects them, an AUC for each attack.

    Args:
        scores: of each attack, in the order of ``candidates``.
        controls: draws of each attack's control.
        seed: of the intervals; without one they are not drawn, and the verdict is the same.
    """
    labels, clients = candidates(len(scores[0]) // 2)
    rows = np.arange(len(labels))
    features = dict(enumerate(generator.normal(size=(len(rows), 2)).tolist()))
    users, at, member = (dict(zip(rows.tolist(), each.tolist(), strict=True)) for each in (rows, clients, labels))
    truth = MembershipTruth(users, at, member, features)
    cells = []
    for number, values in enumerate(scores):
        score = truth.score(Guess({"rows": rows, "loss": values}), seed=seed)[0]
        crossed = (dealt([str(each) for each in clients], generator) for _ in range(controls))
        draws = [truth.score(Guess({"rows": rows, "loss": values[each]}), seed=None)[0] for each in crossed]
        found = comparisons(score, draws)
        row = {
            "secret": "membership", "metric": "auc", "defense": "none", "status": "ok", "attack": f"attack{number}",
            "value": score.estimate.value, "ci": [*interval(score, found)], "baseline": 0.5, "detail": {"mode": "loss"},
            "comparisons": listed(found),
        }  # fmt: skip
        cells.append({"findings": [row], "influence": {"auc/loss": influences(score, found)}})
    return with_verdicts(cells, seed=int(generator.integers(2**31)))


def ideal(area: float, side: int, attacks: int = 1, controls: int = 0, audits: int = 20_000) -> float:
    """How often the ideal test finds a leak of this AUC among so many independent attacks, by simulation.

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

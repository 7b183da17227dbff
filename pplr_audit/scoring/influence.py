"""Influence of each user on a value, which joins the errors of many values of the same users.

The influence of a user is by how much the value rises, to first order, when the user is drawn once more (the empirical
influence function, Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, § 2.7.2); the influences add up
to 0, and their squares to the variance of the value. Of an AUC it is the user's placement, as DeLong, DeLong &
Clarke-Pearson (*Biometrics* 44, 1988) have it; here not centered within members and non-members, so that clients which
differ count as spread. A difference of two values has the difference of their influences.

>>> of_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), np.arange(4), np.zeros(4, dtype=int))
{0: 0.125, 1: -0.125, 2: -0.125, 3: 0.125}
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.scoring.membership import Labels, tpr_at
from pplr_audit.scoring.pairs import Pairs, share_won

Influence = Mapping[int, float]
"""Change of a value by user; empty for what is known exactly."""


def of_mean(per_user: Mapping[int, float], weights: Mapping[int, float] | None = None) -> tuple[float, Influence]:
    """The mean of the users' values, and its influence.

    Args:
        weights: how much each counts, such as its observations; all alike by default.
    """
    weighs = dict.fromkeys(per_user, 1.0) if weights is None else weights
    total = sum(weighs[user] for user in per_user)
    value = sum(weighs[user] * each for user, each in per_user.items()) / total
    return value, {user: weighs[user] * (each - value) / total for user, each in per_user.items()}


def of_auc(
    scores: Float[np.ndarray, "n"], labels: Labels, users: Int[np.ndarray, "n"], groups: Int[np.ndarray, "n"]
) -> Influence:
    """Influence on `within_groups_auc`."""
    won, met = np.zeros(len(scores)), np.zeros(len(scores))
    for group in np.unique(groups):
        members, others = (np.flatnonzero((groups == group) & (labels == side)) for side in (1, 0))
        won[members], met[members] = _below(scores[members], scores[others]), len(others)
        won[others], met[others] = len(members) - _below(scores[others], scores[members]), len(members)
    pairs = met.sum() / 2
    return _by_user(users, (won - won.sum() / met.sum() * met) / pairs)


def of_tpr(scores: Float[np.ndarray, "n"], labels: Labels, users: Int[np.ndarray, "n"], fpr: float) -> Influence:
    """Influence on `tpr_at`: of users beyond the threshold, and of those who hold it where it is.

    A non-member more beyond the threshold raises it, which costs as many members as the ROC curve is steep there; its
    slope is taken from 0 to twice ``fpr``.
    """
    members, others = labels == 1, labels == 0
    counted = np.sort(scores[others])[::-1]
    allowed = int(len(counted) * fpr + 1e-9)
    threshold = counted[allowed] if allowed < len(counted) else -np.inf
    beyond = (scores > threshold).astype(float)
    slope = tpr_at(scores, labels, min(2 * fpr, 1.0)) / (2 * fpr)
    found = np.where(members, (beyond - beyond[members].mean()) / members.sum(), 0.0)
    return _by_user(users, found - np.where(others, slope * (beyond - beyond[others].mean()) / others.sum(), 0.0))


def of_shares(pairs: Sequence[Pairs], users: Sequence[int] | Int[np.ndarray, "users"]) -> Influence:
    """Influence on `share_won`."""
    told = [each for each in pairs if each[1].any()]
    moved = np.zeros(len(users))
    for wins, inside in told:
        away = np.where(inside, wins - share_won([(wins, inside)]), 0.0)
        moved += (away.sum(1) + away.sum(0)) / inside.sum() / len(told)
    return _by_user(np.asarray(users), moved)


def _below(scores: Float[np.ndarray, "n"], others: Float[np.ndarray, "m"]) -> Float[np.ndarray, "n"]:
    """Count the others that each score stands above, ties counted half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2


def _by_user(users: Int[np.ndarray, "n"], moved: Float[np.ndarray, "n"]) -> Influence:
    ids, place = np.unique(users, return_inverse=True)
    return {int(user): float(each) for user, each in zip(ids, np.bincount(place, moved), strict=True)}

"""Scores of several models on one scale: each user's beside those of known non-members of the same client.

Personal models differ in how sure they are of anything. An adversary knows whose model it asks, so one threshold over
all clients is set on scores that are standardized within a client first. A non-member is never part of its own
standard: that would pull in just those who stand out, and a threshold set by them would flatter the attack.

Two clients whose models differ by 10 in level; the third of each is a member who stands 4 above its client's others:

>>> scores = np.array([0.0, 2.0, 5.0, 10.0, 12.0, 15.0])
>>> z = standardized(scores, np.array([0, 0, 1, 0, 0, 1]), np.array([0, 0, 0, 1, 1, 1]), least=2)
>>> bool(z[2] == z[5])
True
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.scoring.membership import Labels

LEAST = 5
"""Non-members that a client needs: with fewer, the others' spread says too little, and one of them sets the rates."""


def standardized(
    scores: Float[np.ndarray, "n"], labels: Labels, groups: Int[np.ndarray, "n"], *, least: int = LEAST
) -> Float[np.ndarray, "n"]:
    """(score - mean) / standard deviation of the non-members of the same group (client), the user itself left out.

    The deviation is that of a new observation: times sqrt(1 + 1/k) for the mean of k others. So a member, who is
    judged by all n non-members, and a non-member, who is judged by n - 1, are alike where there is nothing to find; of
    few non-members the non-members spread a little more, which errs against the attack.

    A non-member stands at least where a member of the same score stands. Below the mean, leaving itself out would put
    it a little lower: a client's members would pass before its non-members wherever many have nearly the same score.

    Where the others all have one score, whoever has it too gets 0 and the rest infinity of their sign. Infinite scores
    stay as they are and are no part of a standard. NaN for all users of a group with fewer than ``least`` non-members
    of finite score. One group by itself has nothing to be aligned with: its scores are returned as they are.
    """
    if len(np.unique(groups)) == 1:
        return np.asarray(scores, dtype=np.float64)
    found = np.full(len(scores), np.nan)
    for group in np.unique(groups):
        inside = groups == group
        known = inside & (labels == 0) & np.isfinite(scores)
        if np.count_nonzero(known) >= max(least, 2):
            found[inside] = _beside(scores[inside], known[inside])
    return found


def _beside(scores: Float[np.ndarray, "n"], known: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    # Centered, so that equal scores have a variance of exactly 0 and nothing is lost to rounding.
    x = scores - np.median(scores[known])
    as_member = _judged(x, x[known], np.zeros_like(known))
    return np.where(known, np.maximum(_judged(x, x[known], known), as_member), as_member)


def _judged(
    x: Float[np.ndarray, "n"], others: Float[np.ndarray, "k"], left_out: Bool[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Return each score beside the ``others``, without itself where it is one of them and to be left out."""
    count = len(others) - left_out
    mean = (others.sum() - np.where(left_out, x, 0.0)) / count
    squares = (others**2).sum() - np.where(left_out, x, 0.0) ** 2
    variance = np.maximum(squares - count * mean**2, 0.0) / np.maximum(count - 1, 1)
    scale = np.sqrt(variance * (1 + 1 / count))
    away = x - mean
    some = np.isfinite(x) & (scale > 0)
    z = np.where(np.isfinite(x) & (away == 0), 0.0, np.copysign(np.inf, away))
    return np.asarray(np.divide(away, scale, out=z, where=some))

"""Metrics of membership scores: how well they tell members from non-members. A higher score says "member".

AUC as the Mann-Whitney statistic with ties at ½; the true-positive rate at a fixed false-positive rate as in Carlini et
al. (*Membership Inference Attacks From First Principles*, S&P 2022), at rates that the non-members can resolve only.
Members at 0.35 and 0.8 win three of four pairs against non-members at 0.1 and 0.4:

>>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
0.75
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.scoring.intervals import Estimate, cluster_weights, proportion_interval

Labels = Int[np.ndarray, "n"] | Bool[np.ndarray, "n"]
"""1 for a member, 0 for a non-member."""

FALSE_POSITIVE_RATES = (0.1, 0.01, 0.001)
SMALL = 5
"""A group with fewer members or non-members shows too little of its own spread to be redrawn inside."""


def auc(scores: Float[np.ndarray, "n"], labels: Labels) -> float:
    """Probability that a member scores above a non-member, ties counted half.

    Raises ValueError where one of the two is missing, and on NaN.
    """
    return within_groups_auc(scores, labels, np.zeros(len(scores), dtype=np.int64))


def within_groups_auc(scores: Float[np.ndarray, "n"], labels: Labels, groups: Int[np.ndarray, "n"]) -> float:
    """AUC over the pairs of a member and a non-member of the same group (client), each pair with weight one.

    Clients differ in more than membership, so a pair across clients would credit the attack with telling clients
    apart. Raises ValueError where no group has both, and on NaN.
    """
    _check(scores, labels, groups)
    blocks = _Blocks(scores, labels, groups)
    return float(blocks.auc(np.ones((1, len(scores)), dtype=np.int64))[0])


def auc_estimate(
    scores: Float[np.ndarray, "n"],
    labels: Labels,
    clusters: Int[np.ndarray, "n"],
    *,
    seed: int | None,
    strata: Int[np.ndarray, "n"] | None = None,
    groups: Int[np.ndarray, "n"] | None = None,
    level: float = 0.95,
    draws: int = 2000,
) -> Estimate:
    """AUC with an interval from redrawing clusters (users) within label and stratum; without a seed its ends are it.

    With ``groups``, pairs count within a group only (``within_groups_auc``) and ``strata`` defaults to the groups; of
    these, the small ones (fewer than ``SMALL`` on a side) are redrawn whole, as one draws clients, where there are
    ``SMALL`` of them.
    The percentile interval is widened to ``proportion_interval`` with as many clusters as there are disjoint pairs of
    a member and a non-member: if all of k independent pairs come out one way, the AUC behind them is at least
    0.025 ** (1 / k) (at 95 %), which is the interval's bound at an AUC of exactly 1: about 1 - 3.7 / k, the rule of
    three (Hanley & Lippman-Hand, *JAMA* 249, 1983) of the smaller group, at 97.5 % a side.
    """
    pairing = np.zeros(len(scores), dtype=np.int64) if groups is None else groups
    _check(scores, labels, pairing)
    blocks = _Blocks(scores, labels, pairing)
    value = float(blocks.auc(np.ones((1, len(scores)), dtype=np.int64))[0])
    paired = np.isin(pairing, np.intersect1d(pairing[labels == 1], pairing[labels == 0]))
    if seed is None:
        return Estimate(value, value, value, int(paired.sum()))
    units, resampling = _small_whole(labels, clusters, pairing) if strata is None else (clusters, strata)
    resampled = np.concatenate([blocks.auc(w) for w in _weights(labels, units, resampling, seed, draws)])
    # A stratum redrawn without one side leaves nothing to compare; only mixed clusters can bring that about.
    resampled = resampled[np.isfinite(resampled)]
    pairs = disjoint_pairs(labels, clusters, pairing)
    return _estimate(value, resampled, sum(pairs.values()), level, int(paired.sum()), _unseen(pairs))


def roc(
    scores: Float[np.ndarray, "n"], labels: Labels
) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]:
    """The step points (false-positive rate, true-positive rate) from (0, 0) to (1, 1), one per distinct score."""
    _check(scores, labels, np.zeros(len(scores), dtype=np.int64))
    false, true = _Thresholds(scores, labels).counts(np.ones((1, len(scores)), dtype=np.int64))
    return false[0] / false[0, -1], true[0] / true[0, -1]


def resolvable(non_members: int) -> tuple[float, ...]:
    """The false-positive rates of which this many non-members expect at least three.

    >>> resolvable(29), resolvable(30), resolvable(3000)
    ((), (0.1,), (0.1, 0.01, 0.001))
    """
    return tuple(fpr for fpr in FALSE_POSITIVE_RATES if non_members * fpr >= 3 - 1e-9)


def tpr_at(scores: Float[np.ndarray, "n"], labels: Labels, fpr: float) -> float:
    """The largest true-positive rate of a threshold whose false-positive rate is at most ``fpr``.

    Equal scores fall on one side of a threshold together, so a tie that would cross ``fpr`` is left out whole.
    """
    _check(scores, labels, np.zeros(len(scores), dtype=np.int64))
    return float(_Thresholds(scores, labels).tpr(np.ones((1, len(scores)), dtype=np.int64), fpr)[0])


def tpr_estimate(
    scores: Float[np.ndarray, "n"],
    labels: Labels,
    clusters: Int[np.ndarray, "n"],
    fpr: float,
    *,
    seed: int | None,
    strata: Int[np.ndarray, "n"] | None = None,
    level: float = 0.95,
    draws: int = 2000,
) -> Estimate:
    """``tpr_at`` with an interval from redrawing clusters (users) within label, the threshold found anew in each draw.

    Without a seed no interval is drawn: both its ends are the value.

    A binomial interval at the threshold found would take that threshold for known, and covers about half of the time.
    This one covered .92 to 1.00 in simulations with continuous scores (from 3 / fpr non-members on; the low end where
    few false positives fix the threshold), and .89 to .95 with scores rounded to about ten distinct values.
    Raises ValueError where the non-members cannot resolve ``fpr`` (fewer than 3 / fpr of them).
    """
    _check(scores, labels, np.zeros(len(scores), dtype=np.int64))
    non_members = int((labels == 0).sum())
    if non_members * fpr < 3 - 1e-9:
        raise ValueError(f"a false-positive rate of {fpr} needs {3 / fpr:.0f} non-members; got {non_members}")
    thresholds = _Thresholds(scores, labels)
    value = float(thresholds.tpr(np.ones((1, len(scores)), dtype=np.int64), fpr)[0])
    if seed is None:
        return Estimate(value, value, value, len(scores))
    alike = np.zeros(len(scores), dtype=np.int64)
    # Small strata show too little of their own spread; without strata the interval errs on the wide side.
    small = strata is not None and min(disjoint_pairs(labels, clusters, strata).values()) < SMALL
    resampling = alike if strata is None or small else strata
    resampled = np.concatenate([thresholds.tpr(w, fpr) for w in _weights(labels, clusters, resampling, seed, draws)])
    members = len(np.unique(clusters[labels == 1]))
    return _estimate(value, resampled[np.isfinite(resampled)], members, level, len(scores))


def model_free_scores(
    features: Float[np.ndarray, "n features"],
    labels: Labels,
    groups: Int[np.ndarray, "n"],
    *,
    seed: int,
    folds: int = 5,
) -> Float[np.ndarray, "n"]:
    """Score candidates by their features alone, with a cross-validated classifier; no audited model is used.

    Logistic regression on features standardized by the training folds, one row a user; the folds are balanced by label
    within each group. Every row is scored by a classifier that did not see it. No side is picked afterwards: with
    nothing to find the AUC within groups lies around ½, on average a little under (.48 to .49 of 100 to 200 users),
    because what is held out leaves its opposite in the rest.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinity")
    held_out = np.zeros(len(labels))
    _check(held_out, labels, groups)
    fold = _folds(labels, groups, folds, np.random.default_rng(seed))
    for number in range(folds):
        test = fold == number
        if not test.any():
            continue
        if len(np.unique(labels[~test])) < 2:
            raise ValueError("too few members or non-members to leave any out")
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        held_out[test] = classifier.fit(features[~test], labels[~test]).decision_function(features[test])
    return held_out


def _folds(
    labels: Labels, groups: Int[np.ndarray, "n"], folds: int, generator: np.random.Generator
) -> Int[np.ndarray, "n"]:
    """Deal each label of each group out over the folds in turn, going on where the last one stopped."""
    order = generator.permutation(len(labels))
    order = order[np.lexsort((groups[order], labels[order]))]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


class _Blocks:
    """Observations sorted by group and score and cut into blocks of equal score, for weighted Mann-Whitney counts."""

    def __init__(self, scores: Float[np.ndarray, "n"], labels: Labels, groups: Int[np.ndarray, "n"]) -> None:
        self.order = np.lexsort((scores, groups))
        ordered, group = scores[self.order], groups[self.order]
        new_group = np.append(True, group[1:] != group[:-1])
        new_block = new_group | np.append(True, ordered[1:] != ordered[:-1])
        self.member = labels[self.order].astype(np.int64)
        self.blocks = np.flatnonzero(new_block)
        self.groups = np.searchsorted(self.blocks, np.flatnonzero(new_group))
        self.sizes = np.diff(np.append(self.groups, len(self.blocks)))

    def auc(self, weights: Int[np.ndarray, "draws n"]) -> Float[np.ndarray, "draws"]:
        """Pairs won over pairs, per draw, observation i counted ``weights[:, i]`` times; NaN where there is no pair."""
        ordered = weights[:, self.order]
        member = np.add.reduceat(ordered * self.member, self.blocks, axis=1)
        other = np.add.reduceat(ordered * (1 - self.member), self.blocks, axis=1)
        below = np.cumsum(other, axis=1) - other
        below -= np.repeat(below[:, self.groups], self.sizes, axis=1)
        won = (member * (below + other / 2)).sum(axis=1)
        pairs = np.add.reduceat(member, self.groups, axis=1) * np.add.reduceat(other, self.groups, axis=1)
        total = pairs.sum(axis=1).astype(np.float64)
        share: Float[np.ndarray, " draws"] = np.divide(won, total, out=np.full(len(total), np.nan), where=total > 0)
        return share


class _Thresholds:
    """Observations sorted from the highest score down and cut into blocks of equal score."""

    def __init__(self, scores: Float[np.ndarray, "n"], labels: Labels) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ordered = scores[self.order]
        self.blocks = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self.member = labels[self.order].astype(np.int64)

    def counts(
        self, weights: Int[np.ndarray, "draws n"]
    ) -> tuple[Int[np.ndarray, "draws points"], Int[np.ndarray, "draws points"]]:
        """Non-members and members at or above each threshold, from the one that nobody reaches to the lowest score."""
        ordered = weights[:, self.order]
        false = np.add.reduceat(ordered * (1 - self.member), self.blocks, axis=1).cumsum(axis=1)
        true = np.add.reduceat(ordered * self.member, self.blocks, axis=1).cumsum(axis=1)
        return np.pad(false, ((0, 0), (1, 0))), np.pad(true, ((0, 0), (1, 0)))

    def tpr(self, weights: Int[np.ndarray, "draws n"], fpr: float) -> Float[np.ndarray, "draws"]:
        """The largest true-positive rate at most ``fpr`` false positives allow, per draw; NaN without a side."""
        false, true = self.counts(weights)
        # 0.1 · 30 is a little more than 3 in floating point, 0.29 · 100 a little less than 29.
        allowed = false <= false[:, -1:] * fpr + 1e-9
        best = np.where(allowed, true, 0).max(axis=1)
        both = (false[:, -1] > 0) & (true[:, -1] > 0)
        rate: Float[np.ndarray, " draws"] = np.divide(best, true[:, -1], out=np.full(len(best), np.nan), where=both)
        return rate


def _weights(
    labels: Labels, clusters: Int[np.ndarray, "n"], strata: Int[np.ndarray, "n"], seed: int, draws: int
) -> Iterator[Int[np.ndarray, "chunk n"]]:
    """Weights of the observations, chunk of draws by chunk; clusters are redrawn within label and stratum."""
    if not len(clusters) == len(strata) == len(labels):
        raise ValueError(f"expected {len(labels)} clusters and strata; got {len(clusters)} and {len(strata)}")
    _, first, index = np.unique(clusters, return_index=True, return_inverse=True)
    if (strata != strata[first][index]).any():
        raise ValueError("a cluster lies in two strata: a user belongs to one client")
    members = np.bincount(index, weights=labels)
    sizes = np.bincount(index)
    # 0: non-members only, 1: members only, 2: a user with samples of both kinds.
    kind = np.where(members == 0, 0, np.where(members == sizes, 1, 2))
    _, stratum = np.unique(strata[first], return_inverse=True)
    for weights in cluster_weights(stratum * 3 + kind, draws, np.random.default_rng(seed), width=4):
        yield weights[:, index]


def _small_whole(
    labels: Labels, clusters: Int[np.ndarray, "n"], groups: Int[np.ndarray, "n"]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Return the units to redraw and their strata: small groups as wholes, clusters within the others."""
    small = [group for group, pairs in disjoint_pairs(labels, clusters, groups).items() if pairs < SMALL]
    if len(small) < SMALL:
        return clusters, groups
    inside = np.isin(groups, small)
    _, group = np.unique(groups, return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    # Kinds keep members and non-members apart; a group that lacks one side is of another kind than one that has both.
    return np.where(inside, group, len(groups) + cluster), np.where(inside, -1, group)


def disjoint_pairs(labels: Labels, clusters: Int[np.ndarray, "n"], groups: Int[np.ndarray, "n"]) -> dict[int, int]:
    """Count by group the pairs of a member and a non-member cluster that can be formed, none used twice."""
    pairs = {}
    for group in np.unique(groups):
        inside = groups == group
        pairs[int(group)] = min(len(np.unique(clusters[inside & (labels == side)])) for side in (0, 1))
    return pairs


def _unseen(pairs: dict[int, int]) -> float:
    """Return the factor by which the variance exceeds that of redrawing s clusters a group: s / (s - 1) at the most."""
    return max((s / (s - 1) for s in pairs.values() if 1 < s < SMALL), default=1.0)


def _estimate(
    value: float, resampled: Float[np.ndarray, "draws"], clusters: int, level: float, n: int, unseen: float = 1.0
) -> Estimate:
    """The percentile interval, widened where few clusters stand behind it or they all agree.

    It never reaches less far down than at a value of 1, nor less far up than at a value of 0.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # Redrawing k clusters shows (k - 1) / k of the variance.
    variance = float(resampled.var()) * max(clusters / max(clusters - 1, 1), unseen)
    wide_low, wide_high = proportion_interval(value, variance, clusters, level)
    bound = tail ** (1 / clusters)
    return Estimate(value, min(float(low), wide_low, value, bound), max(float(high), wide_high, value, 1 - bound), n)


def _check(scores: Float[np.ndarray, "n"], labels: Labels, groups: Int[np.ndarray, "n"]) -> None:
    if not scores.shape == labels.shape == groups.shape:
        raise ValueError(f"expected one label and group per score; got {scores.shape}, {labels.shape}, {groups.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; an attack without an answer gives a low score, or leaves the user out")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels are 0 (non-member) and 1 (member); got {np.unique(labels)[:5].tolist()}")
    if not len(np.intersect1d(groups[labels == 1], groups[labels == 0])):
        raise ValueError("there is no pair to compare: need a member and a non-member (of one group)")

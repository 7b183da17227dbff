"""Logistic regression from labeled users to others, its strength chosen among the labeled.

For attacks on attributes, and for what they are compared with: both learn the same way.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C, the inverse of the L2 penalty."""
FOLDS = 5


def log_probabilities(
    features: Float[np.ndarray, "known features"],
    labels: Int[np.ndarray, "known"],
    others: Float[np.ndarray, "others features"],
    *,
    seed: int,
    standardized: bool = True,
    check: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "others classes"]:
    """The log-probability of each class (in ascending order) for each of ``others``, none of which is learned from.

    Features are centered and standardized by the known rows, one row a user; C has the best log-likelihood in
    stratified cross-validation over them.

    Args:
        seed: of the folds.
        standardized: False leaves the scales: that of a rare item would be blown up.
        check: called between fits; what it raises passes.

    Raises:
        ValueError: features hold NaN or infinity, or there are fewer than two classes, or one with less than `FOLDS`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    if not (np.isfinite(features).all() and np.isfinite(others).all()):
        raise ValueError("features hold NaN or infinity")
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < FOLDS:
        raise ValueError(f"expected two classes or more of {FOLDS} rows or more; got {counts.tolist()}")
    scaler = StandardScaler(with_std=standardized).fit(features)
    known, asked = scaler.transform(features), scaler.transform(others)
    # The penalty sees lengths alone, so turning the space changes nothing, and the known rows span no more than this.
    basis = np.linalg.svd(known, full_matrices=False)[2]
    known, asked = known @ basis.T, asked @ basis.T
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(known, labels))
    place = np.unique(labels, return_inverse=True)[1]

    def fitted(strength: float, rows: Int[np.ndarray, "rows"]) -> LogisticRegression:
        check()
        return LogisticRegression(C=strength, max_iter=1000).fit(known[rows], labels[rows])

    def likelihood(strength: float) -> float:
        told = [
            fitted(strength, fit).predict_log_proba(known[test])[range(len(test)), place[test]] for fit, test in folds
        ]
        return float(np.concatenate(told).mean())

    best = max(STRENGTHS, key=likelihood)
    answers: np.ndarray = fitted(best, np.arange(len(known))).predict_log_proba(asked)
    return answers

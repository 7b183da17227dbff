"""The share of pairs won is the AUC, and its interval covers what it should, users being redrawn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pplr_audit.scoring.membership import auc_estimate
from pplr_audit.scoring.pairs import Pairs, share_estimate, share_won, won


def sides(labels: np.ndarray) -> np.ndarray:
    return (labels[:, None] == 1) & (labels[None, :] == 0)


def of(scores: np.ndarray, labels: np.ndarray) -> list[Pairs]:
    return [(won(scores, scores), sides(labels))]


def test_of_two_sides_it_is_the_auc_ties_included_with_its_interval() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [70, 50])
    for scores in (generator.normal(size=120) + labels, np.round(generator.normal(size=120) + labels)):
        found = share_estimate(of(scores, labels), labels, independent=50, seed=0)
        expected = auc_estimate(scores, labels, np.arange(120), seed=1)
        assert found.value == pytest.approx(roc_auc_score(labels, scores))
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
        assert found.n == 120


def test_several_comparisons_are_meaned_each_counting_once() -> None:
    scores, labels = np.array([3.0, 1.0, 2.0, 0.0]), np.array([1, 1, 0, 0])
    one, other = of(scores, labels)[0], of(-scores, np.array([1, 0, 0, 0]))[0]
    assert share_won([one, other]) == pytest.approx((3 / 4 + 0) / 2)


def test_all_pairs_won_by_a_few_users_is_no_certainty() -> None:
    labels = np.repeat([0, 1], 5)
    found = share_estimate(of(labels.astype(float), labels), labels, independent=5, seed=0)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 5))


def test_without_a_pair_nothing_is_said() -> None:
    for pairs in ([], of(np.ones(3), np.ones(3))):
        with pytest.raises(ValueError, match="no pair"):
            share_won(pairs)


def test_the_interval_covers_the_truth_where_users_share_pairs() -> None:
    """Each user has a place of its own, so its pairs hang together: the own pair is won where two draws of it agree."""
    generator = np.random.default_rng(5)

    def drawn(users: int) -> list[Pairs]:
        place = generator.normal(size=(users, 2))
        a, b = (place + generator.normal(size=(users, 2)) for _ in range(2))
        like = a @ b.T
        return [((np.diag(like)[:, None] > like).astype(float), ~np.eye(users, dtype=bool))]

    truth = share_won(drawn(1500))
    covered = 0
    for seed in range(150):
        found = share_estimate(drawn(40), np.zeros(40, dtype=int), independent=20, seed=seed, draws=200)
        covered += found.low <= truth <= found.high
    assert covered / 150 >= 0.9

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import jaccard_score

from pplr_audit.scoring.overlap import jaccard, order_kept


def test_items_in_common_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        guess, truth = (generator.integers(12, size=generator.integers(1, 9)).tolist() for _ in range(2))
        held = [np.isin(np.arange(12), each) for each in (truth, guess)]
        assert jaccard([*guess, -1], truth) == pytest.approx(jaccard_score(*held))


def test_where_neither_has_an_item_nothing_was_read() -> None:
    assert jaccard([], []) == 0
    assert jaccard([-1, -1], []) == 0
    assert jaccard([], [1]) == jaccard([1], []) == 0
    assert order_kept([], []) is None


def test_the_order_kept_is_scipys_tau_of_the_places_of_what_is_in_both() -> None:
    generator = np.random.default_rng(1)
    for size in [12] * 50 + [100] * 10:
        guess, truth = (generator.permutation(size)[: size * 2 // 3].tolist() for _ in range(2))
        common = sorted(set(guess) & set(truth))
        theirs = kendalltau([guess.index(item) for item in common], [truth.index(item) for item in common]).statistic
        assert order_kept(guess, truth) == theirs, "to the last bit"

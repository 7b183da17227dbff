"""The classifier learns what is there and nothing where nothing is, and refuses what it cannot learn from."""

import numpy as np
import pytest

from pplr_audit.scoring.classifier import log_probabilities


def clouds(generator: np.random.Generator, rows: int, features: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(rows) % 3
    return generator.normal(size=(rows, features)) + shift * np.eye(3, features)[labels], labels


@pytest.mark.parametrize("features", [4, 300])
def test_what_is_there_is_learned_with_more_features_than_rows_too(features: int) -> None:
    x, labels = clouds(np.random.default_rng(0), 240, features, 6.0)
    found = log_probabilities(x[:120], labels[:120], x[120:], seed=0)
    assert (found.argmax(1) == labels[120:]).mean() > 0.7
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0)


def test_where_nothing_is_there_the_answer_stays_near_what_is_common() -> None:
    x, labels = clouds(np.random.default_rng(0), 240, 300, 0.0)
    found = np.exp(log_probabilities(x[:120], labels[:120], x[120:], seed=0))
    assert np.abs(found - 1 / 3).max() < 0.15


def test_it_is_the_same_again_and_hands_on_what_the_check_raises() -> None:
    x, labels = clouds(np.random.default_rng(0), 60, 5, 1.0)
    first, second = (log_probabilities(x[:40], labels[:40], x[40:], seed=3) for _ in range(2))
    assert (first == second).all()

    def enough() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        log_probabilities(x[:40], labels[:40], x[40:], seed=3, check=enough)


def test_too_few_rows_and_broken_features_are_refused() -> None:
    x, labels = clouds(np.random.default_rng(0), 30, 5, 1.0)
    for few in (np.zeros(30, dtype=int), np.array([1] * 4 + [0] * 26)):
        with pytest.raises(ValueError, match="two classes or more of 5 rows"):
            log_probabilities(x, few, x, seed=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        log_probabilities(x, labels, x * np.nan, seed=0)

"""What several crossings of a sample tell together."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from pplr_audit.attacks.decoding.crossings import by_row, once, pooled, unexplained
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record, View


@pytest.mark.parametrize("distance", [0.0, 1e-7, 0.1, 0.7, 3.0])
def test_one_crossing_alone_is_what_it_was_to_the_last_bit(distance: float) -> None:
    values = np.random.default_rng(0).normal(size=50) * distance
    assert unexplained([distance]) == distance
    assert np.array_equal(pooled([values], [distance]), values)
    assert pooled([distance], [distance]) == distance


def test_candidates_are_compared_by_their_likelihood_at_the_best_level_of_noise_of_each_crossing() -> None:
    generator, dimensions = np.random.default_rng(1), 40
    candidates = generator.uniform(0.2, 3.0, size=(6, 3))

    def likelihood(distance: float) -> float:
        """Of so much noise in all, at the level that fits it best, found by trying."""

        def lost(level: float) -> float:
            return dimensions * level + distance**2 / (2 * np.exp(2 * level))

        return -float(minimize_scalar(lost, bracket=(-3.0, 1.0)).fun)

    by_likelihood = [sum(likelihood(distance) for distance in own) for own in candidates]
    by_distance = [unexplained(own.tolist()) for own in candidates]
    assert np.argsort(by_likelihood)[::-1].tolist() == np.argsort(by_distance).tolist()
    slope = np.polyfit(np.log(by_distance), by_likelihood, 1)[0]
    assert slope == pytest.approx(-dimensions * 3, rel=1e-4)


def test_means_are_weighted_as_has_the_least_variance() -> None:
    generator, deviations = np.random.default_rng(2), np.array([0.1, 0.5, 2.0])
    drawn = 7 + generator.normal(size=(20_000, 3)) * deviations
    means = pooled([*drawn.T], deviations.tolist())
    assert means.mean() == pytest.approx(7, abs=0.01)
    assert means.var() == pytest.approx(1 / (1 / deviations**2).sum(), rel=0.05)
    assert pooled([1.0, 3.0], [2.0, 2.0]) == pytest.approx(2)


def test_rows_keep_their_order_and_their_first_crossing_stands_for_them() -> None:
    places = [(3, 0), (1, 0), (3, 1), (1, 1), (2, 0)]
    records = [Record(row, "a", 1, 0, torch.zeros(1, 1), occurrence=number) for row, number in places]
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", tuple(records))
    assert {row: len(own) for row, own in by_row(view.records).items()} == {3: 2, 1: 2, 2: 1}
    assert [(record.row, record.occurrence) for record in once(view).records] == [(3, 0), (1, 0), (2, 0)]

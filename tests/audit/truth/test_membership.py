"""Scores of membership from hand-made guesses."""

import numpy as np
import pytest

from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.threat_model.attack import Guess


def test_membership_is_compared_within_clients_and_beside_a_model_free_check() -> None:
    rows = range(80)
    generator = np.random.default_rng(0)
    member = {row: row % 2 for row in rows}
    client = {row: row // 40 for row in rows}
    # The clients' scores are far apart; within each of them members stand a little higher.
    scores = np.array([10.0 * client[row] + member[row] * 3 + generator.normal() for row in rows])
    truth = MembershipTruth(
        {row: row for row in rows}, client, member, {row: generator.normal(size=3).tolist() for row in rows}
    )
    guess = Guess({"rows": np.array(rows), "threshold": scores})
    (auc, *rates) = truth.score(guess, seed=0)
    assert auc.estimate.value > 0.95
    assert auc.detail["mode"] == "threshold"
    assert auc.baseline == 0.5
    low, high = auc.detail["model_free_ci"]
    assert low < auc.detail["model_free_auc"] < high
    assert [rate.metric for rate in rates] == ["tpr@0.1"]
    assert rates[0].baseline == 0.1
    assert rates[0].estimate.value > 0.8, "one threshold for both clients, on the scale of each"
    draws = truth.score(guess, seed=None)
    assert [score.estimate.value for score in draws] == [auc.estimate.value, rates[0].estimate.value]


def test_a_row_without_an_answer_counts_as_wrong() -> None:
    rows = range(80)
    generator = np.random.default_rng(0)
    member = {row: row % 2 for row in rows}
    features = {row: generator.normal(size=3).tolist() for row in rows}
    truth = MembershipTruth({row: row for row in rows}, dict.fromkeys(rows, 0), member, features)
    sure = np.arange(1, 80, 2)[:10]  # ten members and nobody else
    (auc, *_) = truth.score(Guess({"rows": sure, "threshold": np.ones(10)}), seed=0)
    assert auc.estimate.n == 80
    assert auc.estimate.value == pytest.approx(10 / 40 + 30 / 40 / 2)


def test_a_single_member_has_an_area_and_no_model_free_check() -> None:
    member = {0: 1, 1: 0, 2: 0}
    truth = MembershipTruth(
        {row: row for row in range(3)}, dict.fromkeys(range(3), 0), member, {row: [0.0, 1.0] for row in range(3)}
    )
    (area,) = truth.score(Guess({"rows": np.arange(3), "threshold": np.array([3.0, 1.0, 2.0])}), seed=0)
    assert area.estimate.value == 1.0
    assert "model_free_auc" not in area.detail

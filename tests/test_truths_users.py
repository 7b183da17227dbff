"""Scores of guesses about users: what counts, what is left out, and what the baselines are."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pplr_audit.truths_users import AttributeTruth
from pplr_audit.views import Guess

ROWS = 160


@pytest.fixture
def truth() -> AttributeTruth:
    """Rows 0 to 79 are known; item 1 is held by those with the value b, the client says nothing."""
    values = {row: "ab"[row % 2] if row % 5 else "c" for row in range(ROWS)}
    known, asked = ({r: v for r, v in values.items() if (r < 80) == told} for told in (True, False))
    clients = {row: f"client-{row // 20 % 2}" for row in range(ROWS)}
    held = {row: [{"a": 0, "b": 1, "c": 2}[value], 3 + row % 4] for row, value in values.items()}
    return AttributeTruth("kind", asked, known, {row: 1000 + row for row in values}, clients, held, 7)


def answer(truth: AttributeTruth, noise: float) -> Guess:
    rows = np.array(sorted(truth.asked))
    column = np.array(["abc".index(truth.asked[row]) for row in rows])
    scores = np.eye(3)[column] + noise * np.random.default_rng(0).normal(size=(len(rows), 3))
    return Guess({"rows": rows, "values": scores})


def test_the_area_is_the_mean_of_one_value_against_the_rest(truth: AttributeTruth) -> None:
    guess = answer(truth, 0.8)
    area, right = truth.score(guess, seed=0)
    scores, true = guess.arrays["values"], np.array([truth.asked[int(row)] for row in guess.arrays["rows"]])
    by_hand = [roc_auc_score(true == value, scores[:, at]) for at, value in enumerate("abc")]
    assert area.estimate.value == pytest.approx(np.mean(by_hand))
    assert list(area.detail["auc_by_value"].values()) == pytest.approx(by_hand)
    assert area.estimate.low < area.estimate.value < area.estimate.high
    assert area.estimate.n == len(true)
    assert right.estimate.value == pytest.approx((np.array(list("abc"))[scores.argmax(1)] == true).mean())


def test_a_user_s_own_score_is_the_share_of_the_others_it_stands_above(truth: AttributeTruth) -> None:
    area, _ = truth.score(answer(truth, 0.8), seed=0)
    of_value = {v: [area.per_user[1000 + row] for row, own in truth.asked.items() if own == v] for v in "abc"}
    assert {v: float(np.mean(own)) for v, own in of_value.items()} == pytest.approx(area.detail["auc_by_value"])


def test_what_the_items_would_tell_and_what_the_client_tells_stand_beside_it(truth: AttributeTruth) -> None:
    area, right = truth.score(answer(truth, 0.8), seed=0)
    assert area.detail["bag_of_items_auc"] == 1.0
    assert abs(area.detail["client_auc"] - 0.5) < 0.1
    assert area.baseline == max(0.5, area.detail["client_auc"])
    assert right.baseline == pytest.approx(0.4, abs=0.02)  # the majority
    telling = replace(truth, clients={row: f"client-{items[0]}" for row, items in truth.items.items()})
    area, right = telling.score(answer(truth, 0.8), seed=0)
    assert area.baseline == right.baseline == 1.0


def test_a_row_without_an_answer_is_placed_last_and_known_ones_are_passed_over(truth: AttributeTruth) -> None:
    guess = answer(truth, 0.0)
    assert truth.score(guess, seed=0)[0].estimate.value == 1.0
    half = Guess({name: array[:40] for name, array in guess.arrays.items()})
    area, _ = truth.score(half, seed=0)
    assert area.estimate.n == 80
    assert 0.5 < area.estimate.value < 1.0
    more = Guess(
        {"rows": np.append(guess.arrays["rows"], 3), "values": np.append(guess.arrays["values"], [[9, 9, 9]], axis=0)}
    )
    assert truth.score(more, seed=0)[0].estimate == truth.score(guess, seed=0)[0].estimate


def test_answers_of_another_form_are_refused(truth: AttributeTruth) -> None:
    guess = answer(truth, 0.0)
    for values in (guess.arrays["values"][:, :2], guess.arrays["values"] * np.nan):
        with pytest.raises(ValueError, match="one number a row and value"):
            truth.score(Guess({**guess.arrays, "values": values}), seed=0)
    assert not truth.answered(Guess({"rows": guess.arrays["rows"], "items": np.zeros((80, 1))}))

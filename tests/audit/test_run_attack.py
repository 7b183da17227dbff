"""How attacks are asked: in turns for an attribute, of what can be computed with, and for what can be kept."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.audit.run_attack import run_attack
from pplr_audit.audit.truth.attribute import AttributeTruth
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, Failed, NotApplicable
from pplr_audit.threat_model.view import Record, Update, View

ROWS = 60
VALUES = {row: "ab"[row % 2] for row in range(ROWS - 10)}
"""Of the last ten rows nobody knows it."""
Told = Mapping[int, str]


@pytest.fixture
def truth() -> AttributeTruth:
    rows = range(ROWS)
    return AttributeTruth(
        "kind", VALUES, {row: row // 2 % 5 for row in VALUES}, {row: 500 + row for row in rows},
        dict.fromkeys(rows, "client-0"), {row: [row % 3] for row in rows}, 3,
    )  # fmt: skip


@pytest.fixture
def view() -> View:
    records = tuple(Record(row, "client-0", 1, 0, torch.zeros(1, 2)) for row in range(ROWS))
    return View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records)


def turns_of(truth: AttributeTruth) -> list[Knowledge]:
    no: Any = None
    return [
        Knowledge("base", no, torch.zeros(1, 1), no, {}, (), 3, 3, known_attributes=known)
        for known in truth.known_by_turn
    ]


def of_all(told: Told, memory: Told, sure: float = 1.0) -> Guess:
    """Everything that was told in this turn or before, as if it were an answer; 0 for the others."""
    known = {**memory, **told}
    return Guess(
        {
            "rows": np.arange(ROWS),
            "values": np.array([[sure * (known.get(row) == value) for value in "ab"] for row in range(ROWS)]),
        },
        {"told": len(told), "of": ROWS},
    )  # fmt: skip


class Telling:
    """An attack that answers by what it is told, and keeps it."""

    name = "telling"
    secret = "attribute"
    channels = frozenset({Channel.FRONT_ACTIVATIONS})
    controls = 1

    def __init__(self, answer: Callable[[Told, Told], Guess]) -> None:
        self.answer = answer
        self.memory: dict[int, str] = {}

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        budget.check()
        guess = self.answer(knowledge.known_attributes, self.memory)
        self.memory.update(knowledge.known_attributes)
        return guess


def test_an_attack_that_says_again_what_it_was_told_finds_nothing(truth: AttributeTruth, view: View) -> None:
    guess = run_attack(Telling(of_all), view, turns_of(truth), 60)
    assert sorted(guess.arrays["rows"].tolist()) == list(range(ROWS)), "each row once"
    assert not guess.arrays["values"].any(), "nor did it keep from one turn what it is asked for in another"
    area, _ = truth.score(guess, seed=0)
    assert area.estimate.value == 0.5
    assert area.estimate.n == len(VALUES)


def test_answers_are_those_of_the_turn_in_which_the_row_was_not_told(truth: AttributeTruth, view: View) -> None:
    numbers = iter(range(5))
    guess = run_attack(
        Telling(lambda told, memory: Guess({**of_all({}, {}).arrays, "values": np.full((ROWS, 2), next(numbers))})),
        view, turns_of(truth), 60,
    )  # fmt: skip
    turn = dict(zip(guess.arrays["rows"].tolist(), guess.arrays["values"][:, 0].tolist(), strict=True))
    assert {row: turn[row] for row in VALUES} == truth.folds
    assert {turn[row] for row in range(ROWS - 10, ROWS)} == {0}


def test_what_all_turns_say_of_how_it_was_found_is_said(truth: AttributeTruth, view: View) -> None:
    assert run_attack(Telling(of_all), view, turns_of(truth), 60).facts == {"told": 40, "of": ROWS}
    uneven = replace(truth, folds={**truth.folds, 0: 1})
    assert run_attack(Telling(of_all), view, turns_of(uneven), 60).facts == {"of": ROWS}


def test_all_turns_share_one_budget(truth: AttributeTruth, view: View) -> None:
    def slow(told: Told, memory: Told) -> Guess:
        time.sleep(0.4)
        return of_all(told, memory)

    run_attack(Telling(slow), view, turns_of(truth)[:1], 1.0)
    with pytest.raises(BudgetExhausted):
        run_attack(Telling(slow), view, turns_of(truth), 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": np.arange(3)}, {"rows": np.zeros(2), "values": np.zeros((2, 2))},
        {"rows": np.array([ROWS]), "values": np.zeros((1, 2))}, {"rows": np.arange(3), "values": np.zeros((2, 2))},
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_joined_is_a_failure(truth: AttributeTruth, view: View, wrong: Any) -> None:
    with pytest.raises(Failed):
        run_attack(Telling(lambda told, memory: Guess(wrong)), view, turns_of(truth), 60)


class Saying:
    """An attack that answers every row that it is handed with what it was made with."""

    name = "saying"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS})
    controls = 1

    def __init__(self, facts: Any = None, **arrays: Any) -> None:
        self.arrays, self.facts = arrays, facts or {}

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        return Guess({"rows": np.array([record.row for record in view.records]), **self.arrays}, self.facts)


def asked(attack: Saying, *tensors: torch.Tensor) -> Guess:
    records = tuple(Record(row, "client-0", 1, 0, tensor) for row, tensor in enumerate(tensors))
    nothing: Any = None
    return run_attack(attack, View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records), [nothing], 60)


@pytest.mark.parametrize("broken", [torch.full((2, 3), torch.nan), torch.full((2, 3), 1e25), torch.empty(0, 3)])
def test_a_row_that_nothing_can_be_computed_with_is_left_out_and_told(broken: torch.Tensor) -> None:
    guess = asked(Saying(), torch.ones(2, 3), broken, torch.ones(2, 3))
    assert guess.arrays["rows"].tolist() == [0, 2]
    assert guess.facts == {"not_finite": 1}
    with pytest.raises(NotApplicable, match="nothing of what crossed is finite"):
        asked(Saying(), broken, broken)


def test_an_update_without_a_layer_is_said_to_have_none() -> None:
    nothing: Any = None
    view = View("server", Channel.CLIENT_UPDATE, 0, 0, "none", (Update(0, "client-0", 1, {}),))
    with pytest.raises(NotApplicable, match="no trained layer lies in this part of the model"):
        run_attack(Saying(), view, [nothing], 60)


def test_what_is_read_beside_must_be_finite_too() -> None:
    beside = {Channel.TRUNK_ACTIVATIONS: torch.full((2, 3), torch.inf)}
    record = Record(0, "client-0", 1, 0, torch.ones(2, 3))
    view = View("server", Channel.BACK_GRADIENTS, None, 1, "none", (record, replace(record, row=1, also_reads=beside)))
    assert view.legible().records == (record,)


def test_facts_are_kept_as_json_has_them() -> None:
    facts = {"f": np.float32(0.5), "i": np.int64(3), "inf": float("inf"), "many": (np.nan, "a", None), "of": {1: True}}
    assert asked(Saying(facts), torch.ones(1, 1)).facts == {
        "f": 0.5, "i": 3, "inf": None, "many": [None, "a", None], "of": {"1": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Saying({"model": torch.ones(1)}), "a fact of its answer is a Tensor"),
        (Saying(items=np.array(["a"])), "items of its answer is an array of <U1"),
        (Saying(items=np.array([None])), "items of its answer is an array of object"),
        (Saying(items=[1, 2]), "items of its answer is a list"),
        (Saying(**{"control0/rows": np.ones(1)}), "control0/rows"),
    ],
)
def test_an_answer_that_cannot_be_kept_is_a_failure_of_the_attack(attack: Saying, message: str) -> None:
    with pytest.raises(Failed, match=message):
        asked(attack, torch.ones(1, 1))


@pytest.mark.parametrize("wrong", [np.ones(1, dtype=np.longdouble), np.ones(1, dtype=complex)])
def test_numbers_that_cannot_be_sealed_are_a_failure(wrong: np.ndarray) -> None:
    with pytest.raises(Failed, match="accepted: arrays of numbers"):
        asked(Saying(values=wrong), torch.ones(1, 1))


def test_what_utf_8_does_not_have_is_replaced_and_what_no_reader_can_hold_is_refused() -> None:
    assert asked(Saying({"said": "a\ud800"}), torch.ones(1, 1)).facts == {"said": "a?"}
    with pytest.raises(Failed, match="numbers below"):
        asked(Saying({"many": 10**5000}), torch.ones(1, 1))


def test_a_budget_that_ends_between_rows_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 299.0, 310.0, 310.0, 599.0, 610.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    budget = Budget(300)
    budget.check(70, 200)
    with pytest.raises(BudgetExhausted, match=r"^more than 300 s: 71 of 200 rows .*about 874 s would do for all"):
        budget.check(71, 200)
    late = Budget(150, grace=2.0)  # from 310 to 610
    late.check()
    late.check()


def test_a_ceiling_that_is_far_off_says_nothing_of_the_time() -> None:
    """Nothing can be asked of a budget that would let an attack do more or less by the clock."""
    Budget(-1.0, grace=-100.0).check()
    asked = {name for name in dir(Budget(1.0)) if not name.startswith("_")}
    assert asked == {"seconds", "check"}

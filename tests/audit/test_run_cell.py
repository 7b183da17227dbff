"""Cells: those that end without a value, and a score by the step in which the rows crossed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.run_cell import _by_step, run_cell
from pplr_audit.audit.truth.score import Score
from pplr_audit.runs.store import Store
from pplr_audit.scoring.intervals import Estimate, mean_estimate
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View


def stepped(metric: str, by_user: dict[int, float], steps: dict[int, int]) -> dict[str, Any]:
    score = Score(metric, Estimate(0.5, 0.0, 1.0, len(by_user)), 0.0, by_user)
    return _by_step(score, {row: 100 + row for row in steps}, steps, seed=3)


def test_first_and_later_steps_each_have_the_interval_of_their_own_users() -> None:
    found = stepped("item_hit@1", {100: 1.0, 101: 0.5, 102: 0.0, 103: 0.2, 104: 0.4}, {0: 0, 1: 0, 2: 1, 3: 7, 4: 2})
    assert {name: (kind["mean"], kind["n"]) for name, kind in found.items()} == {
        "first_step": (0.75, 2), "later_steps": (pytest.approx(0.2), 3),
    }  # fmt: skip
    for kind, values in ((found["first_step"], [1.0, 0.5]), (found["later_steps"], [0.0, 0.2, 0.4])):
        estimate = mean_estimate(np.array(values), np.arange(len(values)), seed=3)
        assert kind["ci"] == pytest.approx([estimate.low, estimate.high])
        assert kind["ci"][0] <= kind["mean"] <= kind["ci"][1]


def test_a_step_with_one_user_has_an_interval_also_of_what_may_be_negative() -> None:
    found = stepped("kendall_tau", {100: -0.5, 101: 1.0, 102: 0.0}, {0: 0, 1: 1, 2: 3})
    assert found["first_step"]["mean"] == pytest.approx(-0.5)
    assert -1 <= found["first_step"]["ci"][0] < -0.9
    assert found["first_step"]["ci"][1] > 0.9, "one user says little"


@pytest.mark.parametrize("steps", [{0: 0, 1: 0}, {0: 2, 1: 5}, {0: -1, 1: -1}, {}])
def test_where_all_crossed_in_one_kind_of_step_nothing_is_set_apart(steps: dict[int, int]) -> None:
    assert stepped("item_hit@1", {100: 1.0, 101: 0.5}, steps) == {}


class Answering:
    """An attack that gives the answer it was made with."""

    name = "stub"
    secret = "membership"
    channels = frozenset({Channel.MODEL_OUTPUT})
    controls = 0

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        return Guess({"rows": np.array(self.rows), "threshold": np.zeros(len(self.rows))})


@pytest.mark.parametrize("rows", [[0, 0], [0, 7]])
def test_rows_named_twice_or_not_in_the_view_are_refused(tmp_path: Path, rows: list[int]) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        document = run_cell(CELL, Answering(rows), Nothing(), store, budget=9, seed=0)
        assert document["findings"][0]["status"] == "failed"
        assert "rows" in document["findings"][0]["detail"]["reason"]


class Stub:
    """An attack that does what it is told to."""

    name = "stub"
    secret = "membership"
    channels = frozenset({Channel.MODEL_OUTPUT})
    controls = 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        budget.check()
        raise self.error


class Nothing:
    """A cell's surroundings, of which the truth must not be asked for."""

    def view(self, cell: Cell) -> View:
        return View("outsider", cell.channel, None, None, "none", (Record(0, "a", 1, 0, torch.zeros(1)),))

    def knowledge(self, cell: Cell) -> Any:
        return [None]

    def truth(self, cell: Cell) -> Any:
        raise AssertionError("the truth was opened without a sealed guess")


CELL = Cell("stub", "{}", "outsider", "base", Channel.MODEL_OUTPUT, None, None, 3, "none")


@pytest.mark.parametrize(
    ("error", "budget", "status", "reason"),
    [
        (NotApplicable("the view is empty"), 9, "not_applicable", "the view is empty"),
        (ZeroDivisionError("by zero"), 9, "failed", "ZeroDivisionError: by zero"),
        (AssertionError("never reached"), 1e-12, "budget_exhausted", "more than"),
    ],
)
def test_an_attack_that_gives_no_answer_is_reported_with_its_reason_and_never_as_zero(
    tmp_path: Path, error: Exception, budget: float, status: str, reason: str
) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        document = run_cell(CELL, Stub(error), Nothing(), store, budget=budget, seed=0)
        (row,) = document["findings"]
        assert row["status"] == status
        assert row["value"] is None
        assert row["ci"] is None
        assert reason in row["detail"]["reason"]
        again = run_cell(CELL, Stub(RuntimeError("run again")), Nothing(), store, budget=9, seed=0)
        # What is settled stays; what failed is tried again when the run is continued.
        assert (again == document) == (status != "failed")


class Controlled:
    """An attack whose first answer is fine, and that then does what it is told to."""

    name, secret, channels, controls = "stub", "history", frozenset({Channel.FRONT_ACTIVATIONS}), 1

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        self.asked += 1
        if self.asked > 1:
            raise self.error
        return Guess({"rows": np.array([0])})


class Two(Nothing):
    def view(self, cell: Cell) -> View:
        records = tuple(Record(row, "a", 1, 0, torch.ones(1, 1)) for row in range(2))
        return View("server", cell.channel, 1, None, "none", records)


@pytest.mark.parametrize(
    ("error", "status"),
    [(NotApplicable("x"), "not_applicable"), (BudgetExhausted("x"), "budget_exhausted"), (OSError("x"), "failed")],
)
def test_where_only_the_control_gives_no_answer_the_reason_says_so(
    tmp_path: Path, error: Exception, status: str
) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        document = run_cell(CELL, Controlled(error), Two(), store, budget=9, seed=0)
        assert {row["status"] for row in document["findings"]} == {status}
        assert document["findings"][0]["detail"]["reason"].startswith("its control, on what crossed of other rows: ")

"""A truth of a new kind is scored, controlled and drawn by its own methods; no other file has to know its class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.run_cell import run_cell
from pplr_audit.audit.truth.comparisons import DRAWS
from pplr_audit.audit.truth.protocol import Curve, Truth, dealt_anew
from pplr_audit.audit.truth.score import Score
from pplr_audit.runs.store import Store
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View

ROWS = 12
CELL = Cell("stub", "{}", "server", "base", Channel.FRONT_ACTIVATIONS, 1, None, 1, "none")


class Parity(Truth):
    """Odd rows are 1, even rows 0; row i belongs to user 100 + i."""

    def __init__(self) -> None:
        self.users = {row: 100 + row for row in range(ROWS)}

    def answered(self, guess: Guess) -> bool:
        return "parity" in guess.arrays

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        rows, named = guess.arrays["rows"], guess.arrays["parity"]
        right = {self.users[int(row)]: float(row % 2 == each) for row, each in zip(rows, named, strict=True)}
        estimate = mean_estimate(np.array([*right.values()]), np.array([*right]), seed=seed)
        return [Score("auc", estimate, 0.5, right)]


class Dealt(Parity):
    """The same with all that a truth may have besides."""

    @property
    def users_by_row(self) -> Mapping[int, int]:
        return self.users

    def redealt(self, guess: Guess, count: int, generator: np.random.Generator) -> list[Guess]:
        return dealt_anew(guess, dict.fromkeys(self.users, "a"), count, generator)

    def curves(self, guess: Guess) -> Mapping[str, Curve]:
        return {"": (np.array([0.0, 1.0]), np.array([0.0, 1.0]))}


class Answers:
    """An attack that names the right parity."""

    name, secret, channels, controls = "stub", "history", frozenset({Channel.FRONT_ACTIVATIONS}), 1

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        rows = np.array([record.row for record in view.records])
        named = np.array([int(record.tensor[0]) for record in view.records])
        return Guess({"rows": rows, "parity": named})


class Surroundings:
    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def view(self, cell: Cell) -> View:
        records = (Record(row, "a", 1, int(row > 3), torch.tensor([float(row % 2)])) for row in range(ROWS))
        return View("server", cell.channel, 1, None, "none", tuple(records))

    def knowledge(self, cell: Cell) -> Any:
        return [Facts()]

    def truths(self, cell: Cell) -> Mapping[str, Truth]:
        return {"history": self.truth}


class Facts:
    facts: Mapping[str, Any] = {}


def document(truth: Truth, folder: Path) -> dict[str, Any]:
    with Store.open(folder, "name: x\n", "0" * 64) as store:
        return run_cell(CELL, Answers(), Surroundings(truth), store, budget=9, seed=0)


def test_a_new_truth_has_the_controls_curves_and_steps_that_it_gives(tmp_path: Path) -> None:
    plain, whole = document(Parity(), tmp_path / "plain"), document(Dealt(), tmp_path / "whole")
    for found in (plain, whole):
        (row,) = found["findings"]
        assert (row["status"], row["value"], row["n"]) == ("ok", 1.0, ROWS)
    draws = [
        next(each["draws"] for each in found["findings"][0]["comparisons"] if each["name"] == "control")
        for found in (plain, whole)
    ]
    assert draws == [1, DRAWS], "the attack's own control, and with it answers dealt anew"
    assert plain["roc"] == []
    assert [(curve["metric_mode"], curve["auc"]) for curve in whole["roc"]] == [("", 1.0)]
    assert "later_steps" not in plain["findings"][0]["detail"]
    assert whole["findings"][0]["detail"]["later_steps"]["n"] == ROWS - 4


def test_what_a_truth_does_not_give_is_empty() -> None:
    guess = Guess({"rows": np.arange(ROWS), "parity": np.zeros(ROWS)})
    truth = Parity()
    assert truth.users_by_row == {}
    assert truth.redealt(guess, 3, np.random.default_rng(0)) == []
    assert truth.curves(guess) == {}
    no: Any = None
    assert truth.examples(guess, no, no) == []

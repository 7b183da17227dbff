"""Examples for the report: the same victims at three cuts, what is true beside what an attack answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pytest

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.examples import examples
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.sealed_guess import SealedGuess
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.audit.truth.label import EXAMPLES as LABELS
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.data.dataset import Catalogue
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import View

TITLES = ("Solar Rocket", "Hidden Unicorn", "Solar Rocket", "Golden Spell")
ROWS = 8


class CellInputs:
    """Row i belongs to user 100 + i, whose next item is i modulo the catalogue; items 0 and 2 have one title."""

    def __init__(self) -> None:
        self.rows = self
        users = {row: 100 + row for row in range(ROWS)}
        targets = {row: row % len(TITLES) for row in range(ROWS)}
        history = HistoryTruth(users, {}, np.array([0, 1, 0, 3]), np.ones(4), [np.array([1])] * 4)
        self.known = {"history": history, "label": LabelTruth(users, targets, np.array([0, 1, 0, 3]), np.ones(4))}

    def truths(self, cell: Cell) -> Mapping[str, Any]:
        return self.known

    def client_of(self, user: int) -> str:
        return f"client of {user}"


@dataclass(frozen=True)
class Answers:
    """The guesses of a run, the same for every cell that was attacked."""

    arrays: dict[str, np.ndarray]
    controls: tuple[Guess, ...] = ()
    missing: str = "-never-"


def cells(*cuts: tuple[int | None, int | None], **more: Any) -> list[Cell]:
    given = {"attack": "label_match", "settings": "{}", "adversary": "server", "knowledge": "front", "round": 2}
    given |= {"channel": Channel.BACK_GRADIENTS, "defense": "none", **more}
    return [Cell(**given, front=front, back=back) for front, back in cuts]


def shown(planned: list[Cell], answers: Answers) -> list[dict[str, Any]]:
    catalogue = cast(Catalogue, type("Titles", (), {"titles": TITLES}))
    with TemporaryDirectory() as folder, Store.open(Path(folder) / "run", "name: x\n", "0" * 64) as store:
        for cell in planned:
            if answers.missing not in cell.slug:
                view = View("server", cell.channel, cell.front, cell.back, "none", ())
                SealedGuess.seal(store, cell.slug, Guess(answers.arrays), answers.controls, view, 1.0)
        return examples(planned, cast(Harness, CellInputs()), catalogue, None, store)


@pytest.fixture
def answers() -> Answers:
    """Row by row the right item, its twin, a wrong one, and nothing."""
    labels = np.array([[0], [1], [0], [1], [0], [-1], [2], [3]])
    dealt = Guess({"rows": np.arange(ROWS), "labels": labels[::-1]})
    return Answers({"rows": np.arange(ROWS), "labels": labels}, (dealt,))


def test_the_next_item_stands_beside_the_first_guess_of_the_same_users(answers: Answers) -> None:
    found = shown(cells((None, 1)), answers)
    assert [example["row"] for example in found] == list(range(LABELS))
    assert {example["secret"] for example in found} == {"label"}
    assert found[0]["client"] == "client of 100"
    assert found[0]["cut"] == {"front": None, "back": 1}
    assert found[0]["knowledge"] == "front"
    slots = [example["slots"] for example in found]
    assert slots[1] == [{"truth": "Hidden Unicorn", "guess": "Hidden Unicorn", "hit": True}]
    assert slots[2] == [{"truth": "Solar Rocket", "guess": "Solar Rocket", "hit": True}]  # another item of that title
    assert slots[3] == [{"truth": "Golden Spell", "guess": "Hidden Unicorn", "hit": False}]
    assert slots[5] == [{"truth": "Hidden Unicorn", "guess": "", "hit": False}]


def test_the_shallowest_the_middle_and_the_deepest_cut_are_shown(answers: Answers) -> None:
    backs = [example["cut"]["back"] for example in shown(cells(*((None, m) for m in range(6))), answers)]
    assert list(dict.fromkeys(backs)) == [0, 3, 5]
    both = shown(cells((0, 0), (2, 1), (0, 2), (1, 1)), answers)
    pairs = [(example["cut"]["front"], example["cut"]["back"]) for example in both]
    assert list(dict.fromkeys(pairs)) == [(0, 0), (1, 1), (2, 1)]


def test_only_the_last_round_is_shown_and_each_knowledge_by_itself(answers: Answers) -> None:
    early, late = cells((None, 1), round=1), cells((None, 1), round=2)
    assert len(shown([*early, *late], answers)) == LABELS
    base = cells((None, 1), knowledge="base")
    assert [e["knowledge"] for e in shown([*late, *base], answers)] == ["front"] * LABELS + ["base"] * LABELS


def test_the_same_attack_with_other_settings_is_shown_by_itself(answers: Answers) -> None:
    plain, told = cells((None, 1)), cells((None, 1), settings='{"shortlist":8}')
    found = shown([*plain, *told], answers)
    assert [example["settings"] for example in found] == [{}] * LABELS + [{"shortlist": 8}] * LABELS


def test_what_was_not_answered_is_not_shown(answers: Answers) -> None:
    assert shown(cells((None, 1)), Answers({"rows": np.arange(ROWS), "scores": np.ones(ROWS)})) == []
    assert shown(cells((None, 1)), Answers(answers.arrays, missing="label_match")) == []
    assert shown(cells((None, None), channel=Channel.MODEL_OUTPUT), answers) == []
    few = Answers({"rows": np.array([1, 7]), "labels": np.array([[1], [3]])})
    assert [example["row"] for example in shown(cells((None, 1)), few)] == [1]

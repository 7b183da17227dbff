"""No finding depends on which cells came before, on what they left to share, or on a kill in between."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.audit import attacking
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.plan import Plan

ATTACKS: list[Any] = [
    {"ridge": {"prompts": 24, "held_out": 4}},
    {"prefix_search": {"prompts": 24, "held_out": 4, "shortlist": 4}},
    {"embedding_match": {"prompts": 24, "held_out": 4, "steps": 5}},
    {"inverter": {"kind": "linear", "prompts": 24, "held_out": 4, "epochs": 2}},
    {"bidirectional": {"prompts": 24, "held_out": 4}},
    "loss",
    "linkage",
    "length",
]


@pytest.fixture(scope="module")
def ready(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is trained, of a scenario with one of each attack that learns or searches, and several crossings."""
    told = small_scenario.model_dump(mode="json")
    told["audit"] |= {"victims": 3, "attacks": ATTACKS, "cuts": [[1, 1], [2, 0]], "rounds": "all"}
    told["training"] |= {"rounds": 2}
    root = tmp_path_factory.mktemp("ready") / "run"
    audit.train(scenario.Scenario.model_validate(told), root)
    return root


@pytest.fixture(scope="module")
def in_order(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = copied(ready, tmp_path_factory.mktemp("in-order"))
    audit.attack(root)
    return cells(root)


def copied(ready: Path, folder: Path) -> Path:
    return Path(shutil.copytree(ready, folder / "run"))


def cells(root: Path) -> dict[str, Any]:
    """What each cell found, without its seconds, and the hash of its sealed answer."""
    found = {path.name: json.loads(path.read_text()) for path in root.rglob("cells/*.json")}
    for document in found.values():
        for row in document["findings"]:
            row["seconds"] = 0
    sealed = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    hashes = {f"{event['cell']}.json": event["sha256"] for event in sealed if event.get("kind") == "guess_sealed"}
    return {name: (document, hashes.get(name)) for name, document in found.items()}


def planned(monkeypatch: pytest.MonkeyPatch, change: Callable[[Sequence[Cell]], Sequence[Cell]]) -> None:
    part = Plan.part

    def changed(self: Plan, *given: Any) -> Plan:
        found = part(self, *given)
        return replace(found, cells=tuple(change(found.cells)))

    monkeypatch.setattr(Plan, "part", changed)


def test_cells_in_the_reverse_order_find_the_same(
    ready: Path, in_order: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied(ready, tmp_path)
    planned(monkeypatch, lambda found: found[::-1])
    audit.attack(root)
    assert cells(root) == in_order


@pytest.mark.parametrize("attack", [next(iter(a)) if isinstance(a, dict) else a for a in ATTACKS])
def test_the_last_cell_of_an_attack_alone_finds_the_same(
    ready: Path, in_order: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    root = copied(ready, tmp_path)
    planned(monkeypatch, lambda found: [cell for cell in found if cell.attack == attack][-1:])
    audit.attack(root)
    alone = cells(root)
    assert len(alone) == 1
    assert alone.items() <= in_order.items()


def test_a_kill_in_the_middle_of_a_cell_changes_nothing(
    ready: Path, in_order: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, told, asked = copied(ready, tmp_path), attacking.run_cell, 0

    def killed(*given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 5:  # between the fits of a cell and its answer: those fits are there, and nothing of the answer
            monkeypatch.setattr("pplr_audit.audit.run_cell.reach", interrupted)
        return told(*given, **named)

    def interrupted(point: str) -> None:
        raise KeyboardInterrupt(point)

    monkeypatch.setattr(attacking, "run_cell", killed)
    with pytest.raises(KeyboardInterrupt):
        audit.attack(root)
    monkeypatch.undo()
    fits = {path.name: path.stat().st_mtime_ns for path in root.rglob("artifacts/*")}
    assert fits
    audit.attack(root)
    assert cells(root) == in_order
    after = {path.name: path.stat().st_mtime_ns for path in root.rglob("artifacts/*")}
    assert fits.items() <= after.items(), "no fit was made twice"

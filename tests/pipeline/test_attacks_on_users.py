"""The attacks on users as such, and on lengths, in whole audits: planned, run, scored and reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.activation.attribute import Attribute
from pplr_audit.attacks.activation.linkage import Linkage
from pplr_audit.attacks.metadata.length import Length
from pplr_audit.audit.plan import make_plan
from pplr_audit.runs.documents import validate
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import View
from tests.conftest import LAYERS

OWN: dict[str, Any] = {"length": Length, "attribute": Attribute, "linkage": Linkage}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever version of the package is installed."""
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: OWN[name] if name in OWN else load(kind, name))


def findings(
    setting: scenario.Scenario, folder: Path, attacks: list[Any], rounds: int = 1, **data: object
) -> list[dict[str, Any]]:
    """Of the attacks alone, one cut of the small scenario, 60 victims."""
    values = setting.model_dump(mode="json")
    values["data"] |= data
    values["audit"] |= {"attacks": attacks, "victims": 60, "cuts": [[1, 1]], "adversaries": ["server"]}
    values["training"]["rounds"], values["audit"]["rounds"] = rounds, "all"
    result = audit.run(scenario.Scenario.model_validate(values), folder / "run")
    document = json.loads((result.directory / "findings.json").read_text())
    validate(document)
    rows: list[dict[str, Any]] = document["findings"]
    return rows


def of(rows: list[dict[str, Any]], **wanted: object) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_lengths_and_attributes_are_measured_of_bigrec(small_scenario: scenario.Scenario, tmp_path: Path) -> None:
    rows = findings(
        small_scenario, tmp_path, ["length", {"attribute": {"name": "gender"}}, {"attribute": {"name": "x"}}]
    )
    length = of(rows, attack="length")
    assert {row["secret"] for row in length} == {"history", "label"}
    assert {row["status"] for row in length} == {"ok"}
    assert all(row["cut"] is None and row["channel"] == "metadata" for row in length)
    assert 0 < length[0]["detail"]["bits_told_of_an_item"] < length[0]["detail"]["bits_of_an_item"]
    told = [row for row in of(rows, attack="attribute", status="ok") if row["metric"] == "auc"]
    assert {(row["channel"], row["cut"]["front"]) for row in told} == {
        ("front_activations", 1), ("inference_activations", 1),
    }  # fmt: skip
    for row in told:
        assert row["secret"] == "attribute"
        assert row["baseline"] == 0.5
        named = {each["name"]: each for each in row["comparisons"]}
        assert [*named] == ["chance", "client", "control"]
        assert named["client"]["value"] == row["detail"]["client_auc"]
        assert named["control"]["draws"] == 5
        assert 20 <= row["n"] <= 60
        assert 0.7 * row["n"] < row["detail"]["known_users"] < row["n"]
        assert row["detail"]["turns"] == 5
        assert "control" in row["detail"]
    missing = [row for row in of(rows, attack="attribute", status="not_applicable") if row["metric"] == "auc"]
    assert len(missing) == 2
    assert all("there is: age_group, gender" in row["detail"]["reason"] for row in missing)
    report = (tmp_path / "run" / "report.md").read_text().replace("\\", "")
    assert "## What users are" in report
    assert f"{told[0]['detail']['bag_of_items_auc']:.3f}" in report.split("## What users are")[1].split("\n## ")[0]


def test_lengths_are_measured_of_recformer_without_a_label(
    recformer_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    rows = findings(recformer_scenario, tmp_path, ["length"])
    assert {(row["secret"], row["status"]) for row in of(rows, attack="length")} == {("history", "ok")}


def test_windows_are_linked_across_rounds_and_in_serving(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[View] = []

    class Watching(Linkage):
        def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
            seen.append(view)
            return super().run(view, knowledge, budget)

    monkeypatch.setitem(OWN, "linkage", Watching)
    few: dict[str, Any] = {"market": {"users": 48, "items": 48, "tastes": 3}, "audit_users": 24, "test_users": 6}
    found = findings(small_scenario, tmp_path, ["linkage"], rounds=2, samples="all", clients=2, history=2, **few)
    rows = of(found, attack="linkage")
    assert {(row["channel"], row["round"], row["status"]) for row in rows} == {
        ("front_activations", 1, "ok"), ("front_activations", 2, "ok"), ("inference_activations", 3, "ok"),
    }  # fmt: skip
    assert all(row["secret"] == "linkage" and row["baseline"] == 0.5 for row in rows)
    for row in rows:
        chance, lengths, control = row["comparisons"]
        assert (chance["name"], lengths["name"], control["name"]) == ("chance", "lengths", "control")
        assert lengths["value"] == row["detail"]["length_auc"]
    first, *_, last = (view for view in seen if view.channel == "front_activations")
    assert {record.round for record in first.records} == {1}
    assert sorted(record.round for record in last.records) == [1] * (len(last.records) // 2) + [2] * (
        len(last.records) // 2
    )
    for view in seen:
        assert sorted(record.row for record in view.records) == list(range(len(view.records)))


def test_one_window_a_user_cannot_be_linked_with_itself(small_scenario: scenario.Scenario, tmp_path: Path) -> None:
    rows = {row["channel"]: row for row in of(findings(small_scenario, tmp_path, ["linkage"]), attack="linkage")}
    assert rows["front_activations"]["status"] == "not_applicable"
    assert "data.samples: all" in rows["front_activations"]["detail"]["reason"]
    assert rows["inference_activations"]["status"] == "ok"


def test_without_a_trunk_no_mask_crosses(small_scenario: scenario.Scenario) -> None:
    audited = small_scenario.audit.model_copy(update={"attacks": ("length",), "adversaries": ("server",)})
    for cuts, runs in ((((LAYERS, 0),), False), (((LAYERS, 0), (1, 1)), True)):
        chosen = small_scenario.model_copy(update={"audit": audited.model_copy(update={"cuts": cuts})})
        plan = make_plan(chosen, LAYERS)
        assert len(plan.cells) == runs
        assert all("nothing crosses here" in why for _, why in plan.impossible)
        assert plan.size == 1

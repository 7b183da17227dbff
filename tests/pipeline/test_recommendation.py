"""What a served model recommends, in whole audits: found where titles are generated, beside unchanged histories."""

import json
from pathlib import Path
from typing import Any

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.audit.replay import serving
from pplr_audit.runs.documents import validate
from tests.audit.replay.test_generated import wordy


def rows_of(setting: scenario.Scenario, folder: Path) -> tuple[list[dict[str, Any]], str]:
    values = setting.model_dump(mode="json")
    ridge = {"ridge": {"prompts": 48, "held_out": 8}}
    values["audit"] |= {"victims": 60, "cuts": [[1, 0]], "attacks": [ridge], "adversaries": ["trunk_host"]}
    result = audit.run(scenario.Scenario.model_validate(values), folder)
    document = json.loads((result.directory / "findings.json").read_text())
    validate(document)
    return [{**row, "seconds": 0} for row in document["findings"]], (result.directory / "report.md").read_text()


def test_the_recommendation_is_found_in_serving_beside_the_same_histories(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wordy(monkeypatch, 1)
    rows, report = rows_of(small_scenario, tmp_path / "with")
    found = [row for row in rows if row["secret"] == "recommendation"]
    assert [row["metric"] for row in found] == [f"recommendation_hit@{k}" for k in (1, 5, 10)]
    for row in found:
        assert (row["channel"], row["attack"], row["status"]) == ("inference_activations", "ridge", "ok")
        assert [each["name"] for each in row["comparisons"]] == ["popularity", "untargeted", "control"]
    assert "Reading what was recommended" in report
    monkeypatch.setattr(serving, "generated_records", lambda *_: None)
    before, report = rows_of(small_scenario, tmp_path / "without")
    assert [row for row in rows if row["secret"] != "recommendation"] == before
    assert "Reading what was recommended" not in report


def test_recformer_generates_no_title(recformer_scenario: scenario.Scenario, tmp_path: Path) -> None:
    rows, _ = rows_of(recformer_scenario, tmp_path / "run")
    assert {row["secret"] for row in rows} == {"history"}

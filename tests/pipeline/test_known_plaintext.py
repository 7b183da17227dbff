"""RecFormer's catalogue as known plaintext in whole audits: who has it, how much more is read, how it is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.audit.knowledge.build import KnowledgeBuilder


def rows_of(setting: scenario.Scenario, folder: Path, **asked: Any) -> tuple[list[dict[str, Any]], str]:
    values = setting.model_dump(mode="json")
    values["training"] |= {"learning_rate": 0.05}
    if setting.model.recommender == "recformer":
        values["model"]["recformer"] |= {"refresh_rounds": 9, "refresh_steps": 2}
    ridge = {"ridge": {"prompts": 48, "held_out": 8}}
    values["audit"] |= {"victims": 40, "cuts": [[1, 0]], "attacks": [ridge], "knowledge": "base", **asked}
    result = audit.run(scenario.Scenario.model_validate(values), folder)
    rows: list[dict[str, Any]] = json.loads((result.directory / "findings.json").read_text())["findings"]
    return [row for row in rows if row["metric"] == "token_accuracy"], (result.directory / "report.md").read_text()


def test_at_level_base_a_front_that_moved_is_read_better_by_whoever_runs_the_trunk(
    recformer_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, report = rows_of(recformer_scenario, tmp_path / "with", adversaries=["server", "trunk_host"])
    with monkeypatch.context() as without:
        without.setattr(KnowledgeBuilder, "_plaintext", lambda self, cell: None)
        before, _ = rows_of(recformer_scenario, tmp_path / "without", adversaries=["server", "trunk_host"])
    assert [(row["adversary"], row["channel"]) for row in rows] == [
        (who, channel) for who in ("server", "trunk_host") for channel in ("front_activations", "inference_activations")
    ]
    for row, alone in zip(rows, before, strict=True):
        assert row["status"] == alone["status"] == "ok"
        assert "plaintext_used" not in alone["detail"]
        assert row["detail"]["plaintext_used"] > 10
        assert row["detail"]["control"] < 0.1, "what crossed of others tells nothing"
        gained = 0.3 if row["channel"] == "inference_activations" else 0.02
        assert row["value"] > alone["value"] + gained
    assert "the public catalogue as it crossed of each client" in report


def test_bigrec_has_none(small_scenario: scenario.Scenario, tmp_path: Path) -> None:
    rows, report = rows_of(small_scenario, tmp_path / "run", adversaries=["server"])
    assert rows
    assert all("plaintext_used" not in row["detail"] for row in rows)
    assert "as it crossed of each client" not in report

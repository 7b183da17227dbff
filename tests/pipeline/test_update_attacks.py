"""Attacks of this package on updates, from the scenario to the findings."""

from collections.abc import Callable
from pathlib import Path

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.runs.documents import validate
from tests.conftest import LAYERS

POINTS = (
    "[pplr_audit.attacks]\nnext_items = pplr_audit.attacks.update.update_label:UpdateLabel\n"
    "trait = pplr_audit.attacks.update.update_attribute:UpdateAttribute\n"
    "matched = pplr_audit.attacks.update.gradient_match:GradientMatch\n"
)
"""The attacks under other names, so that they stand beside the installed ones."""


def test_next_items_are_read_of_updates_and_sums_and_compared(
    small_scenario: scenario.Scenario, install: Callable[..., Path], tmp_path: Path
) -> None:
    install("named-attacks", "0.1", POINTS)
    changed = small_scenario.model_dump()
    changed["data"] |= {"reserve": 0.2}
    changed["training"] |= {"rounds": 1}
    changed["audit"] |= {
        "cuts": [[1, 1], [LAYERS, 0]], "adversaries": ["server", "trunk_host", "outsider"],
        "attacks": [{"next_items": {"prompts": 48, "clients": 2}}],
    }  # fmt: skip
    result = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run")
    validate(result.document)
    found = {
        (row["adversary"], row["channel"], row["cut"]["front"]): row
        for row in result.document["findings"]
        if row["metric"] == "item_recall" and row["status"] == "ok"
    }
    assert set(found) == {
        ("server", "client_update", 1), ("server", "trunk_update", 1), ("server", "client_update", LAYERS),
        ("server", "aggregate", 1), ("server", "aggregate", LAYERS), ("trunk_host", "trunk_update", 1),
    }  # fmt: skip
    assert found["trunk_host", "trunk_update", 1]["knowledge"] == "base"
    whole = found["server", "client_update", LAYERS]
    assert (whole["secret"], whole["n"], whole["detail"]["start_models"]) == ("targets", 3, 1)
    values = {each["name"]: each["value"] for each in whole["comparisons"]}
    assert set(values) == {"control", "reserve", "popularity"}
    assert whole["value"] > max(values.values())
    refused = [row for row in result.document["findings"] if row["status"] != "ok"]
    assert {row["detail"]["reason"] for row in refused if row["adversary"] == "outsider"} == {
        "outsider sees none of the channels that this attack reads"
    }
    assert result.report is not None
    assert "which next items a client trained on" in result.report.read_text()


def test_an_attribute_of_clients_that_are_users_is_asked_for_and_not_of_silos(
    small_scenario: scenario.Scenario, install: Callable[..., Path], tmp_path: Path
) -> None:
    install("named-attacks", "0.1", POINTS)
    changed = small_scenario.model_dump()
    changed["data"] |= {"partition": "per_user", "reserve": 0.4, "audit_users": 20}
    changed["training"] |= {"rounds": 1}
    changed["audit"] |= {
        "cuts": [[1, 1]], "adversaries": ["aggregator"],
        "attacks": [{"trait": {"name": "gender", "folds": 2}}, {"matched": {"tries": 3, "start": "nothing"}}],
        "victims": 60,
    }  # fmt: skip
    document = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run").document
    validate(document)
    (row,) = [each for each in document["findings"] if each["metric"] == "auc"]
    assert row["status"] == "ok", row["detail"]
    assert (row["channel"], row["secret"]) == ("client_update", "attribute")
    assert row["detail"]["attribute"] == "gender"
    assert row["detail"]["simulated_users"] > 30
    assert row["detail"]["bag_of_items_auc"] > 0
    assert {each["name"] for each in row["comparisons"]} == {"chance", "client", "control"}
    found = {each["metric"]: each for each in document["findings"] if each["attack"] == "matched"}
    assert {each["status"] for each in found.values()} == {"ok"}
    assert {"item_recall", "item_recall@10", "token_ap", "rougeL", "exact_sequences"} <= set(found)
    assert found["item_recall"]["n"] == row["n"]
    changed["data"] |= {"partition": "kmeans", "reserve": 0.2}
    document = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "silos").document
    (row,) = [each for each in document["findings"] if each["metric"] == "auc"]
    assert row["status"] == "not_applicable"
    assert "data.partition: per_user" in row["detail"]["reason"]
    reasons = {each["detail"]["reason"] for each in document["findings"] if each["attack"] == "matched"}
    assert len(reasons) == 1
    assert "for at most 4 of a client (samples)" in reasons.pop()


def test_where_clients_are_users_activations_and_updates_answer_one_question_under_one_bound(
    small_scenario: scenario.Scenario, install: Callable[..., Path], tmp_path: Path
) -> None:
    install("named-attacks", "0.1", POINTS)
    changed = small_scenario.model_dump()
    changed["data"] |= {"partition": "per_user", "reserve": 0.2, "audit_users": 12, "users": 40, "test_users": 4}
    changed["training"] |= {"rounds": 1}
    changed["audit"] |= {
        "cuts": [[1, 1], [LAYERS, 0]], "adversaries": ["server"], "victims": 8,
        "attacks": [{"ridge": {"prompts": 48, "held_out": 8}}, {"next_items": {"prompts": 48, "clients": 2}}],
    }  # fmt: skip
    result = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run")
    validate(result.document)
    training = result.document["run"]["training"]
    assert (training["optimizer"], training["steps"], training["batch_size"]) == ("adamw", [1, 1], 8)
    assert training["adapter"]["targets"] == ["down_proj", "q_proj", "v_proj"]
    found = {
        (row["secret"], row["channel"]): row
        for row in result.document["findings"]
        if row["metric"] == "item_recall" and row["status"] == "ok" and row["cut"]["front"] == 1
    }
    assert {("items", "front_activations"), ("targets", "front_activations"), ("targets", "client_update")} <= {*found}
    read, said = found["targets", "front_activations"], found["targets", "client_update"]
    assert read["n"] <= said["n"] == 8
    assert read["corrected"]["over"] == said["corrected"]["over"]
    label = next(
        row for row in result.document["findings"]
        if row["metric"] == "label_hit@1" and row["channel"] == "front_activations" and row["cut"]["front"] == 1
    )  # fmt: skip
    assert read["value"] == label["value"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "All figures of targets answer the same question by the same metric" in page
    assert "next items of" in page

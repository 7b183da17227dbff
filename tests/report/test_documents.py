"""The schemas accept what an audit writes, and name what is wrong with anything else."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.errors import InputError
from pplr_audit.runs.documents import validate, validate_evidence

Json = dict[str, Any]
Change = Callable[[Json], Any]


def test_the_documents_of_an_audit_are_accepted(findings: Json, evidence: Json) -> None:
    validate(findings)
    validate_evidence(evidence)


def test_an_audit_that_found_nothing_yet_is_accepted(findings: Json) -> None:
    validate({**findings, "findings": [], "utility": [], "costs": []})


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d.update(schema="pplr-audit/findings/2"), "$.schema"),
        (lambda d: d.update(extra=1), "$"),
        (lambda d: d["run"].pop("seed"), "$.run"),
        (lambda d: d["run"]["cut"].update(front=None), "$.run.cut.front"),
        (lambda d: d["run"]["clients"][0].update(users="many"), "$.run.clients[0].users"),
        (lambda d: d["findings"][0].update(extra=1), "$.findings[0]"),
        (lambda d: d["findings"][0].update(status="fine"), "$.findings[0].status"),
        (lambda d: d["findings"][0].update(metric="Item Hit"), "$.findings[0].metric"),
        (lambda d: d["findings"][0].update(value=None), "$.findings[0].value"),
        (lambda d: d["findings"][0].update(ci=None), "$.findings[0].ci"),
        (lambda d: d["findings"][0].update(ci=[0.2]), "$.findings[0].ci"),
        (lambda d: d["findings"][0].update(ci=[0.9, 0.2]), "$.findings[0].ci"),
        (lambda d: d["findings"][0].update(baseline=None), "$.findings[0].baseline"),
        (lambda d: d["findings"][0].update(status="failed", detail={"reason": "x"}, ci=None), "$.findings[0].value"),
        (lambda d: d["findings"][0].update(status="failed", value=None, ci=None), "$.findings[0].detail"),
        (lambda d: d["findings"][0].update(value=float("nan")), "$.findings[0].value"),
        (lambda d: d["findings"][0].update(cut={"front": 1}), "$.findings[0].cut"),
        (lambda d: d["findings"][0].update(cut={"front": -1, "back": None}), "$.findings[0].cut.front"),
        (lambda d: d["findings"][0].update(secret="shoe size"), "$.findings[0].secret"),
        (lambda d: d["utility"][0].update(value=None), "$.utility[0].value"),
        (lambda d: d["utility"][0].update(extra=1), "$.utility[0]"),
        (lambda d: d["costs"][0].update(client_memory_bytes=1), "$.costs[0]"),
        (lambda d: d["costs"][0].update(client_share=1.2), "$.costs[0].client_share"),
        (lambda d: d["costs"][0].update(measured={"extra": 1}), "$.costs[0].measured"),
        (lambda d: d["costs"][0].pop("seconds_per_round"), "$.costs[0]"),
    ],
)
def test_a_wrong_findings_document_is_refused_with_the_path(findings: Json, change: Change, path: str) -> None:
    change(findings)
    with pytest.raises(InputError) as refusal:
        validate(findings)
    assert f" {path}: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d.pop("roc"), "$"),
        (lambda d: d["roc"][0]["tpr"].pop(), "$.roc[0].tpr"),
        (lambda d: d["roc"][0]["fpr"].append(1.5), "$.roc[0].fpr[197]"),
        (lambda d: d["balance"][1]["weights"].pop(), "$.balance[1]"),
        (lambda d: d["balance"][1]["similarity"][2].pop(), "$.balance[1]"),
        (lambda d: d["examples"][0]["slots"][1].update(hit=1), "$.examples[0].slots[1].hit"),
        (lambda d: d["examples"][0]["slots"].clear(), "$.examples[0].slots"),
        (lambda d: d["training"][0].update(loss=float("inf")), "$.training[0].loss"),
    ],
)
def test_a_wrong_evidence_document_is_refused_with_the_path(evidence: Json, change: Change, path: str) -> None:
    change(evidence)
    with pytest.raises(InputError) as refusal:
        validate_evidence(evidence)
    assert f" {path}: " in str(refusal.value)


def test_a_refusal_does_not_repeat_a_large_value(findings: Json) -> None:
    findings["findings"][0]["value"] = "x" * 10_000
    with pytest.raises(InputError) as refusal:
        validate(findings)
    assert len(str(refusal.value)) < 400

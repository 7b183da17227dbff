"""What a finding was compared with decides the words: all of it must be exceeded, with a correction for its rivals."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.findings.series import above_baseline, hardest, value_cell
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.sentences.answer import answer
from pplr_audit.report.sentences.claims import beside_baseline, verdict
from pplr_audit.report.sentences.protocol import checked, unfair_coins
from pplr_audit.report.terminal.findings import summary_table
from pplr_audit.runs.documents import judged, validate

Json = dict[str, Any]
Make = Callable[..., Json]


def beside(name: str, value: float, low: float, high: float, p: float) -> Json:
    ends = {"ci": [value, value] if name == "chance" else [value - 0.05, value + 0.05], "difference_ci": [low, high]}
    return {"name": name, "value": value, "difference": (low + high) / 2, "p": p, **ends}


CHANCE = beside("chance", 0.5, 0.05, 0.25, 0.001)
CLOSE = beside("control", 0.62, -0.04, 0.1, 0.2)
FAR = beside("control", 0.51, 0.03, 0.2, 0.004)
OVER = beside("client", 0.9, -0.4, -0.1, 1.0)


def area(a_membership: Make, *comparisons: Json, p: float = 0.001, over: int = 10) -> Json:
    row = a_membership("auc", 0.65, 0.55, 0.75, 0.5, "threshold")
    return {**row, "comparisons": list(comparisons), "corrected": {"p": p, "ci": [0.5, 0.8], "over": over}}


def test_all_comparisons_have_to_hold(a_membership: Make) -> None:
    assert above_baseline(area(a_membership, CHANCE, FAR))
    for row, words in (
        (area(a_membership, CHANCE, CLOSE), "not distinguishable from its control, 0.620"),
        (area(a_membership, CHANCE, OVER), "below what the client alone tells, 0.900"),
        (area(a_membership, CHANCE, FAR, p=0.03), "by itself, not as the best of the 10 that it is one of"),
    ):
        assert not above_baseline(row)
        assert words in beside_baseline(row)
        assert value_cell(row).mark == "near"
    assert hardest(area(a_membership, CHANCE, CLOSE)) == ("control", 0.62)
    assert "its control 0.620" in value_cell(area(a_membership, CHANCE, CLOSE)).note


def test_a_sentence_about_several_secrets_is_corrected_for_them_too(a_membership: Make) -> None:
    row = area(a_membership, CHANCE, FAR, p=0.01)
    assert verdict([row]) == "above"
    assert verdict([row], among=3) == "not_above"


def test_the_best_of_many_without_a_correction_in_the_document_is_corrected_in_the_report(
    findings: Json, a_membership: Make
) -> None:
    near = a_membership("auc", 0.56, 0.503, 0.617, 0.5, "m0")
    rivals = [a_membership("auc", 0.5, 0.44, 0.56, 0.5, f"m{i}") for i in range(1, 24)]
    assert answer(judged({**findings, "findings": [near]}))[1].verdict == "above"
    told = answer(judged({**findings, "findings": [near, *rivals]}))[1]
    assert told.verdict == "not_above"
    assert "not as the best of the 24" in told.text
    clear = a_membership("auc", 0.7, 0.65, 0.75, 0.5, "m0")
    told = answer(judged({**findings, "findings": [clear, *rivals]}))[1]
    assert told.verdict == "above"
    assert "It stays above the baseline after correction for all 24 findings." in told.text


def test_the_rate_is_of_the_same_configuration_as_the_area(findings: Json, a_membership: Make) -> None:
    def both(auc: float, rate: float, **detail: Any) -> list[Json]:
        rows = [a_membership("auc", auc, auc - 0.05, auc + 0.05, 0.5, "threshold"),
                a_membership("tpr@0.01", rate, rate - 0.05, rate + 0.05, 0.01, "threshold")]  # fmt: skip
        return [{**row, "detail": {**row["detail"], **detail}} for row in rows]

    weak, strong = both(0.6, 0.11, settings={"shadows": 1}), both(0.8, 0.44, settings={"shadows": 8})
    told = answer({**findings, "findings": [*weak, *strong]})[1]
    assert "0.800" in told.text
    assert "44.0%" in told.text
    assert "11.0%" not in told.text
    defended = [{**row, "defense": "quantize(bits=8)"} for row in both(0.8, 0.22)]
    told = answer({**findings, "findings": [*both(0.8, 0.33), *defended]})[1]
    assert "33.0%" in told.text
    assert "22.0%" not in told.text


@pytest.mark.parametrize(("ends", "warned"), [([0.42, 0.58], False), ([0.52, 0.7], True), ([0.3, 0.46], True)])
def test_members_who_differ_before_training_are_warned_of(
    findings: Json, evidence: Json, a_membership: Make, ends: list[float], warned: bool
) -> None:
    row = a_membership("auc", 0.65, 0.6, 0.7, 0.5, "threshold")
    row["detail"] |= {"model_free_auc": sum(ends) / 2, "model_free_ci": ends}
    document = {**findings, "findings": [row]}
    assert bool(unfair_coins(document)) == warned
    (said,) = checked(document)
    assert said.startswith("Warning: ") == warned
    assert said.replace("'", "&#39;") in render_html(document, evidence)
    caption = str(summary_table(document, 200).caption or "")
    assert ("members differ from non-members before any training" in caption) == warned
    assert checked(findings) == [], "an earlier version gives no interval"


def test_comparisons_stand_in_the_schema(findings: Json, a_membership: Make) -> None:
    validate({**findings, "findings": [area(a_membership, CHANCE, {**FAR, "draws": 20, "least": 0.4, "most": 0.6})]})

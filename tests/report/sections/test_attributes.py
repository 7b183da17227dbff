"""The section on attributes: what an attack tells beside what the client and the items do."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.blocks.content import Table
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.report.sections.attributes import attributes

Json = dict[str, Any]
Make = Callable[..., Json]


@pytest.fixture
def told(findings: Json, a_finding: Make, no_finding: Make) -> Json:
    """Gender at two cuts and age at one of them, another without a value."""
    same = {"attack": "attribute", "secret": "attribute", "knowledge": "base"}
    areas = {"value": 0.64, "ci": [0.55, 0.72], "baseline": 0.53, "metric": "auc"}
    for name, front, of_items in (("gender", 0, 0.711), ("gender", 1, 0.711), ("age", 1, 0.642)):
        detail = {
            "attribute": name, "settings": {"name": name}, "client_auc": 0.531, "bag_of_items_auc": of_items,
        }  # fmt: skip
        cut = {"front": front, "back": None}
        findings["findings"] += [
            a_finding(**same, cut=cut, detail=detail, **areas),
            a_finding(**same, cut=cut, detail=detail, **{**areas, "metric": "accuracy"}),
        ]
    detail = {"reason": "too few", "settings": {"name": "zip"}}
    findings["findings"].append(no_finding("not_applicable", "too few", **same, metric="auc", detail=detail))
    return findings


def test_each_area_stands_beside_the_majority_the_client_and_the_items(told: Json) -> None:
    (section,) = attributes(told)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [[cell.text for cell in row[1:]] for row in table.rows] == [
        ["gender", "front_activations", "k=0", "0.640", "0.500", "0.531", "0.711"],
        ["gender", "front_activations", "k=1", "0.640", "0.500", "0.531", "0.711"],
        ["age", "front_activations", "k=1", "0.640", "0.500", "0.531", "0.642"],
    ]
    assert table.rows[0][4].note == "[0.550, 0.720], baseline 0.530"


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_it_is_in_the_report_also_redacted(told: Json, evidence: Json, render: Callable[..., str]) -> None:
    for redact in (False, True):
        page = render(told, evidence, redact=redact).replace("\\", "")
        section = page.split("What users are")[-1].split("Who can be recognized")[0]
        assert "activations tell more about a user than the items do" in section
        assert "0.711" in section
        assert ("gender" in section) != redact


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_without_a_measured_attribute_there_is_no_such_section(
    findings: Json, evidence: Json, no_finding: Make, render: Callable[..., str]
) -> None:
    findings["findings"].append(no_finding("not_applicable", "too few", secret="attribute", metric="auc"))
    assert attributes(findings) == ()
    assert "What users are" not in render(findings, evidence)


def test_an_attack_that_does_not_say_what_stands_beside_it_is_shown_all_the_same(
    findings: Json, a_finding: Make
) -> None:
    findings["findings"].append(a_finding(secret="attribute", metric="auc", value=0.64, ci=[0.5, 0.7], baseline=0.5))
    (section,) = attributes(findings)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [cell.text for cell in table.rows[0]][1:2] + [cell.text for cell in table.rows[0]][-2:] == ["–"] * 3

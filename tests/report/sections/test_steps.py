"""First and later steps of a round, and how well the adversary's copy explains what crossed."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.blocks.content import Block, Fold, Table, Text
from pplr_audit.report.findings.series import series
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.report.sections.steps import by_step
from pplr_audit.runs.documents import validate

Json = dict[str, Any]
Make = Callable[..., Json]


def kind(mean: float, half: float, n: int = 8) -> Json:
    return {"mean": mean, "ci": [max(0.0, mean - half), min(1.0, mean + half)], "n": n}


def steps(first: Json, later: Json, **more: Any) -> Json:
    return {"first_step": first, "later_steps": later, **more}


def blocks(rows: list[Json]) -> tuple[str, list[list[str]], list[list[str]]]:
    """What is said, and the cells of the table with their notes."""
    found: list[Block] = by_step("history", "item_hit@1", series(rows))
    (table,) = [block for block in found if isinstance(block, Table)]
    said = " ".join(block.text for block in found if isinstance(block, Text))
    return said, *([[getattr(cell, part) for cell in row] for row in table.rows] for part in ("text", "note"))


def test_both_kinds_of_steps_stand_side_by_side_with_the_copy_in_words(a_finding: Make) -> None:
    rows = [
        a_finding(
            attack="prefix_search", cut={"front": 3, "back": None},
            detail=steps(kind(1, 0.2), kind(0.9, 0.05, 32), verified=0.975, median_distance=1e-6),
        ),
        a_finding(
            attack="label_match", cut={"front": None, "back": 2}, channel="back_gradients", knowledge="base",
            detail=steps(kind(0.5, 0.3, 1), kind(0.4, 0.1), median_distance=0.1312),
        ),
    ]  # fmt: skip
    _, texts, notes = blocks(rows)
    assert [row[1:] for row in texts] == [
        ["k=3", "front_activations", "front", "100%", "90.0%", "exact for 97.5% of the pieces"],
        ["m=2", "back_gradients", "base", "50.0%", "40.0%", "13.1% left unexplained"],
    ]
    assert texts[0][0].startswith("prefix_search")
    assert notes[0][4:] == ["[80.0%, 100%], 8 users", "[85.0%, 95.0%], 32 users", "median distance <0.01%"]
    assert notes[1][4] == "[20.0%, 80.0%], 1 user"


def test_an_old_copy_protects_only_where_the_intervals_do_not_meet(a_finding: Make) -> None:
    def said(first: Json, later: Json, **changes: Any) -> str:
        return blocks([a_finding(detail=steps(first, later), **changes)])[0]

    unseen = said(kind(0.9, 0.1), kind(0.75, 0.1))
    assert "No protection by an old copy is shown: at 0 of 1 pair of attack and cut, later steps give less" in unseen
    assert "the largest drop is ridge at k=1, 90.0% to 75.0%. With 8 users on the smaller side" in unseen
    assert "drop is" not in said(kind(0.9, 0.1), kind(0.9, 0.1))
    lower = said(kind(0.9, 0.1), kind(0.5, 0.1))
    assert "at 1 of 1 pair of attack and cut, most for ridge at k=1, 90.0% to 50.0%" in lower
    assert "At 1 of these, later steps are still above the baseline" in lower
    assert "At 0 of these, later steps are still above" in said(kind(0.9, 0.1), kind(0.05, 0.05))
    assert "At 1 of all pairs, later steps give more." in said(kind(0.2, 0.1), kind(0.9, 0.1))
    assert "nothing is said about old copies" in said(kind(0.9, 0.1), kind(0.5, 0.1), knowledge="base")


def test_findings_of_an_earlier_version_have_no_interval_and_nothing_is_claimed_of_them(a_finding: Make) -> None:
    old = {"mean": 0.9, "n": 8}, {"mean": 0.1, "n": 32}
    said, texts, notes = blocks([a_finding(detail=steps(*old))])
    assert said == ""
    assert texts[0][4:6] == ["90.0%", "10.0%"]
    assert notes[0][4:6] == ["no interval, 8 users", "no interval, 32 users"]


@pytest.mark.parametrize(
    "detail",
    [
        {}, {"first_step": 3, "verified": "yes", "median_distance": None}, {"first_step": {"mean": "x", "n": 1}},
        {"first_step": {"mean": 0.5, "n": -1}, "later_steps": [], "verified": 7, "median_distance": -1},
        {"first_step": {"mean": True, "n": True}, "median_distance": True, "settings": {"first_step": 1}},
    ],
)  # fmt: skip
def test_what_an_attack_writes_in_another_form_is_not_shown(
    findings: Json, evidence: Json, a_finding: Make, detail: Json
) -> None:
    findings["findings"] = [a_finding(cut={"front": k, "back": None}, detail=detail) for k in (0, 1)]
    validate(findings)
    assert by_step("history", "item_hit@1", series(findings["findings"])) == []
    for redact in (False, True):
        assert "how well its copy explains it" not in render_html(findings, evidence, redact=redact)


def test_without_a_first_step_the_copy_is_still_told(a_finding: Make) -> None:
    _, texts, _ = blocks([a_finding(detail={"median_distance": 1.4})])
    assert texts[0][4:] == ["not set apart", "not set apart", "explains nothing of it"]


def test_many_rows_are_folded(a_finding: Make) -> None:
    detail = steps(kind(0.9, 0.1), kind(0.8, 0.1))
    rows = [a_finding(cut={"front": k, "back": None}, detail=detail) for k in range(30)]
    (fold,) = [block for block in by_step("history", "item_hit@1", series(rows)) if isinstance(block, Fold)]
    assert fold.title == "history: first and later steps, and the adversary's copy (30 rows)"


@pytest.mark.parametrize("redact", [False, True])
def test_it_is_told_with_the_strongest_attacks_in_both_formats_and_not_of_serving(
    findings: Json, evidence: Json, redact: bool
) -> None:
    html = render_html(findings, evidence, redact=redact)
    markdown = render_markdown(findings, evidence, redact=redact).replace("\\", "")
    assert "| ridge | k=1 | front_activations | front | 95.2% [85.2%, 100%], 40 users |" in markdown
    for page in (html, markdown):
        leaks, rest = page.split("What an attack recovered, beside the truth")[-2:]
        assert leaks.count("how well its copy explains it") == 1
        assert "how well its copy explains it" not in rest
        assert "An old copy reads less" in leaks or "No protection by an old copy is shown" in leaks

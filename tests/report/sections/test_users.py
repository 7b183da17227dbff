"""How what is read is spread over users, and its mean at each client."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.blocks.content import Block, Fold, Table
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.report.sections.strongest import strongest_by_cut

Json = dict[str, Any]
Make = Callable[..., Json]


def history(findings: Json) -> list[Json]:
    return [row for row in findings["findings"] if row["secret"] == "history"]


def tables(blocks: list[Block]) -> list[Table]:
    inner = [b for block in blocks for b in (block.blocks if isinstance(block, Fold) else (block,))]
    return [block for block in inner if isinstance(block, Table)]


def cells(blocks: list[Block], caption: str) -> list[list[str]]:
    (found,) = [table for table in tables(blocks) if caption in table.caption]
    return [[f"{cell.text} {cell.note}".strip() for cell in row] for row in found.rows]


def test_the_median_the_worst_hit_and_those_read_whole_stand_beside_the_pooled_value(findings: Json) -> None:
    rows = cells(strongest_by_cut("history", history(findings), findings["run"]), "of each attacked user")
    assert rows[0] == [
        "training", "k=0", "ridge", "79.5% [73.5%, 85.5%]", "99.5%", "89.5%", "79.6% to 99.5%", "100%", "39.8%", "200",
    ]  # fmt: skip
    assert [row[:2] for row in rows] == [
        *(["training", f"k={k}"] for k in range(5)), *(["serving", f"k={k}"] for k in range(4)),
    ]  # fmt: skip


def test_clients_have_their_means_at_the_cut_that_ran(findings: Json) -> None:
    rows = cells(strongest_by_cut("history", history(findings), findings["run"]), "by client")
    assert [row[1] for row in rows] == ["c0", "c1", "c2", "c3", "c4"] * 2
    assert rows[0] == ["training", "c0", "k=1, m=1", "ridge", "94.2% [86.2%, 100%]", "40"]


def test_where_the_cut_that_ran_was_not_attacked_clients_are_told_of_the_first(findings: Json) -> None:
    findings["run"]["cut"] = {"front": 5, "back": 0}
    rows = cells(strongest_by_cut("history", history(findings), findings["run"]), "by client")
    assert {row[2] for row in rows} == {"k=0, m=0"}


@pytest.mark.parametrize(
    "told",
    [
        None, 3, {}, {"n": 4}, {"n": 4, "least": 0, "median": 0.5, "most": "1", "quartiles": [0, 1], "all_read": {}},
        {"n": 4, "least": 0, "median": 0.5, "most": 1, "quartiles": [1], "all_read": {"mean": 0.5, "n": 4}},
    ],
)  # fmt: skip
def test_findings_that_do_not_say_it_are_shown_as_before(findings: Json, evidence: Json, told: Any) -> None:
    for row in findings["findings"]:
        row["detail"].pop("over_users", None)
        if told is not None:
            row["detail"]["over_users"] = told
    for page in (render_html(findings, evidence), render_html(findings, evidence, redact=True)):
        assert "The most that any attack reads at each cut" in page
        assert "worst-hit user" not in page


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_redacted_report_keeps_the_spread_and_numbers_the_clients(
    findings: Json, evidence: Json, render: Callable[..., str]
) -> None:
    for row in history(findings):
        clients = row["detail"].get("over_users", {}).get("clients", {})
        clients |= {"somebody-else": {"mean": 0.5, "ci": [0.4, 0.6], "n": 9}}
    findings["run"]["clients"][0]["name"] = "Miller"
    for row in history(findings):
        clients = row["detail"].get("over_users", {}).get("clients", {})
        clients["Miller"] = clients.pop("c0", {})
    page = render(findings, evidence, redact=True)
    assert "worst-hit user" in page
    assert "client 1" in page
    assert not re.search("Miller|somebody", page)


def test_many_cuts_are_folded(findings: Json, a_finding: Make) -> None:
    detail = history(findings)[1]["detail"]
    assert "over_users" in detail
    rows = [a_finding(cut={"front": k, "back": None}, detail=detail) for k in range(50)]
    blocks = strongest_by_cut("history", rows, {**findings["run"], "layers": 50})
    assert "history: user by user and client by client" in [b.title for b in blocks if isinstance(b, Fold)]

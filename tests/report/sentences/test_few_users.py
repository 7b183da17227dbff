"""Report and terminal say where an interval is of so few users that it may miss its level."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pplr_audit.report.blocks.content import Text
from pplr_audit.report.sections.leakage import leakage
from pplr_audit.report.sentences.few_users import narrow_intervals
from pplr_audit.report.terminal.findings import summary_table

Json = dict[str, Any]
Make = Callable[..., Json]
SAID = "Few users (40): 95% intervals of token_accuracy over so few may be too narrow."


@pytest.fixture
def few(findings: Json, a_finding: Make) -> Json:
    row = a_finding(metric="token_accuracy", n=40, detail={"tokens": 900, "interval_covers": [0.88, 0.97]})
    return {**findings, "findings": [row]}


def test_report_and_terminal_say_how_often_such_an_interval_holds_the_truth(few: Json) -> None:
    (sentence,) = narrow_intervals(few)
    assert sentence.startswith(SAID)
    assert "88.0% to 97.0%" in sentence
    console = Console(width=300, file=StringIO(), record=True)
    console.print(summary_table(few, 200))
    assert SAID in " ".join(console.export_text().split())
    assert any(SAID in block.text for block in leakage(few).blocks if isinstance(block, Text))


@pytest.mark.parametrize("told", [None, 0.9, [0.9], [0.97, 0.88], ["a", "b"], [0.9, 7]])
def test_nothing_is_said_where_no_finding_says_it_in_a_form_known_here(few: Json, told: object) -> None:
    few["findings"][0]["detail"] = {"tokens": 900} if told is None else {"interval_covers": told}
    assert narrow_intervals(few) == []

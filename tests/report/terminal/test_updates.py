"""The terminal's table of updates: a row a channel, and no table where no update was attacked."""

from io import StringIO
from typing import Any

from rich.console import Console

from pplr_audit.report.terminal.updates import updates_table
from tests.report.conftest import finding, unmeasured
from tests.report.sections.test_updates import RECIPE, of_update

Json = dict[str, Any]


def shown(findings: Json, width: int) -> list[str]:
    table = updates_table(findings, width)
    assert table is not None
    console = Console(width=width, file=StringIO(), record=True)
    console.print(table)
    return console.export_text().splitlines()


def test_each_channel_has_a_row_with_its_strongest_attack_and_how_it_was_trained(findings: Json) -> None:
    refused = {"secret": "items", "metric": "item_recall", "cut": {"front": 1, "back": 1}, "attack": "dager"}
    findings["run"]["training"] = RECIPE
    findings["findings"] += [
        of_update(finding, 0, 1, 0.22), of_update(finding, 1, 1, 0.41, attack="dager"),
        unmeasured("not_applicable", "too many", channel="trunk_update", **refused),
    ]  # fmt: skip
    for width in (80, 120):
        text = " ".join(" ".join(shown(findings, width)).split())
        assert "client_update" in text
        assert "41.0%" in text
        assert "22.0%" not in text
        assert "by adamw with learning rate 0.001" in text
        assert all(len(line) <= width for line in shown(findings, width))
    (line,) = [each for each in shown(findings, 120) if "trunk_update" in each]
    assert "not applicable" in line
    assert "0%" not in line


def test_without_an_attack_on_updates_there_is_no_table(findings: Json) -> None:
    assert updates_table(findings, 80) is None


def test_a_name_cannot_command_the_terminal(findings: Json) -> None:
    findings["findings"].append(of_update(finding, 0, 1, 0.22, attack="lora\x1b[2J[bold]"))
    text = "\n".join(shown(findings, 120))
    assert "\x1b" not in text
    assert "[bold]" in text

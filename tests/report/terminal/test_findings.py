"""The terminal's table: the strongest attack at each cut, with what that cut costs."""

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console

from pplr_audit.report.blocks.content import Facts, Table
from pplr_audit.report.sections.method import method
from pplr_audit.report.terminal.findings import summary_table
from pplr_audit.report.terminal.training import CLIENTS, training_tables

Json = dict[str, Any]
Make = Callable[..., Json]


def shown(findings: Json) -> str:
    """The table as a wide terminal shows it."""
    console = Console(width=200, file=StringIO(), record=True)
    console.print(summary_table(findings, 200))
    return console.export_text()


def test_each_cut_shows_its_strongest_leak_and_its_price(findings: Json) -> None:
    (line,) = [line for line in shown(findings).splitlines() if " k=2 " in line]
    for part in (
        "history item_hit@1",
        "87.2%",
        "[82.5%, 92.0%]",
        "1.2%",
        "ridge on front_activations",
        "65.0%",
        "72.2 MB",
    ):
        assert part in line


GROUPS = "405 members, who train; 395 non-members, left out by a coin; 143 in reserve, who never train"


def test_the_three_groups_of_users_stand_below_the_table_and_in_the_report(findings: Json) -> None:
    assert GROUPS in " ".join(shown(findings).split())
    section = method(findings)
    (facts,) = [block for block in section.blocks if isinstance(block, Facts)]
    assert ("users", GROUPS) in facts.pairs
    (clients,) = [block for block in section.blocks if isinstance(block, Table) and block.caption == "Clients"]
    at = clients.columns.index("reserve")
    assert {row[at].text for row in clients.rows} == {"28"}


def test_a_finding_that_its_control_explains_names_the_control(findings: Json, a_membership: Make) -> None:
    chance = {"name": "chance", "value": 0.5, "ci": [0.5, 0.5], "difference": 0.04, "p": 0.02}
    control = {"name": "control", "value": 0.505, "ci": [0.46, 0.55], "difference": 0.037, "p": 0.05}
    compared = [{**each, "difference_ci": [-0.01, 0.08]} for each in (chance, control)]
    corrected = {"p": 0.09, "ci": [0.49, 0.59], "over": 2}
    row = a_membership("auc", 0.542, 0.501, 0.582, 0.5, "threshold")
    findings["findings"] = [{**row, "comparisons": compared, "corrected": corrected}]
    (line,) = [line for line in shown(findings).splitlines() if "membership auc" in line]
    assert "≈ 0.542" in line
    assert "0.500, its control 0.505" in line


def test_a_leak_is_priced_at_a_cut_that_still_has_a_trunk(findings: Json) -> None:
    (line,) = [line for line in shown(findings).splitlines() if " k=4 " in line]
    assert "82.5%" in line
    assert "72.2 MB" in line


def test_a_cut_without_a_value_shows_its_status(findings: Json, a_finding: Make, no_finding: Make) -> None:
    findings["findings"] = [
        a_finding(cut={"front": 0, "back": None}),
        no_finding("budget_exhausted", "too slow", cut={"front": 1, "back": None}),
    ]
    (line,) = [line for line in shown(findings).splitlines() if " k=1 " in line]
    assert "budget exhausted" in line
    assert "0%" not in line.split("budget exhausted")[1].split("ridge")[0]


def test_why_an_attack_has_no_value_stands_below_the_table(findings: Json, a_finding: Make, no_finding: Make) -> None:
    slow = [no_finding("budget_exhausted", "more than 5 s", cut={"front": k, "back": None}) for k in (1, 2)]
    broken = [no_finding("failed", f"reason {n}.", cut={"front": 3, "back": None}) for n in range(4)]
    findings["findings"] = [a_finding(cut={"front": 0, "back": None}), *slow, *broken]
    text = " ".join(shown(findings).split())
    assert "in 2 cells: budget exhausted: more than 5 s." in text
    assert "failed: reason 0." in text
    assert "failed: reason 1." in text
    assert "reason 2" not in text
    assert "2 more reasons are in the report." in text


def test_the_next_item_is_shown_by_k_and_m_with_the_price_of_that_cut(findings: Json, label_rows: list[Json]) -> None:
    findings["findings"] = label_rows
    lines = [line for line in shown(findings).splitlines() if "label_hit@1" in line]
    cuts = [line.split("│")[1].strip() for line in lines]
    assert cuts == [f"k={k}, m=1" for k in range(4)] + ["k=1, m=0", "k=1, m=2", "k=1, m=3"]
    (behind,) = [line for line in lines if "k=1, m=2" in line]
    for part in ("84.0%", "bidirectional on back_gradients", "65.0%", "72.2 MB"):
        assert part in behind
    (front,) = [line for line in lines if "k=1, m=3" in line]
    assert "ridge on front_activations" in front


def test_what_is_read_behind_alone_is_shown_by_m(findings: Json, label_rows: list[Json]) -> None:
    findings["findings"] = [row for row in label_rows if row["attack"] == "label_match"]
    lines = [line for line in shown(findings).splitlines() if "label_hit@1" in line]
    assert [line.split("│")[1].strip() for line in lines] == [f"m={m}" for m in range(5)]


def test_utility_stands_beside_its_references(findings: Json) -> None:
    text = shown(findings)
    assert "popularity (reference)" in text
    assert "0.1280" in text


def test_on_a_narrow_terminal_lines_break_between_words_and_nothing_is_cut_off(
    findings: Json, a_finding: Make, no_finding: Make
) -> None:
    findings["findings"] = [
        a_finding(cut={"front": 0, "back": None}),
        a_finding(cut={"front": 1, "back": None}, channel="inference_activations"),
        no_finding("not_applicable", "nothing crosses", cut={"front": 2, "back": None}),
    ]
    for width in (80, 90, 100, 120):
        console = Console(width=width, file=StringIO(), record=True)
        console.print(summary_table(findings, width))
        text = console.export_text()
        words = {word.strip("┃│") for line in text.splitlines() for word in re.split("[ ┃│]", line)}
        for word in ("item_hit@1", "history", "inference_activations", "applicable", "popularity", "(reference)",
                     "baseline", "holds", "round", "≈:"):  # fmt: skip
            assert word in words, f"{word} at {width}"
        assert "…" not in text


def training(findings: Json) -> list[str]:
    """The lines of a training's tables."""
    console = Console(width=200, file=StringIO(), record=True)
    for table in training_tables(findings):
        console.print(table)
    return console.export_text().splitlines()


def test_a_training_shows_each_client_beside_the_references_and_what_each_front_costs(findings: Json) -> None:
    lines = training(findings)
    assert any("popularity (reference)" in line for line in lines)
    (overall,) = [line for line in lines if line.startswith("│ all ")]
    assert "0.1280" in overall
    assert sum(" k=" in line for line in lines) == findings["run"]["layers"] + 1
    (ran,) = [line for line in lines if "(ran)" in line]
    cut = findings["run"]["cut"]
    assert f"k={cut['front']}, m={cut['back']} (ran)" in ran


def test_of_very_many_clients_the_first_are_shown_and_the_others_counted(findings: Json) -> None:
    one = next(row for row in findings["utility"] if row["client"] != "all" and row["metric"] == "recall@10")
    findings["utility"] += [{**one, "client": f"user-{number}\x1b[2J"} for number in range(100)]
    lines = training(findings)
    shown = sum("user-" in line for line in lines)
    assert 20 <= shown <= CLIENTS
    assert any("more" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_where_names_are_too_long_lines_break_behind_an_underscore_and_not_within_a_word(
    findings: Json, a_finding: Make
) -> None:
    findings["findings"] = [
        a_finding(cut={"front": k, "back": None}, channel="inference_activations", attack="prefix_search",
                  secret="recommendation", metric="recommendation_hit@10", value=0.93125, ci=[0.91125, 0.95125])
        for k in (0, 1)
    ]  # fmt: skip
    console = Console(width=80, file=StringIO(), record=True)
    console.print(summary_table(findings, 80))
    text = console.export_text()
    words = {word.strip("┃│") for line in text.splitlines() for word in re.split("[ ┃│]", line)}
    for word in ("recommendation_", "hit@10", "recommendation", "inference_", "activations", "prefix_search"):
        assert word in words, word
    assert all(len(line) <= 80 for line in text.splitlines())

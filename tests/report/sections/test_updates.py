"""The section on updates: channels in a table, activations beside updates, and what nobody attacked left unknown."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.blocks.content import Figure, Section, Table, Text
from pplr_audit.report.findings.redaction import redacted
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.report.sections.updates import updates
from pplr_audit.report.sentences.answer import answer
from pplr_audit.runs.documents import validate
from tests.report.conftest import LAYERS

Json = dict[str, Any]
Make = Callable[..., Json]
RECIPE: Json = {
    "optimizer": "adamw", "learning_rate": 0.001, "batch_size": 16, "local_epochs": 2, "steps": [14, 16],
    "averaging": "factors",
    "adapter": {"rank": 8, "alpha": 16, "dropout": 0.1, "targets": ["k_proj", "q_proj"]},
}  # fmt: skip


def comparison(name: str, value: float) -> Json:
    return {"name": name, "value": value, "ci": [value - 0.05, value + 0.05], "difference": 0.2,
            "difference_ci": [0.1, 0.3], "p": 0.001}  # fmt: skip


def of_update(make: Make, k: int, m: int, value: float, **changes: Any) -> Json:
    given: Json = {
        "attack": "lora_span", "channel": "client_update", "secret": "items", "metric": "item_recall",
        "cut": {"front": k, "back": m}, "value": value, "ci": [value - 0.02, value + 0.02], "baseline": 0.1,
        "comparisons": [comparison("control", 0.11), comparison("reserve", 0.14)],
        "corrected": {"p": 0.001, "ci": [value - 0.05, value + 0.07], "over": 9}, "n": 5,
    }  # fmt: skip
    return make(**{**given, **changes})


@pytest.fixture
def told(findings: Json, a_finding: Make, no_finding: Make) -> Json:
    """The findings with attacks on three channels of updates, and how a round was trained."""
    refused = {"secret": "items", "metric": "item_recall", "cut": {"front": 1, "back": 1}}
    findings["run"]["training"] = RECIPE
    findings["findings"] += [
        of_update(a_finding, 0, 1, 0.22), of_update(a_finding, 1, 1, 0.41), of_update(a_finding, LAYERS, 0, 0.5),
        of_update(a_finding, 1, 1, 0.3, attack="token_rows"),
        no_finding("not_applicable", "too <b>many</b> tokens", attack="dager", channel="client_update", **refused),
        no_finding("budget_exhausted", "300 s were not enough", attack="dager", channel="trunk_update", **refused),
    ]  # fmt: skip
    return findings


def section(findings: Json) -> Section:
    (found,) = updates(findings)
    return found


def table(found: Section, caption: str) -> list[list[str]]:
    (own,) = [block for block in found.blocks if isinstance(block, Table) and caption in block.caption]
    return [[cell.text for cell in row] for row in own.rows]


def test_without_an_attack_on_updates_there_is_no_section(findings: Json, a_finding: Make, no_finding: Make) -> None:
    assert updates(findings) == ()
    findings["findings"].append(no_finding("not_applicable", "sees none", channel="client_update", cut=None))
    assert updates(findings) == ()


def test_each_channel_has_its_strongest_attack_its_controls_and_how_the_others_ended(told: Json) -> None:
    rows = {row[1]: row for row in table(section(told), "each channel of updates")}
    assert set(rows) == {"client_update", "trunk_update"}
    assert rows["client_update"][:7] == [
        "items", "client_update", "50.0%", "lora_span", f"k={LAYERS}, m=0", "11.0%", "14.0%",
    ]  # fmt: skip
    assert rows["client_update"][7] == "lora_span measured; token_rows measured; dager not applicable"
    assert rows["trunk_update"][2:] == ["budget exhausted", "–", "–", "–", "–", "dager budget exhausted"]


def test_the_caption_says_how_a_round_was_trained_and_an_earlier_version_that_it_is_not_known(told: Json) -> None:
    (own,) = [block for block in section(told).blocks if isinstance(block, Table) and "each channel" in block.caption]
    for part in (
        "14 to 16 local steps (2 epochs, batches of 16) by adamw with learning rate 0.001", "LoRA of rank 8 on k_proj,",
        "with dropout 10.0%", "items by item_recall: true items among as many named",
    ):  # fmt: skip
        assert part in own.caption
    del told["run"]["training"]
    (own,) = [block for block in section(told).blocks if isinstance(block, Table) and "each channel" in block.caption]
    assert "did not write down" in own.caption


def test_rivals_stand_below_the_own_strategy(told: Json, a_finding: Make) -> None:
    for row in told["findings"]:
        row["strategy"] = "pplr"
    told["strategies"] = [of_update(a_finding, 1, 1, 0.7, strategy="fedavg")]
    rows = table(section(told), "each channel of updates")
    assert [row[:4] for row in rows if row[1] == "client_update"] == [
        ["items", "client_update", "pplr", "50.0%"], ["items", "client_update", "fedavg", "70.0%"],
    ]  # fmt: skip


def test_at_every_cut_activations_stand_beside_updates_and_unknown_is_no_zero(told: Json) -> None:
    found = section(told)
    rows = {row[0]: row for row in table(found, "every cut")}
    assert list(rows) == ["k=0, m=1", "k=1, m=1", f"k={LAYERS}, m=0"]
    assert rows["k=0, m=1"][1:4] == ["99.5%", "unknown", "22.0%"]
    assert rows["k=0, m=1"][5:] == ["history 100%; items 29.0%", "gradients"]
    assert rows[f"k={LAYERS}, m=0"][1:4] == ["nothing crosses", "nothing crosses", "50.0%"]
    assert rows[f"k={LAYERS}, m=0"][-2:] == ["items 57.0%", "nothing"]
    assert "0%" not in rows["k=0, m=1"][2]


def test_figures_of_two_secrets_are_said_not_to_be_comparable_and_those_of_one_to_be(
    told: Json, a_finding: Make
) -> None:
    texts = " ".join(block.text for block in section(told).blocks if isinstance(block, Text))
    assert "Figures of different secrets cannot be compared" in texts
    assert "the group has, and not who of them has which" in texts
    for client in told["run"]["clients"]:
        client["users"] = 1
    told["findings"] += [of_update(a_finding, k, 1, 0.8, channel="front_activations", attack="ridge") for k in (0, 1)]
    found = section(told)
    texts = " ".join(block.text for block in found.blocks if isinstance(block, Text))
    assert "All figures of items answer the same question by the same metric" not in texts  # serving tells of histories
    told["findings"] = [row for row in told["findings"] if row["channel"] != "inference_activations"]
    texts = " ".join(block.text for block in section(told).blocks if isinstance(block, Text))
    assert "All figures of items answer the same question by the same metric" in texts
    assert "Each client is one user here" in texts
    rows = {row[0]: row for row in table(section(told), "every cut")}
    assert rows["k=1, m=1"][-2] == "87.0%"


def test_pictures_have_a_line_of_bounds_and_say_their_numbers_in_words(told: Json) -> None:
    (figure,) = [block for block in section(told).blocks if isinstance(block, Figure)]
    titles = [chart.title for chart in figure.charts]
    assert titles == ["history against k, with m=1", "items against k, with m=1", "history against m, with k=1",
                      "items against m, with k=1"]  # fmt: skip
    items = figure.charts[1]
    assert "at k=0, m=1 updates 22.0%, upper bound 29.0%" in items.description
    kinds = [line.kind for line in items.lines]
    assert kinds.count("dotted") == 2  # with gradients unknown
    assert kinds.count("rule") == 1  # where nothing but updates crosses
    ticks = [label.text for label in items.labels if label.kind == "tick"]
    assert ticks[:3] == ["0", "1", "all"]


def test_every_format_has_it_and_markup_in_a_reason_is_text(told: Json, evidence: Json) -> None:
    validate(told)
    page, text = render_html(told, evidence), render_markdown(told, evidence)
    assert "What updates say" in page
    assert "What updates say" in text
    assert "too <b>many</b> tokens" not in page + text
    assert "too &lt;b&gt;many&lt;/b&gt; tokens" in page


def test_redacted_it_has_the_same_figures_and_settings_and_no_reason(told: Json, evidence: Json) -> None:
    told["run"]["training"] = {**RECIPE, "optimizer": "Ann's <own>"}
    bare, _ = redacted(told, evidence)
    validate(bare)
    assert bare["run"]["training"] == {**RECIPE, "optimizer": "[withheld]"}
    page = render_html(told, evidence, redact=True)
    assert "&lt;b&gt;many" not in page
    assert "Ann" not in page
    assert [row[2] for row in table(section(bare), "each channel of updates")] == ["50.0%", "budget exhausted"]


def test_a_sum_over_all_clients_does_not_speak_for_a_client(told: Json, a_finding: Make) -> None:
    """A sum holds nearly all items, so that a high share of them says nothing; it has a row of its own."""
    near: Json = {"comparisons": [comparison("reserve", 0.99)], "corrected": {"p": 0.5, "ci": [0.02, 1.0], "over": 9}}
    near["comparisons"][0]["p"] = 0.5
    for row in told["findings"]:
        if row["channel"] == "client_update" and row["status"] == "ok":
            row["corrected"] = {"p": 0.5, "ci": [0.02, 0.6], "over": 9}
    told["findings"].append(of_update(a_finding, 1, 1, 1.0, ci=[0.02, 1.0], n=1, channel="aggregate", **near))
    (sentence,) = [each.text for each in answer(told) if each.topic == "Reading a client's items"]
    assert "k=1 blocks in front and m=1 at the back, the cut that ran, the server has 41.0%" in sentence
    rows = {row[1]: row for row in table(section(told), "each channel of updates")}
    assert rows["aggregate"][2] == "100%"
    bound = {row[0]: row for row in table(section(told), "every cut")}["k=1, m=1"][-2]
    assert bound.endswith("items 60.0%")


def test_how_activations_and_updates_change_from_cut_to_cut_is_said_in_words(told: Json, no_finding: Make) -> None:
    words = " ".join(block.text for block in section(told).blocks if isinstance(block, Text))
    assert "Between k=0, m=1 and k=1, m=1: activations (history) from 99.5% to" in words
    assert "updates (items) from 22.0% to 41.0%" in words
    assert "; with no block left for the server, updates (items) 50.0%." in words
    gone = no_finding("failed", "why", channel="client_update", secret="items", metric="item_recall",
                      cut={"front": 0, "back": 1})  # fmt: skip
    told["findings"] = [row for row in told["findings"] if (row["channel"], row["value"]) != ("client_update", 0.22)]
    told["findings"].append(gone)
    words = " ".join(block.text for block in section(told).blocks if isinstance(block, Text))
    assert "updates (items) from unknown to 41.0%" in words

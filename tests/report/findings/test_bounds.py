"""The bound over all attacks at a cut: simultaneous, over every channel, and silent about what nobody attacked."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.findings.bounds import Column, along, audited, bounds, columns_of, questions
from tests.report.conftest import LAYERS

Json = dict[str, Any]
Make = Callable[..., Json]
SECRETS = ("history", "items")


def update(make: Make, k: int, m: int, value: float, high: float, **changes: Any) -> Json:
    """A finding of an update at one cut, with a simultaneous interval."""
    given: Json = {
        "attack": "lora_span", "channel": "client_update", "secret": "items", "metric": "item_recall",
        "cut": {"front": k, "back": m}, "value": value, "ci": [value - 0.02, value + 0.02],
        "corrected": {"p": 0.001, "ci": [value - 0.1, high], "over": 3},
    }  # fmt: skip
    return make(**{**given, **changes})


def activation(make: Make, k: int, value: float, high: float, **changes: Any) -> Json:
    corrected = {"p": 0.001, "ci": [value - 0.1, high], "over": 3}
    return make(cut={"front": k, "back": None}, value=value, corrected=corrected, **changes)


@pytest.fixture
def rows(a_finding: Make) -> list[Json]:
    """Activations at two depths, updates at three cuts, one of them without a trunk."""
    return [
        activation(a_finding, 0, 0.9, 0.97), activation(a_finding, 1, 0.6, 0.71),
        activation(a_finding, 1, 0.58, 0.75, attack="inverter"),
        update(a_finding, 0, 1, 0.1, 0.2), update(a_finding, 1, 1, 0.3, 0.45), update(a_finding, LAYERS, 0, 0.4, 0.55),
    ]  # fmt: skip


def test_the_bound_is_the_highest_end_of_all_attacks_and_not_that_of_the_strongest(rows: list[Json], run: Json) -> None:
    found = bounds(rows, columns_of(rows, SECRETS), audited(rows, LAYERS), run)
    assert sorted(found) == [(0, 1), (1, 1), (LAYERS, 0)]
    assert found[1, 1].highs == {("history", "item_hit@1"): 0.75, ("items", "item_recall"): 0.45}
    strongest = {column.kind: row["attack"] for column, row in found[1, 1].told.items() if row}
    assert strongest == {"activations": "ridge", "updates": "lora_span"}


def test_a_channel_without_a_value_is_unknown_and_one_that_does_not_cross_is_not(rows: list[Json], run: Json) -> None:
    columns = columns_of(rows, SECRETS)
    assert [column.kind for column in columns] == ["activations", "gradients", "updates"]
    found = bounds(rows, columns, audited(rows, LAYERS), run)
    assert found[1, 1].unknown == ("gradients",)
    assert found[LAYERS, 0].closed
    assert found[LAYERS, 0].unknown == ()
    assert found[LAYERS, 0].highs == {("items", "item_recall"): 0.55}


@pytest.mark.parametrize("status", ["failed", "budget_exhausted", "not_applicable", "skipped"])
def test_an_attack_that_ended_without_a_value_leaves_the_channel_unknown(
    rows: list[Json], run: Json, no_finding: Make, status: str
) -> None:
    rows[4] = no_finding(status, "why", **{name: rows[4][name] for name in ("cut", "channel", "secret", "metric")})
    found = bounds(rows, columns_of(rows, SECRETS), audited(rows, LAYERS), run)
    assert found[1, 1].unknown == ("gradients", "updates")
    assert ("items", "item_recall") not in found[1, 1].highs


def test_both_sides_are_told_by_the_secret_that_both_have_a_value_of(rows: list[Json], a_finding: Make) -> None:
    """As where each client is one user, whose sequence and whose update are asked the same."""
    both = [*rows, activation(a_finding, 1, 0.7, 0.8, secret="items", metric="item_recall")]
    units = {column.kind: column.unit for column in columns_of(both, SECRETS) if column.metric}
    assert units == {"activations": ("items", "item_recall"), "updates": ("items", "item_recall")}
    apart = {column.kind: column.unit for column in columns_of(rows, SECRETS) if column.metric}
    assert apart == {"activations": ("history", "item_hit@1"), "updates": ("items", "item_recall")}


def test_one_bound_holds_over_both_where_they_are_of_one_metric(rows: list[Json], run: Json, a_finding: Make) -> None:
    both = [*rows, activation(a_finding, 1, 0.7, 0.8, secret="items", metric="item_recall")]
    assert bounds(both, columns_of(both, SECRETS), audited(both, LAYERS), run)[1, 1].highs == {
        ("items", "item_recall"): 0.8
    }


def test_a_sum_over_all_clients_counts_only_where_no_update_of_a_client_was_attacked(
    rows: list[Json], run: Json, a_finding: Make
) -> None:
    whole = update(a_finding, 1, 1, 1.0, 1.0, channel="aggregate")
    ((_, own),) = questions([*rows, whole])
    assert bounds(own, columns_of(own, SECRETS), audited(own, LAYERS), run)[1, 1].highs["items", "item_recall"] == 0.45
    ((_, own),) = questions([row for row in [*rows, whole] if row["channel"] != "client_update"])
    assert bounds(own, columns_of(own, SECRETS), audited(own, LAYERS), run)[1, 1].highs["items", "item_recall"] == 1.0


def test_cuts_stand_in_a_line_with_the_other_side_as_it_ran_and_the_closed_one_last(
    rows: list[Json], run: Json
) -> None:
    found = bounds(rows, columns_of(rows, SECRETS), audited(rows, LAYERS), run)
    assert [each.cut for each in along(found, "front", run)] == [(0, 1), (1, 1), (LAYERS, 0)]
    assert [each.cut for each in along(found, "back", run)] == [(1, 1), (LAYERS, 0)]


def test_nobody_is_trained_on_what_a_trained_model_is_asked(a_finding: Make, no_finding: Make) -> None:
    label = {"secret": "label", "metric": "label_hit@1"}
    rows = [
        activation(a_finding, 1, 0.9, 0.97, **label),
        no_finding("not_applicable", "no label", channel="inference_activations", cut={"front": 1, "back": 1}, **label),
    ]
    assert [column.kind for column in columns_of(rows, ("label", "targets"))] == ["activations", "gradients", "updates"]


def test_each_attribute_is_told_by_itself(a_finding: Make) -> None:
    rows = [
        activation(a_finding, 1, 0.6, 0.7, secret="attribute", metric="auc", detail={"attribute": name})
        for name in ("age", "gender")
    ]
    told = [(secrets, [row["detail"]["attribute"] for row in own]) for secrets, own in questions(rows)]
    assert told == [(("attribute",), ["age"]), (("attribute",), ["gender"])]


def test_a_finding_of_an_earlier_version_has_its_own_interval(a_finding: Make, run: Json) -> None:
    rows = [a_finding(cut={"front": 1, "back": 1})]
    found = bounds(rows, [Column("activations", "history", "item_hit@1")], audited(rows, LAYERS), run)
    assert found[1, 1].highs == {("history", "item_hit@1"): 0.95}


@pytest.fixture
def run(findings: Json) -> Json:
    return dict(findings["run"])

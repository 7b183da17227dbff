"""The map of leakage over (k, m): one square a cut, shaded and named after the finding that speaks for it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.blocks.chart import Chart
from pplr_audit.report.charts.cut_map import cut_map, shade_range
from pplr_audit.report.findings.by_cut import speakers

Json = dict[str, Any]
Make = Callable[..., Json]


def drawn(rows: list[Json], layers: int = 3, ran: tuple[int, int] = (1, 0)) -> Chart:
    run = {"layers": layers, "cut": {"front": ran[0], "back": ran[1]}}
    metric = rows[0]["metric"]
    return cut_map("Training", "sub", metric, speakers(rows, layers), run, shade_range(metric, rows))


def corners(path: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)", path)]


def valued(a_finding: Make, front: int | None, back: int | None, value: float, **more: Any) -> Json:
    ci = [value - 0.01, value + 0.01]
    return a_finding(cut={"front": front, "back": back}, **{"value": value, "ci": ci, "baseline": 0.0, **more})


def test_a_finding_in_front_fills_a_column_and_one_behind_a_row(a_finding: Make) -> None:
    chart = drawn([valued(a_finding, 1, None, 0.9), valued(a_finding, None, 0, 0.4)])
    column, row = sorted(chart.areas, key=lambda path: path.kind, reverse=True)
    assert (column.kind, row.kind) == ("heat h9", "heat h4")
    at_column, at_row = corners(column.d), corners(row.d)
    assert len(at_column) == 2
    assert len({x for x, _ in at_column}) == 1
    assert len(at_row) == 2
    assert len({y for _, y in at_row}) == 1
    # m grows upwards, k to the right: the row stands at the foot, left and right of the column
    assert max(y for _, y in at_column) == at_row[0][1]
    assert at_row[0][0] < at_column[0][0] < at_row[1][0]
    squares = [label.text for label in chart.labels if label.kind == "square"]
    assert sorted(squares) == ["40%", "40%", "90%", "90%"]


def test_a_square_says_which_attack_on_what_and_what_it_knew(a_finding: Make) -> None:
    row = valued(a_finding, 1, None, 0.9, attack="inverter", knowledge="auxiliary", detail={"settings": {"layers": 2}})
    (path,) = drawn([row]).areas
    assert path.tip == (
        "k=1: 90.0% [89.0%, 91.0%], baseline 0%; inverter (layers=2) on front_activations by server, knowing auxiliary"
    )


def test_where_no_block_is_left_a_stroke_says_that_nothing_crosses(a_finding: Make) -> None:
    rows = [valued(a_finding, k, None, 0.9) for k in range(3)]
    closed = [path for path in drawn(rows).lines if path.kind == "closed"]
    assert [path.tip.split(":")[0] for path in closed] == ["k=0, m=3", "k=1, m=2", "k=2, m=1", "k=3, m=0"]
    update = valued(a_finding, None, None, 0.5, channel="client_update")
    chart = drawn([*rows, {**update, "cut": None}])
    assert not [path for path in chart.lines if path.kind == "closed"]
    assert len([label for label in chart.labels if label.text == "50%"]) == 4


def test_the_cut_that_ran_is_framed(a_finding: Make) -> None:
    chart = drawn([valued(a_finding, 1, None, 0.9)], ran=(1, 1))
    (frame,) = [path for path in chart.lines if path.kind == "ran"]
    assert corners(frame.d)[0] in corners(chart.areas[0].d)


def test_what_was_tried_is_a_cross_and_what_was_not_is_empty(a_finding: Make, no_finding: Make) -> None:
    failed = no_finding("failed", "out of memory", cut={"front": 2, "back": None})
    chart = drawn([valued(a_finding, 0, None, 0.9), failed])
    assert [mark.tip for mark in chart.marks] == ["k=2, m=0: failed. out of memory"]
    assert "no value, see the table" in [entry.label for entry in chart.legend]
    assert len(corners(chart.grid[0])) == 3 + 1


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "100%"), (0.997, ">99%"), (0.001, "<1%"), (0.0, "≈0%"), (0.494, "49%")]
)
def test_a_number_is_never_rounded_to_all_or_nothing(a_finding: Make, value: float, text: str) -> None:
    low = max(0.0, value - 0.0005)
    row = valued(a_finding, 0, None, value, ci=[low, value])
    assert {label.text for label in drawn([row]).labels if label.kind == "square"} == {text}


def test_a_value_at_its_baseline_is_marked(a_finding: Make) -> None:
    row = valued(a_finding, 0, None, 0.2, ci=[0.1, 0.3], baseline=0.2)
    assert {label.text for label in drawn([row]).labels if label.kind == "square"} == {"≈20%"}


@pytest.mark.parametrize(
    ("metric", "values", "shades"),
    [
        ("item_hit@1", [0.2, 0.3], ["heat h2", "heat h3"]),
        ("mrr", [0.5, 1.0], ["heat h5", "heat h10"]),
        ("auc", [0.5, 0.75], ["heat h0", "heat h5"]),
        ("epsilon_lower", [0.0, 4.0], ["heat h0", "heat h10"]),
        ("epsilon_lower", [0.0, 0.0], ["heat h0", "heat h0"]),
    ],
)
def test_shades_run_over_what_the_metric_can_be(
    a_finding: Make, metric: str, values: list[float], shades: list[str]
) -> None:
    rows = [valued(a_finding, k, None, value, metric=metric) for k, value in enumerate(values)]
    assert [path.kind for path in drawn(rows).areas] == shades


def test_a_deep_model_has_no_numbers_and_one_bar_a_column(a_finding: Make) -> None:
    chart = drawn([valued(a_finding, k, None, 0.5) for k in range(48)], layers=48)
    assert not [label for label in chart.labels if label.kind == "square"]
    assert all(len(corners(path.d)) == 1 for path in chart.areas)
    assert chart.width < 520
    assert len([label for label in chart.labels if label.kind == "tick"]) < 30


def test_the_picture_says_its_ends_in_words(a_finding: Make) -> None:
    chart = drawn([valued(a_finding, 0, None, 0.9), valued(a_finding, 1, None, 0.4)])
    assert "most at k=0, m=0 to 2: 90.0% [89.0%, 91.0%]" in chart.description
    assert "least at k=1, m=0 to 1: 40.0%" in chart.description
    same = drawn([valued(a_finding, k, None, 0.9) for k in range(3)])
    assert "at every cut that has a value 90.0%" in same.description


def test_a_long_name_stays_inside_the_picture(a_finding: Make) -> None:
    run = {"layers": 3, "cut": {"front": 0, "back": 0}}
    rows = [valued(a_finding, 0, None, 0.9)]
    chart = cut_map("a" * 300, "b" * 300, "item_hit@1", speakers(rows, 3), run, (0.0, 1.0))
    assert chart.title.endswith("…")
    assert len(chart.title) < 40
    assert len(chart.subtitle) < 45

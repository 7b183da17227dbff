"""Which finding speaks for a cut: the strongest of all channels, wherever the other side is that it does not need."""

from collections.abc import Callable
from typing import Any

import pytest

from pplr_audit.report.findings.by_cut import (
    is_closed,
    measured,
    rows_at,
    sides_of,
    speaker,
    speakers,
    speakers_along,
)

Json = dict[str, Any]
Make = Callable[..., Json]
RUN = {"layers": 5, "cut": {"front": 1, "back": 1}}


def cut(front: int | None, back: int | None) -> Json:
    return {"front": front, "back": back}


def test_a_finding_of_one_side_speaks_at_every_depth_of_the_other(a_finding: Make) -> None:
    front, back = a_finding(cut=cut(2, None)), a_finding(cut=cut(None, 1))
    assert set(speakers([front], 5)) == {(2, 0), (2, 1), (2, 2)}
    assert set(speakers([back], 5)) == {(0, 1), (1, 1), (2, 1), (3, 1)}
    assert set(speakers([a_finding(cut=cut(2, 1))], 5)) == {(2, 1)}


def test_the_strongest_of_all_channels_speaks(a_finding: Make) -> None:
    front = a_finding(cut=cut(2, None), value=0.5, ci=[0.4, 0.6])
    back = a_finding(cut=cut(None, 1), value=0.8, ci=[0.7, 0.9])
    both = a_finding(cut=cut(2, 1), value=0.9, ci=[0.8, 1.0])
    told = speakers([front, back, both], 5)
    assert (told[2, 1], told[1, 1], told[2, 0]) == (both, back, front)
    assert told[2, 0] is front
    assert (0, 0) not in told


def test_a_sum_of_updates_speaks_only_where_single_updates_do_not(a_finding: Make) -> None:
    told = {"cut": cut(2, 1), "attack": "update_label", "secret": "targets", "metric": "item_recall"}
    single = a_finding(**told, channel="client_update", value=0.7, ci=[0.65, 0.75])
    summed = a_finding(**told, channel="aggregate", value=0.98, ci=[0.02, 1.0])
    assert speaker([single, summed], (2, 1), 5) is single
    assert rows_at([single, summed], (2, 1), 5) == [single]
    assert speaker([summed], (2, 1), 5) is summed
    other = {**summed, "defense": "summed"}
    assert rows_at([single, other], (2, 1), 5) == [single, other]


def test_of_what_is_not_above_its_baseline_the_one_furthest_from_it_speaks(a_finding: Make) -> None:
    at_chance = a_finding(cut=cut(2, None), value=0.9, ci=[0.7, 0.95], baseline=0.9)
    near = a_finding(cut=cut(2, 1), value=0.6, ci=[0.4, 0.7], baseline=0.5)
    assert speaker([at_chance, near], (2, 1), 5) is near


def test_what_needs_no_cut_speaks_at_cuts_that_were_audited(a_finding: Make) -> None:
    anywhere = a_finding(cut=None, channel="metadata", attack="length", value=0.2, ci=[0.1, 0.3])
    assert speakers([anywhere], 5) == {}
    weak = a_finding(cut=cut(2, None), value=0.1, ci=[0.05, 0.15])
    assert speakers([anywhere, weak], 5) == {(2, 0): anywhere, (2, 1): anywhere, (2, 2): anywhere}


def test_a_depth_audited_only_without_a_trunk_is_told_without_one(a_finding: Make, no_finding: Make) -> None:
    closed = no_finding("not_applicable", "nothing crosses", cut=cut(4, 1))
    rows = [a_finding(cut=cut(2, None)), closed, a_finding(cut=None, channel="metadata")]
    assert list(speakers_along(rows, "front", RUN)) == [(2, 1), (4, 1)]
    assert speakers_along(rows, "front", RUN)[4, 1] is closed


def test_a_value_at_its_baseline_does_not_outrank_one_above_its_own(a_finding: Make) -> None:
    near = a_finding(cut=cut(2, None), value=0.5, ci=[0.4, 0.6], baseline=0.5)
    leak = a_finding(cut=cut(None, 1), value=0.3, ci=[0.2, 0.4])
    assert speaker([near, leak], (2, 1), 5) is leak


def test_without_a_trunk_only_what_crosses_all_the_same_speaks(a_finding: Make, no_finding: Make) -> None:
    front = a_finding(cut=cut(4, None))
    assert speaker([front], (4, 1), 5) is None
    update = a_finding(cut=None, channel="client_update")
    assert speaker([front, update], (4, 1), 5) is update
    closed = no_finding("not_applicable", "nothing crosses", cut=cut(4, 1))
    assert speaker([front, closed], (4, 1), 5) is closed
    assert speaker([front, closed], (4, 0), 5) is front
    assert speaker([a_finding(cut=None, channel="metadata")], (5, 0), 5) is None


def test_what_was_tried_speaks_only_where_nothing_has_a_value(a_finding: Make, no_finding: Make) -> None:
    failed = no_finding("failed", "out of memory", cut=cut(2, None))
    back = a_finding(cut=cut(None, 1))
    told = speakers([failed, back], 5)
    assert told[2, 1] is back
    assert told[2, 0] is failed
    assert (2, 0) not in measured(told)
    assert speakers([no_finding("not_applicable", "sees none of it", cut=None)], 5) == {}


def test_along_a_side_the_other_is_as_it_ran(a_finding: Make) -> None:
    rows = [
        a_finding(cut=cut(k, m), value=v, ci=[v, v]) for k, m, v in ((0, 1, 0.9), (0, 2, 0.8), (3, 1, 0.7), (4, 0, 0.6))
    ]
    assert {at: row["value"] for at, row in speakers_along(rows, "front", RUN).items()} == {(0, 1): 0.9, (3, 1): 0.7}
    assert {at: row["value"] for at, row in speakers_along(rows, "back", RUN).items()} == {(0, 1): 0.9, (0, 2): 0.8}
    other = {**RUN, "cut": cut(0, 3)}
    assert list(speakers_along(rows, "front", other)) == [(0, 2)]


def test_a_side_that_alone_matters_is_told_down_to_the_last_block(a_finding: Make, no_finding: Make) -> None:
    rows = [a_finding(cut=cut(k, None)) for k in range(5)]
    rows.append(no_finding("not_applicable", "nothing crosses", cut=cut(5, 0)))
    found = speakers_along(rows, "front", RUN)
    assert list(found) == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 0), (5, 0)]
    assert list(measured(found)) == [*found][:-1]
    assert speakers_along(rows, "back", RUN) == {}


@pytest.mark.parametrize(
    ("cuts", "sides"),
    [
        ([cut(1, None), cut(5, 0)], ["front"]),
        ([cut(None, 1), cut(5, 0)], ["back"]),
        ([cut(1, None), cut(None, 1)], ["front", "back"]),
        ([cut(2, 1)], ["front", "back"]),
        ([cut(5, 0)], ["front", "back"]),
        ([None], []),
    ],
)
def test_the_sides_that_matter_are_those_of_cuts_with_a_trunk(
    a_finding: Make, cuts: list[Json | None], sides: list[str]
) -> None:
    assert sides_of([a_finding(cut=each) for each in cuts], 5) == sides


def test_a_cut_that_leaves_no_block_is_closed() -> None:
    assert is_closed(cut(3, 2), 5)
    assert not is_closed(cut(3, 1), 5)
    assert not is_closed(cut(5, None), 5)

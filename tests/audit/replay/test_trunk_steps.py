"""The server's record of single steps as a view: at every cut, on users of the reserve, and dealt to other clients."""

from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.replay import rounds
from pplr_audit.audit.replay.rounds import RoundViews
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.view import Update, View
from pplr_audit.training.rounds import RoundState
from tests.audit.replay.test_rounds import Reader, cell, trained

STEPS = 3


class Stepping(Reader):
    """The question of an attack on single steps."""

    local_steps = STEPS


@pytest.fixture(scope="module")
def shallow(small_scenario: scenario.Scenario) -> tuple[RoundViews, list[Crossing], list[RoundState]]:
    return trained(small_scenario, (1, 1))


def seen(views: RoundViews, cut: tuple[int, int], secret: str = "items") -> View[Update]:
    return views.view(cell(Channel.TRUNK_UPDATE, cut, "trunk_host"), Stepping(secret))  # type: ignore[return-value]


@pytest.mark.parametrize("cut", [(0, 0), (1, 1), (2, 0)])
def test_each_client_has_a_row_with_an_update_for_each_step_of_the_blocks_of_the_trunk(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]], cut: tuple[int, int]
) -> None:
    views, _, states = shallow
    view, held = seen(views, cut), views._job.model.whole.held_by_client(*cut)
    assert [(each.row, each.step) for each in view.records] == [
        (row, step) for row in sorted(view.asked) for step in range(STEPS)
    ]
    for each in view.records:
        assert each.client == view.asked[each.row]
        assert each.tensors.keys() == states[0].adapters[each.client].keys() - held
        assert each.start.keys() == each.tensors.keys(), "the host has its own part of the model"
        assert any(bool(value.any()) for value in each.tensors.values())
    hidden = seen(views, cut, "owner")
    assert {each.client for each in hidden.records} == {""}


def test_an_attack_on_the_round_still_gets_what_the_round_changed(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]],
) -> None:
    view = shallow[0].view(cell(Channel.TRUNK_UPDATE, (1, 1), "trunk_host"), Reader("items"))
    assert {each.step for each in view.records} == {-1}
    crossing = shallow[0].view(cell(Channel.CLIENT_UPDATE, (1, 1)), Stepping("items"))
    assert {each.step for each in crossing.records} == {-1}, "a client's own steps never cross"


def test_the_reserve_has_steps_of_its_own(shallow: tuple[RoundViews, list[Crossing], list[RoundState]]) -> None:
    views, _, _ = shallow
    own = seen(views, (1, 1))
    others: Any = views.reserve_view(cell(Channel.TRUNK_UPDATE, (1, 1), "trunk_host"), Stepping("items"))
    assert [(each.row, each.step) for each in others.records] == [(each.row, each.step) for each in own.records]
    for mine, other in zip(own.records, others.records, strict=True):
        assert any(not torch.equal(value, other.tensors[name]) for name, value in mine.tensors.items())


def test_the_control_deals_all_steps_of_a_client_to_one_other(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]],
) -> None:
    view = seen(shallow[0], (1, 1))
    dealt = view.shuffled(np.random.default_rng(0))
    owner = {id(each.tensors): (each.row, each.step) for each in view.records}
    sources: dict[int, set[int]] = {}
    for each in dealt.records:
        row, step = owner[id(each.tensors)]
        assert step == each.step
        sources.setdefault(each.row, set()).add(row)
    assert all(len(rows) == 1 for rows in sources.values()), "from one other client"
    assert all(row not in rows for row, rows in sources.items())
    assert {row for rows in sources.values() for row in rows} == set(sources)


def test_fewer_steps_are_held_where_they_are_large(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = shallow[0]
    views._steps.cache_clear()
    monkeypatch.setattr(rounds, "MOST", 1)
    assert {each.step for each in seen(views, (1, 1)).records} == {0}
    views._steps.cache_clear()

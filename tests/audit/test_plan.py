"""Plans: which cells an audit has, which cannot apply, and what each adversary knows in them."""

import pytest

from pplr_audit import scenario
from pplr_audit.audit.plan import make_plan
from pplr_audit.errors import InputError
from pplr_audit.threat_model.channels import Channel


def test_every_cut_with_a_trunk_is_planned_once_a_front(small_scenario: scenario.Scenario) -> None:
    cuts = small_scenario.model_copy(
        update={"audit": small_scenario.audit.model_copy(update={"cuts": ((1, 1), (1, 0), (2, 1))})}
    )
    plan = make_plan(cuts, 3)
    fronts = [cell.front for cell in plan.cells if cell.channel == Channel.FRONT_ACTIVATIONS]
    assert fronts == [1]
    closed = {(cell.front, cell.back) for cell, why in plan.impossible if "nothing crosses here" in why}
    assert closed == {(2, 1)}
    assert any("sees none of the channels" in why for _, why in plan.impossible)


def test_trunk_hosts_do_not_know_the_fronts_that_only_the_aggregator_is_sent(small_scenario: scenario.Scenario) -> None:
    both = small_scenario.model_copy(
        update={"audit": small_scenario.audit.model_copy(update={"adversaries": ("server", "trunk_host")})}
    )
    known = {cell.adversary: cell.knowledge for cell in make_plan(both, 3).cells if cell.attack == "ridge"}
    assert known == {"server": "front", "trunk_host": "base"}


def test_an_attack_with_unknown_settings_is_refused(small_scenario: scenario.Scenario) -> None:
    audit = small_scenario.audit.model_copy(update={"attacks": ({"loss": {"k": 3}},)})
    with pytest.raises(InputError, match=r"audit\.attacks: loss: unknown setting 'k'"):
        make_plan(small_scenario.model_copy(update={"audit": audit}), 3)

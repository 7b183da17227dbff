"""Gradients of single steps: what the server of each cut records, the same whatever the cut that ran."""

from typing import Any

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.rounds import Federation, train
from pplr_audit.training.side_by_side import allowed
from pplr_audit.training.steps import gradients_of
from tests.audit.knowledge.test_build import federated

STEPS = 3


def federation_at(setting: scenario.Scenario, cut: tuple[int, int]) -> Federation:
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=cut[0], back=cut[1])})
    setting = setting.model_copy(update={"model": chosen})
    private = prepare(setting.data, setting.seed)
    model = build(setting.model, private.dataset.catalogue, history=3, seed=setting.seed)
    return federated(setting, private, model)


@pytest.fixture(scope="module", params=["bigrec", "recformer"])
def setting(
    request: pytest.FixtureRequest, small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario
) -> scenario.Scenario:
    return small_scenario if request.param == "bigrec" else recformer_scenario


def everyone(federation: Federation) -> list[str]:
    return [client.name for client in federation.clients]


def recorded(federation: Federation) -> list[Crossing]:
    """What the server's own recorder has of the first steps of a round that is trained."""
    found = list[Crossing]()

    def record(crossing: Crossing) -> None:
        if crossing.channel == Channel.TRUNK_UPDATE and 0 <= crossing.step < STEPS:
            found.append(crossing)

    federation.link.recorder, federation.server.detailed = record, True
    with allowed(1):
        train(federation, 1, done=lambda log, state: None)
    return found


def test_steps_are_those_that_the_server_of_each_cut_records_while_it_trains(setting: scenario.Scenario) -> None:
    federation = federation_at(setting, (1, 1))
    start = federation.state(1)
    taken = {
        (each.client, each.step): each.tensors
        for each in gradients_of(federation, start, STEPS, everyone(federation), lambda name: True)
    }
    assert {step for _, step in taken} == set(range(STEPS))
    assert not federation.server.detailed, "as it was before"
    for cut in ((0, 0), (1, 1), (2, 0)):
        live = recorded(federation_at(setting, cut))
        assert {(each.client, each.step) for each in live} == taken.keys()
        for each in live:
            for name, value in each.tensors.items():
                assert torch.equal(taken[each.client, each.step][name], value), (cut, name)


def test_no_more_steps_run_than_are_asked_for_and_no_other_tensor_is_kept(setting: scenario.Scenario) -> None:
    federation = federation_at(setting, (1, 1))
    start, client = federation.state(1), federation.clients[0]
    begun, before = list[int](), type(client)._prompts

    def counted(self: Any, rows: Any) -> Any:
        begun.append(len(rows))
        return before(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(client), "_prompts", counted)
        found = gradients_of(federation, start, 1, everyone(federation)[1:], lambda name: "lora_B" in name)
    assert len(begun) == len(federation.clients) - 1
    assert [(each.client, each.step) for each in found] == [(name, 0) for name in everyone(federation)[1:]]
    assert all("lora_B" in name for each in found for name in each.tensors)

"""A client that an adversary simulates sends what the client itself sends."""

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.knowledge.recipe import local_steps, recipe
from pplr_audit.data.prepare import prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.crossings import crossings_of
from tests.audit.knowledge.test_build import federated


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_simulated_client_sends_the_clients_own_update(small_scenario: scenario.Scenario, optimizer: str) -> None:
    training = small_scenario.training.model_copy(
        update={"optimizer": optimizer, "schedule": "linear", "weight_decay": 0.1, "rounds": 1}
    )
    setting = small_scenario.model_copy(update={"training": training})
    private = prepare(setting.data, setting.seed)
    model = build(setting.model, private.dataset.catalogue, history=3, seed=setting.seed)
    federation = federated(setting, private, model)
    client, start = federation.clients[0], federation.state(1)
    sent: dict[str, torch.Tensor] = {}
    for each in crossings_of(federation, start):
        if each.client == client.name and each.channel in (Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE):
            sent |= each.tensors
    samples, steps = private.samples[client.name], local_steps(len(private.samples[client.name]), training, 1)
    batches = [
        [model.prompts.build(samples.history[row], int(samples.targets[row])) for row in rows]
        for rows in client.plan(1)
    ]
    known = KnownModel(model.whole, start.adapters[client.name])
    found = known.trained(batches, recipe(training), steps.factors)
    assert found.keys() == sent.keys()
    for name, value in sent.items():
        assert torch.allclose(found[name], value, atol=2e-5), name
        assert bool(value.any()) or ".lora_A." in name
    assert torch.equal(known.adapter[name], start.adapters[client.name][name]), "left as it was"


def test_steps_of_earlier_rounds_are_no_part_of_the_update(small_scenario: scenario.Scenario) -> None:
    private = prepare(small_scenario.data, small_scenario.seed)
    model = build(small_scenario.model, private.dataset.catalogue, history=3, seed=small_scenario.seed)
    known, by = KnownModel(model.whole, None), recipe(small_scenario.training)
    drawn = np.random.default_rng(0)
    batches = [[model.prompts.random(3, drawn)] for _ in range(3)]
    before, whole = known.trained(batches[:2], by, [1.0] * 2), known.trained(batches, by, [1.0] * 3)
    last = known.trained(batches, by, [1.0] * 3, 2)
    for name, value in last.items():
        assert torch.allclose(value, whole[name] - before[name], atol=1e-6), name
    assert any(bool(value.any()) for value in last.values())

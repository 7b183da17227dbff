"""trunk_steps: items from gradients of single steps, more than from the round, and nothing that activations lack."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.attacks.update.trunk_steps import TrunkSteps
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model import Budget, Channel, NotApplicable, Update, View
from pplr_audit.threat_model.channels import Crossing
from pplr_audit.threat_model.outcomes import BudgetExhausted
from pplr_audit.training.steps import gradients_of
from tests.attacks.update.clients import Clients, moved
from tests.attacks.update.test_lora_span import ADAMW, item_recall, users, wide  # noqa: F401
from tests.training.test_steps import everyone, federation_at

SAMPLES = 2


def steps_of(clients: Clients) -> View[Update]:
    """What the host of all blocks records: the gradient of each batch, along a round."""
    records = []
    for row, (client, batches) in enumerate(clients.batches.items()):
        for step, batch in enumerate(batches):
            gradients = clients.known.gradients(batch)
            records.append(Update(row, client, 1, gradients, clients.start, step))
    return View("trunk_host", Channel.TRUNK_UPDATE, 0, 0, "none", tuple(records))


def attack() -> TrunkSteps:
    return TrunkSteps(steps=SAMPLES, shortlist=24, iterations=20)


def test_single_steps_name_more_of_a_clients_items_than_its_round_of_adamw_and_none_of_anothers(
    wide: Recommender,  # noqa: F811
) -> None:
    clients = replace(users(wide, count=2, samples=SAMPLES), recipe=ADAMW, start=moved(wide))
    view, knowledge = steps_of(clients), clients.knowledge()
    guess = attack().run(view, knowledge, Budget(300))
    found = item_recall(guess, clients)
    of_round = item_recall(LoraSpan(shortlist=24, iterations=20).run(clients.view(), knowledge, Budget(300)), clients)
    dealt = item_recall(attack().run(view.shuffled(np.random.default_rng(1)), knowledge, Budget(300)), clients)
    assert found > of_round
    assert found > 0.5
    assert dealt < 0.6 * found
    assert guess.facts["steps"] == [SAMPLES, SAMPLES]
    assert "activations" in guess.facts["adds"]


def test_what_the_host_computes_follows_from_what_crosses_so_it_adds_nothing_to_it(
    small_scenario: scenario.Scenario,
) -> None:
    federation = federation_at(small_scenario, (1, 1))
    state, client = federation.state(1), federation.clients[0]
    crossed: dict[Channel, Crossing] = {}

    def record(crossing: Crossing) -> None:
        if crossing.step == 0:
            crossed.setdefault(crossing.channel, crossing)

    federation.link.recorder = record
    client.train_round(federation.link, 1)
    federation.link.recorder = None
    (own,) = gradients_of(federation, state, 1, [client.name], lambda name: ".layers.1." in name)
    again = federation_at(small_scenario, (1, 1)).server  # which never sees a client
    again.detailed = True
    again.start_round(client.name, 1)
    hidden, mask = crossed[Channel.FRONT_ACTIVATIONS].tensors["hidden"], crossed[Channel.METADATA].tensors["mask"]
    again.forward(client.name, 0, hidden, mask.long())
    again.backward(crossed[Channel.BACK_GRADIENTS].tensors["gradient"])
    computed = again.finish_step()
    assert computed.keys() == own.tensors.keys()
    assert all(torch.equal(value, own.tensors[name]) for name, value in computed.items())
    assert everyone(federation)[0] == client.name


def test_without_steps_it_does_not_apply_and_too_little_time_is_told(wide: Recommender) -> None:  # noqa: F811
    clients = users(wide, count=2)
    round_ = replace(clients.view(), channel=Channel.TRUNK_UPDATE)
    with pytest.raises(NotApplicable, match="no gradient of a single step was recorded"):
        attack().run(round_, clients.knowledge(), Budget(300))
    with pytest.raises(BudgetExhausted):
        attack().run(steps_of(clients), clients.knowledge(), Budget(-1))
    with pytest.raises(InputError, match="trunk_steps: steps is 0"):
        TrunkSteps(steps=0)


def test_a_batch_of_more_words_than_the_layer_is_wide_is_told_with_the_numbers(
    small_scenario: scenario.Scenario, model: Recommender
) -> None:
    """Layers of the small models are narrower than one prompt has words."""
    clients = replace(users(model, count=2), start=moved(model))
    with pytest.raises(NotApplicable, match=r"different inputs enter .* in 1 sample, and its updates have 32 dimens"):
        attack().run(steps_of(clients), clients.knowledge(), Budget(300))


@pytest.mark.parametrize("wide", ["bigrec"], indirect=True)
def test_an_audit_reads_the_clients_items_from_steps_and_fewer_where_they_trained_on_the_reserve(
    small_scenario: scenario.Scenario,
    wide: Recommender,  # noqa: F811
    tmp_path: Path,
) -> None:
    changed = small_scenario.model_dump()
    changed["data"] |= {"users": 40, "audit_users": 20, "clients": 3, "reserve": 0.4}
    changed["data"]["market"] |= {"users": 60}
    changed["model"] |= {"backbone": wide.backbone, "lora": {"rank": 4, "targets": ["q_proj", "k_proj", "v_proj"]}}
    changed["training"] |= {"batch_size": 1}
    changed["audit"] |= {
        "attacks": [{"trunk_steps": {"steps": 4, "shortlist": 24, "iterations": 20}}], "cuts": [[0, 0]],
        "adversaries": ["trunk_host"],
    }  # fmt: skip
    document = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run").document
    found = {row["metric"]: row for row in document["findings"]}
    items = found["item_recall"]
    against = {each["name"]: each["value"] for each in items["comparisons"]}
    assert against.keys() == {"popularity", "control", "reserve"}
    assert items["value"] > 0.7 > 0.5 > max(against.values())
    assert items["detail"]["steps"] == [4, 4]
    assert found["token_ap"]["value"] > 0.9

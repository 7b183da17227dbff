"""A sample crosses once an epoch: attacks that say so are given all of its crossings, all others the first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.audit.plan import make_plan
from pplr_audit.data.prepare import prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record, View
from pplr_audit.training.rounds import train
from tests.audit.knowledge.test_build import changed, exposed, federated
from tests.conftest import LAYERS

EPOCHS = 3


def test_all_crossings_of_a_row_are_recorded_for_who_asks_and_the_best_explained_is_read(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrefixSearch, "every_crossing", False)  # as an attack that does not ask
    asked = [{"ridge": {"prompts": 32, "held_out": 4}}, {"prefix_search": {"prompts": 8, "held_out": 4}}, "label_match"]
    setting = changed(small_scenario, training={"local_epochs": EPOCHS}, attacks=asked, victims=6)
    private = prepare(setting.data, setting.seed)
    model = build(setting.model, private.dataset.catalogue, history=3, seed=setting.seed)
    federation = federated(setting, private, model)
    states = [federation.state(1)]
    train(federation, 1, done=lambda log, state: states.append(state))
    harness = exposed(setting, private, model, states, tmp_path)
    cells = {(c.attack, c.channel): c for c in make_plan(setting, LAYERS).cells if c.front == 1 or c.back == 1}
    every = harness.view(cells["ridge", Channel.FRONT_ACTIVATIONS])
    first = harness.view(cells["prefix_search", Channel.FRONT_ACTIVATIONS])
    assert len(every.records) == EPOCHS * len(first.records)
    by_row: dict[int, list[Record]] = {}
    for record in every.records:
        by_row.setdefault(record.row, []).append(record)
    for record in first.records:
        own = by_row[record.row]
        assert [each.occurrence for each in own] == [0, 1, 2]
        assert [each.step for each in own] == sorted(each.step for each in own)
        assert len({each.step for each in own}) == EPOCHS
        assert torch.equal(own[0].tensor, record.tensor)
        assert not torch.equal(own[0].tensor, own[1].tensor), "the model has moved on"
    gradients = harness.view(cells["label_match", Channel.BACK_GRADIENTS])
    assert len(gradients.records) == EPOCHS * len(first.records)
    sent = [record.also_reads[Channel.TRUNK_ACTIVATIONS] for record in gradients.records if record.row == 0]
    assert len(sent) == EPOCHS
    assert not torch.equal(sent[0], sent[1]), "each with what crossed beside it"
    (knowledge,) = harness.knowledge(cells["ridge", Channel.FRONT_ACTIVATIONS])
    guess = Ridge(prompts=32, held_out=4).run(every, knowledge, Budget(60))
    assert sorted(guess.arrays["rows"].tolist()) == sorted(by_row), "one answer a row"
    assert sum(guess.facts["crossings_taken"].values()) == len(by_row)
    # The start of the round explains the first crossing best; a later one is taken where the first is spoiled.
    assert guess.facts["crossings_taken"] == {"0": len(by_row)}
    noise = torch.Generator().manual_seed(0)
    spoiled = tuple(
        each if each.occurrence else replace(each, tensor=torch.randn(each.tensor.shape, generator=noise))
        for each in every.records
    )
    again = Ridge(prompts=32, held_out=4).run(replace(every, records=spoiled), knowledge, Budget(60))
    assert "0" not in again.facts["crossings_taken"]


@pytest.mark.parametrize("seed", range(5))
def test_the_control_deals_all_crossings_of_a_row_to_the_same_other(seed: int) -> None:
    def record(row: int, occurrence: int) -> Record:
        return Record(row, "a", 1, occurrence, torch.full((1, 1), float(row)), occurrence=occurrence)

    rows = [record(row, occurrence) for occurrence in range(3) for row in range(5) if occurrence == 0 or row != 4]
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", tuple(rows))
    dealt = view.shuffled(np.random.default_rng(seed))
    sources: dict[int, set[float]] = {}
    for each in dealt.records:
        assert float(each.tensor) != each.row, "nobody keeps their own"
        sources.setdefault(each.row, set()).add(float(each.tensor))
    assert sorted(sources) == [0, 1, 2, 3, 4]
    assert all(len(found) == 1 for found in sources.values())

"""A replayed round of RecFormer equals what a live link recorded, with the item table encoded in between."""

from collections import Counter

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.channels import Channel, Crossing
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import serving_samples
from pplr_audit.runs.replay import Watched, serving_records, training_records
from tests.conftest import LAYERS
from tests.pplr.recformers import finish, start

REFRESHES = {"refresh_rounds": 9, "refresh_steps": 2}


@pytest.fixture(scope="module")
def private(recformer_scenario: scenario.Scenario) -> PrivateData:
    return prepare(recformer_scenario.data, recformer_scenario.seed)


@pytest.mark.parametrize("train", ["embeddings", "all"])
@pytest.mark.parametrize("front", [0, 1, 2])
def test_a_replayed_round_yields_what_a_live_link_recorded_at_another_cut(
    recformer_scenario: scenario.Scenario, private: PrivateData, front: int, train: str
) -> None:
    live: list[Crossing] = []
    _, federation = start(
        recformer_scenario, private, front, 0, recorder=live.append, train=train, **REFRESHES
    )  # fmt: skip
    finish(federation, 2)
    kinds = Counter(c.channel for c in live)
    assert kinds[Channel.INFERENCE_ACTIVATIONS] > len(federation.clients), "tables were encoded between the steps"
    # k + m = L: this one has no link at all.
    model, replayed = start(recformer_scenario, private, 1, 2, train=train, **REFRESHES)
    states = finish(replayed, 2)[1]
    watched: dict[str, list[Watched]] = {}
    expected: dict[int, tuple[int, torch.Tensor]] = {}
    for client in federation.clients:
        samples, plan = private.samples[client.name], client.plan(2)
        crossings = [
            c for c in live if (c.channel, c.client, c.round) == (Channel.FRONT_ACTIVATIONS, client.name, 2)
        ]  # fmt: skip
        assert len(crossings) == len(plan)
        for sample in range(0, len(samples), 3):
            length = len(model.prompts.build(samples.history[sample]))
            (step,) = [s for s, rows in enumerate(plan) if sample in rows]
            place = int(np.flatnonzero(plan[step] == sample)[0])
            row = len(expected)
            expected[row] = (step, crossings[step].tensors["hidden"][place, :length])
            watched.setdefault(client.name, []).append(Watched(row, sample, length))
    records = training_records(replayed, model.parts, states[1], watched, list(range(LAYERS)))[front]
    assert {r.row for r in records} == set(expected)
    for record in records:
        step, hidden = expected[record.row]
        assert (record.round, record.step) == (2, step)
        assert torch.equal(record.tensor, hidden)


@pytest.mark.parametrize("front", [0, 1, 2])
def test_replayed_serving_yields_what_a_live_link_recorded(
    recformer_scenario: scenario.Scenario, private: PrivateData, front: int
) -> None:
    model, federation = start(recformer_scenario, private, front, 0)
    state = finish(federation, 2)[1][-1]
    client = federation.clients[0]
    asked = serving_samples(private.split, private.users_of(client.name)[:6], recformer_scenario.data.history)
    prompts = [model.prompts.build(asked.history[i]) for i in range(len(asked))]
    live: list[Crossing] = []
    federation.link.recorder = live.append
    before = federation.link.catalogue_bytes
    ((rows, _),) = model.task.recommend(client.served(federation.link), asked.history, np.zeros(48))
    assert federation.link.catalogue_bytes == before, "by the table that was kept"
    (crossing,) = [c for c in live if c.channel == Channel.INFERENCE_ACTIVATIONS]
    records = serving_records(model.whole, state, {client.name: list(enumerate(prompts))}, [front])[front]
    assert {r.row for r in records} == set(range(6))
    for record in records:
        place = rows.tolist().index(record.row)
        assert torch.equal(record.tensor, crossing.tensors["hidden"][place, : len(prompts[record.row])])

"""A replayed round of RecFormer equals what a live link recorded, with the item table encoded in between."""

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import serving_samples
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.rounds import Federation, RoundState
from tests.audit.replay.watching import CROSSINGS, recorded, replayed, same_as_recorded, served, trace_of
from tests.conftest import LAYERS, users_of
from tests.training.recformers import finish, of_few_users, start

REFRESHES = {"refresh_rounds": 9, "refresh_steps": 2}


@pytest.fixture(scope="module")
def recformer_scenario(recformer_scenario: scenario.Scenario) -> scenario.Scenario:
    return of_few_users(recformer_scenario)


@pytest.fixture(scope="module")
def private(recformer_scenario: scenario.Scenario) -> PrivateData:
    return prepare(recformer_scenario.data, recformer_scenario.seed)


Started = tuple[Recommender, Federation, list[Crossing], list[RoundState]]


@pytest.fixture(scope="module")
def trained(recformer_scenario: scenario.Scenario, private: PrivateData) -> Callable[[int, int, str], Started]:
    @cache
    def trained_at(front: int, back: int, train: str) -> Started:
        live: list[Crossing] = []
        model, federation = start(
            recformer_scenario, private, front, back, recorder=live.append, train=train, **REFRESHES
        )  # fmt: skip
        states = finish(federation, 2)[1]
        federation.link.recorder = None
        return model, federation, live, states

    return trained_at


@pytest.mark.parametrize("train", ["embeddings", "all"])
@pytest.mark.parametrize(("channel", "front", "back"), CROSSINGS)
def test_a_replayed_round_yields_what_a_live_link_recorded_at_another_cut(
    private: PrivateData, trained: Callable[[int, int, str], Started], channel: Channel, front: int, back: int,
    train: str,
) -> None:  # fmt: skip
    model, federation, live, _ = trained(front, back, train)
    kinds = Counter(c.channel for c in live)
    assert kinds[Channel.INFERENCE_ACTIVATIONS] > len(federation.clients), "tables were encoded between the steps"
    _, other, _, states = trained(1, 2, train)  # k + m = L: this one has no link at all
    watched, expected = recorded(live, federation, model, private.samples, channel, 2)
    trace = trace_of(channel, front, back, LAYERS)
    records = replayed(other, trained(1, 2, train)[0].parts, states[1], watched, {trace})
    same_as_recorded(records[trace], expected)


@pytest.mark.parametrize("front", [0, 1, 2])
def test_replayed_serving_yields_what_a_live_link_recorded(
    recformer_scenario: scenario.Scenario, private: PrivateData, front: int
) -> None:
    model, federation = start(recformer_scenario, private, front, 0)
    state = finish(federation, 2)[1][-1]
    client = federation.clients[0]
    asked = serving_samples(private.split, users_of(private, client.name)[:6], recformer_scenario.data.history)
    prompts = [model.prompts.build(asked.history[i]) for i in range(len(asked))]
    live: list[Crossing] = []
    federation.link.recorder = live.append
    before = federation.link.catalogue_bytes
    ((rows, _),) = model.task.recommend(client.served(federation.link), asked.history, np.zeros(48))
    assert federation.link.catalogue_bytes == before, "by the table that was kept"
    (crossing,) = [c for c in live if c.channel == Channel.INFERENCE_ACTIVATIONS]
    records = served(model, state, {client.name: list(enumerate(prompts))}, front)
    assert {r.row for r in records} == set(range(6))
    for record in records:
        place = rows.tolist().index(record.row)
        assert torch.equal(record.tensor, crossing.tensors["hidden"][place, : len(prompts[record.row])])

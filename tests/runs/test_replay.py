"""A replayed channel equals what a live link recorded, bit for bit, at every cut."""

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.channels import Channel, Crossing
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import serving_samples
from pplr_audit.models.bigrec import generate_titles
from pplr_audit.models.recommender import Recommender, build
from pplr_audit.pplr.rounds import Federation, RoundState, assemble, train
from pplr_audit.pplr.strategies.pplr import Pplr
from pplr_audit.runs.replay import Watched, serving_records, training_records


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def trained_at(
    setting: scenario.Scenario, private: PrivateData, front: int, back: int
) -> tuple[Recommender, Federation, list[Crossing], list[RoundState]]:
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=front, back=back)})
    model = build(chosen, private.dataset.catalogue, history=setting.data.history, seed=setting.seed)
    seen: list[Crossing] = []
    federation = assemble(
        private.samples, model.task, model.parts, model.initial, setting.training, Pplr(setting.training),
        seed=setting.seed, recorder=seen.append,
    )  # fmt: skip
    states = [federation.state(1)]
    train(federation, setting.training.rounds, done=lambda log, state: states.append(state))
    federation.link.recorder = None
    return model, federation, seen, states


@pytest.mark.parametrize("front", [0, 1, 2])
def test_a_replayed_round_at_one_cut_yields_what_a_live_link_recorded_at_another(
    small_scenario: scenario.Scenario, private: PrivateData, front: int
) -> None:
    _, live_federation, live, _ = trained_at(small_scenario, private, front, 0)
    model, federation, _, states = trained_at(small_scenario, private, 1, 2)  # k + m = L: this one has no link at all
    round_ = small_scenario.training.rounds
    watched, expected = {}, {}
    row = 0
    for client in live_federation.clients:
        samples = private.samples[client.name]
        crossings = [
            c for c in live if c.channel == Channel.FRONT_ACTIVATIONS and c.client == client.name and c.round == round_
        ]
        watched[client.name] = []
        for sample in range(0, len(samples), 3):
            length = len(model.prompts.build(samples.history[sample], int(samples.targets[sample])))
            (step,) = [s for s, rows in enumerate(client.plan(round_)) if sample in rows]
            place = int(np.flatnonzero(client.plan(round_)[step] == sample)[0])
            expected[row] = (step, crossings[step].tensors["hidden"][place, :length])
            watched[client.name].append(Watched(row, sample, length))
            row += 1
    records = training_records(federation, model.parts, states[round_ - 1], watched, [0, 1, 2])[front]
    assert {r.row for r in records} == set(expected)
    for record in records:
        step, hidden = expected[record.row]
        assert record.step == step
        assert torch.equal(record.tensor, hidden)


def test_replayed_serving_yields_what_a_live_link_recorded(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model, federation, _, states = trained_at(small_scenario, private, 2, 0)
    client = federation.clients[0]
    asked = serving_samples(private.split, private.users_of(client.name)[:6], small_scenario.data.history)
    prompts = [model.prompts.build(asked.history[i]) for i in range(len(asked))]
    prompts.sort(key=len)
    live: list[Crossing] = []
    federation.link.recorder = lambda c: live.append(c)
    with client.served(federation.link).model() as served:
        generate_titles(served, prompts, model.prompts, beams=1)
    first = next(c for c in live if c.channel == Channel.INFERENCE_ACTIVATIONS)
    requests = {client.name: list(enumerate(prompts))}
    for record in serving_records(model.whole, states[-1], requests, [2])[2]:
        assert torch.equal(record.tensor, first.tensors["hidden"][record.row, -len(prompts[record.row]) :])

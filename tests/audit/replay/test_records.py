"""A replayed channel equals what a live link recorded, bit for bit, at every cut."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import serving_samples
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.recommenders.bigrec import generate_titles
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.link import Wire
from pplr_audit.training.rounds import Federation, RoundState, assemble, train
from pplr_audit.training.strategies.pplr import Pplr
from tests.audit.replay.watching import CROSSINGS, recorded, replayed, same_as_recorded, served, trace_of
from tests.conftest import users_of


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


Trained = tuple[Recommender, Federation, list[Crossing], list[RoundState]]


@pytest.fixture(scope="module")
def trained(small_scenario: scenario.Scenario, private: PrivateData) -> Callable[[int, int], Trained]:
    return cache(lambda front, back: trained_at(small_scenario, private, front, back))


def trained_at(setting: scenario.Scenario, private: PrivateData, front: int, back: int) -> Trained:
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=front, back=back)})
    model = build(chosen, private.dataset.catalogue, history=setting.data.history, seed=setting.seed)
    seen: list[Crossing] = []
    federation = assemble(
        private.samples, model, setting.training, Pplr(setting.training),
        seed=setting.seed, wire=Wire(recorder=seen.append),
    )  # fmt: skip
    states = [federation.state(1)]
    train(federation, setting.training.rounds, done=lambda log, state: states.append(state))
    federation.link.recorder = None
    return model, federation, seen, states


@pytest.mark.parametrize(("channel", "front", "back"), CROSSINGS)
def test_a_replayed_round_at_one_cut_yields_what_a_live_link_recorded_at_another(
    small_scenario: scenario.Scenario, private: PrivateData, trained: Callable[[int, int], Trained], channel: Channel,
    front: int, back: int,
) -> None:  # fmt: skip
    _, live_federation, live, _ = trained(front, back)
    model, federation, _, states = trained(1, 2)  # k + m = L: this one has no link at all
    round_ = small_scenario.training.rounds
    watched, expected = recorded(live, live_federation, model, private.samples, channel, round_)
    trace = trace_of(channel, front, back, model.layers)
    wanted = {trace, Trace("activation", 1), Trace("gradient", 2)}  # whatever else is looked at
    records = replayed(federation, model.parts, states[round_ - 1], watched, wanted)
    same_as_recorded(records[trace], expected)


def test_replayed_serving_yields_what_a_live_link_recorded(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model, federation, _, states = trained_at(small_scenario, private, 2, 0)
    client = federation.clients[0]
    asked = serving_samples(private.split, users_of(private, client.name)[:6], small_scenario.data.history)
    prompts = [model.prompts.build(asked.history[i]) for i in range(len(asked))]
    prompts.sort(key=len)
    live: list[Crossing] = []
    federation.link.recorder = lambda c: live.append(c)
    with client.served(federation.link).model() as live_model:
        generate_titles(live_model, prompts, model.prompts, beams=1)
    first = next(c for c in live if c.channel == Channel.INFERENCE_ACTIVATIONS)
    requests = {client.name: list(enumerate(prompts))}
    for record in served(model, states[-1], requests, 2):
        assert torch.equal(record.tensor, first.tensors["hidden"][record.row, -len(prompts[record.row]) :])

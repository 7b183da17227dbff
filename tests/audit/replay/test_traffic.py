"""Attacks that learn without labels are given all that crossed of a client, and not the victims' rows alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.activation.linkage import Linkage
from pplr_audit.attacks.active.sdar import Sdar
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import make_plan
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import Recommender, build
from pplr_audit.scoring.membership import auc
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View
from pplr_audit.training.rounds import RoundState, train
from tests.audit.knowledge.test_build import changed, exposed, federated
from tests.conftest import LAYERS

SDAR = {"sdar": {"steps": 1, "batch": 2}}


@pytest.fixture(scope="module")
def setting(small_scenario: scenario.Scenario) -> scenario.Scenario:
    return changed(small_scenario, attacks=["ridge", SDAR], victims=6)


@pytest.fixture(scope="module")
def private(setting: scenario.Scenario) -> PrivateData:
    return prepare(setting.data, setting.seed)


@pytest.fixture(scope="module")
def model(setting: scenario.Scenario, private: PrivateData) -> Recommender:
    return build(setting.model, private.dataset.catalogue, history=3, seed=setting.seed)


@pytest.fixture(scope="module")
def harness(
    setting: scenario.Scenario, private: PrivateData, model: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> Harness:
    federation = federated(setting, private, model)
    states = list[RoundState]([federation.state(1)])
    train(federation, 1, done=lambda log, state: states.append(state))
    return exposed(setting, private, model, states, tmp_path_factory.mktemp("scratch"))


def among(tensor: Tensor, traffic: list[Tensor], tolerance: float) -> bool:
    return any(each.shape == tensor.shape and bool((each - tensor).abs().max() <= tolerance) for each in traffic)


@pytest.mark.parametrize("channel", [Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS])
def test_traffic_is_all_that_crossed_of_a_client_the_victims_own_among_it(
    harness: Harness, setting: scenario.Scenario, private: PrivateData, channel: Channel
) -> None:
    cells = [cell for cell in make_plan(setting, LAYERS).cells if cell.channel == channel and cell.front == 1]
    by_attack = {cell.attack: harness.view(cell) for cell in cells}
    assert by_attack["ridge"].traffic is None, "it did not ask for any"
    view = by_attack["sdar"]
    assert [r.row for r in view.records] == [r.row for r in by_attack["ridge"].records]
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(view.records, by_attack["ridge"].records, strict=True))
    population = private.population
    for client, samples in private.samples.items():
        traffic = list(view.seen_of(client, view.records[0].round))
        at = population.clients.index(client)
        served = np.flatnonzero((population.client_of == at) & (population.reserve == 0))
        assert len(traffic) == (len(samples) if channel == Channel.FRONT_ACTIVATIONS else len(served))
        own = [record.tensor for record in view.records if record.client == client]
        # In training the batches are those of the round, so the bits are; in serving they are put together otherwise.
        tolerance = 0.0 if channel == Channel.FRONT_ACTIVATIONS else 1e-5
        assert all(among(tensor, traffic, tolerance) for tensor in own)
    assert view.shuffled(np.random.default_rng(0)).traffic is view.traffic


def test_a_simulated_client_learns_from_all_of_it(harness: Harness, setting: scenario.Scenario) -> None:
    cell = next(cell for cell in make_plan(setting, LAYERS).cells if cell.attack == "sdar")
    view, (knowledge,) = harness.view(cell), harness.knowledge(cell)
    guess = Sdar(steps=1, batch=2).run(view, knowledge, Budget(60))
    for client in {record.client for record in view.records}:
        own = sum(record.client == client for record in view.records)
        assert guess.facts["traffic"][client] == own + len(list(view.seen_of(client, cell.round)))


def test_linkage_whitens_by_all_that_crossed(tmp_path: Path) -> None:
    """What all users share varies most, and four rows do not tell it from what tells the users apart."""
    generator = np.random.default_rng(0)

    def crossed(own: np.ndarray) -> Tensor:
        shared = np.concatenate([20 * generator.normal(size=6), np.zeros(10)])
        return torch.from_numpy(own + shared + 0.2 * generator.normal(size=16)).float()[None].expand(4, -1)

    scores: dict[bool, list[float]] = {True: [], False: []}
    nothing: Knowledge | None = None
    for _ in range(20):
        users = [np.concatenate([np.zeros(6), generator.normal(size=10)]) for _ in range(4)]
        records = tuple(Record(row, "a", 1, 0, crossed(users[row // 2])) for row in range(8))
        others = [crossed(np.concatenate([np.zeros(6), generator.normal(size=10)])) for _ in range(200)]
        for given in (True, False):
            view = View(
                "server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records,
                traffic=(lambda client, round_, others=others: iter(others)) if given else None,
            )  # fmt: skip
            guess = Linkage(ridge=0.01).run(view, nothing, Budget(60))  # type: ignore[arg-type]
            assert guess.facts["traffic"] == (200 if given else 0)
            same = (guess.arrays["first"] // 2 == guess.arrays["second"] // 2).astype(int)
            scores[given].append(auc(guess.arrays["scores"], same))
    assert np.mean(scores[True]) > 0.8
    assert np.mean(scores[True]) > np.mean(scores[False]) + 0.1

"""Poisson sampling from end to end: an empty batch is a step, is told, is counted, and is replayed."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.threat_model import poisson
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.costs.run_costs import cost_rows
from pplr_audit.training.defending import Composed
from tests.conftest import LAYERS
from tests.toys.clip import Clip
from tests.training.defended.federations import finish, on, start


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


class Rare(Clip):
    """The same with another rate."""

    def __init__(self, rate: float, noise: float = 0.5) -> None:
        super().__init__(noise=noise)
        self.rate = rate

    def batches(self, lengths: np.ndarray, size: int, generator: np.random.Generator) -> list[np.ndarray]:
        return [np.flatnonzero(generator.random(len(lengths)) < self.rate) for _ in range(-(-len(lengths) // size))]


def rare(rate: float, noise: float = 0.5) -> Composed:
    return Composed("clip", (Rare(rate, noise),), ("clip",))


def test_each_sample_is_in_each_step_with_the_same_probability_whatever_the_others_do() -> None:
    steps = [rows for seed in range(400) for rows in poisson(20, 4, np.random.default_rng(seed))]
    assert len(steps) == 400 * 5
    within = np.array([np.isin(np.arange(20), rows) for rows in steps])
    assert np.abs(within.mean(0) - 0.2).max() < 0.04  # four and a half standard errors
    sizes = within.sum(1)
    assert abs(sizes.var() - 20 * 0.2 * 0.8) < 0.4  # binomial: nobody's being there depends on others
    assert abs((sizes == 0).mean() - 0.8**20) < 0.01


def test_of_five_samples_at_a_tenth_exactly_forty_steps_are_taken_at_both_ends(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    """Batches of one half a sample in the mean: 40 steps of which about 24 are empty."""
    seen: list[Crossing] = []
    few = {name: own.take(np.arange(5)) for name, own in private.samples.items()}
    _, federation = start(
        small_scenario, private, rare(0.1), seen, samples=few, local_epochs=8, batch_size=1, strategy="fedavg"
    )
    logs, states = finish(federation, 1)
    for client in federation.clients:
        plan = client.plan(1)
        empty = {step for step, rows in enumerate(plan) if not len(rows)}
        assert len(plan) == 40
        assert 10 < len(empty) < 38
        kept = {name: int(value) for name, value in states[-1].kept[client.name].items() if name.endswith("/steps")}
        assert kept == {"clip/client/steps": 40, "clip/server/steps": 40}
        assert states[-1].optimizers[client.name].steps == 40
        own = [crossing for crossing in seen if crossing.client == client.name]
        masks = [c for c in on(own, Channel.METADATA) if "mask" in c.tensors]
        assert {c.step for c in on(own, Channel.FRONT_ACTIVATIONS)} == set(range(40)) - empty
        assert {c.step for c in masks if not c.wire_bytes} == empty
        assert [c.step for c in masks] == list(range(40))
        assert client.positions(1) == sum(c.tensors["mask"].numel() for c in masks)
    assert all(np.isfinite(loss) for loss in logs[0].losses.values())


@pytest.mark.parametrize("cut", [(1, 1), (2, 1)])
def test_a_round_without_any_sample_is_steps_of_noise(
    small_scenario: scenario.Scenario, private: PrivateData, cut: tuple[int, int]
) -> None:
    """The loss that a client says is then that of guessing, or later the last one that it had."""
    front, back = cut
    _, federation = start(small_scenario, private, rare(0.0), front=front, back=back, strategy="local")
    (log,), (before, after) = finish(federation, 1)
    assert set(log.losses.values()) == {math.log(len(private.dataset.catalogue))}
    for client in federation.clients:
        steps = [int(value) for name, value in after.kept[client.name].items() if name.endswith("/steps")]
        assert steps == [len(client.plan(1))] * (1 if front + back == LAYERS else 2)
        moved = [not torch.equal(before.adapters[client.name][n], t) for n, t in after.adapters[client.name].items()]
        assert all(moved)
    _, quiet = start(small_scenario, private, rare(0.0, noise=0.0), front=front, back=back, strategy="local")
    _, (before, after) = finish(quiet, 1)
    assert all(torch.equal(before.adapters["client-0"][n], t) for n, t in after.adapters["client-0"].items())


def test_the_loss_of_an_empty_round_is_the_last_one_that_there_was(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    _, federation = start(small_scenario, private, rare(0.5))
    first = federation.clients[0].train_round(federation.link, 1)
    after = federation.state(2)
    _, later = start(small_scenario, private, rare(0.0))
    later.resume(after)
    assert later.clients[0].train_round(later.link, 2) == first


def test_what_a_run_costs_is_counted_with_empty_batches(
    small_scenario: scenario.Scenario, private: PrivateData, tmp_path: Path
) -> None:
    model, federation = start(small_scenario, private, rare(0.0))
    logs, _ = finish(federation, 1)
    job = SimpleNamespace(
        scenario=small_scenario, private=private, model=model, federation=federation
    )  # all that costs look at
    rows = cost_rows(job, logs, Tally(), 0)  # type: ignore[arg-type]
    ran = next(row for row in rows if row["measured"])
    assert ran["measured"]["wire_bytes_per_sample"] == 0
    assert all(np.isfinite(row["wire_bytes_per_round"]) for row in rows)

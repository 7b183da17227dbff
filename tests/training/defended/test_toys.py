"""Toy defenses, installed as a third party's package: what they do to a training, and what becomes of it afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.rounds import Federation, RoundState
from tests.toys import install_toys
from tests.training.defended.federations import finish, start

ALL_KINDS = (
    {"scale": {"factor": 0.5}}, {"noise": {"scale": 0.02}}, "code", "sums", {"clip": {"noise": 0.1}},
    [{"clip": {"noise": 0.1}}, {"noise": {"scale": 0.02}}, "code", "sums"],
)  # fmt: skip


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


@pytest.fixture(autouse=True)
def toys(install: Callable[..., Path]) -> None:
    install_toys(install)


def same(one: RoundState, other: RoundState) -> bool:
    def tensors(state: RoundState) -> dict[tuple[str, str, str], torch.Tensor]:
        parts = {"adapter": state.adapters, "kept": state.kept}
        parts["moments"] = {client: held.moments for client, held in state.optimizers.items()}
        return {(k, c, n): t for k, by in parts.items() for c, own in by.items() for n, t in own.items()}

    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in ours.items())


def moved(federation: Federation, states: list[RoundState]) -> bool:
    first, last = states[0].adapters, states[-1].adapters
    return all(
        any(not torch.equal(first[c.name][n], last[c.name][n]) for n in first[c.name]) for c in federation.clients
    )


@pytest.mark.parametrize("defenses", ALL_KINDS, ids=str)
def test_a_round_is_replayed_as_it_was_and_a_killed_training_ends_the_same(
    small_scenario: scenario.Scenario, private: PrivateData, defenses: object, tmp_path: Path
) -> None:
    live: list[Crossing] = []
    _, federation = start(small_scenario, private, defenses, live, strategy="fedavg")
    files = TrainingFiles(Store.open(tmp_path / "run", "run: x", "x" * 64), "trainings/x", [1, 2], federation)
    logs, states = finish(federation, 2)
    assert moved(federation, states)
    for state in states:
        files.save_state(state)
    # Round 2 once more, in the same process, from what a file holds.
    again: list[Crossing] = []
    federation.link.recorder = again.append
    federation.resume(files.state(2))
    for client in federation.clients:
        client.train_round(federation.link, 2)
    of_round = [c for c in live if c.round == 2 and c.channel not in (Channel.PERSONAL_MODEL, Channel.AGGREGATE)]
    assert len(again) == len(of_round)
    for one, other in zip(again, of_round, strict=True):
        assert (one.channel, one.client, one.step) == (other.channel, other.client, other.step)
        assert all(torch.equal(t, other.tensors[name]) for name, t in one.tensors.items())
    # And in another process, as after a kill in round 2.
    _, other_federation = start(small_scenario, private, defenses, strategy="fedavg")
    other_federation.resume(files.state(2))
    other_logs, ended = finish(other_federation, 2, first=2)
    assert same(ended[-1], states[-1])
    assert other_logs[-1].losses == logs[-1].losses
    assert other_logs[-1].sent == logs[-1].sent

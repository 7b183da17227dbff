"""The federated loop: what crosses, what persists, and that the cut changes nothing but where things are computed."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import RunError
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.link import Wire
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Stretch
from pplr_audit.training.rounds import Federation, RoundLog, RoundState, assemble, train
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.strategies.pplr import Pplr
from tests.conftest import LAYERS, users_of


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def model_at(
    setting: scenario.Scenario, private: PrivateData, front: int, back: int, dropout: float = 0.0
) -> Recommender:
    lora = setting.model.lora.model_copy(update={"dropout": dropout})
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=front, back=back), "lora": lora})
    return build(chosen, private.dataset.catalogue, history=setting.data.history, seed=setting.seed)


def federation_of(
    model: Recommender, private: PrivateData, training: scenario.Training, recorder: list[Crossing] | None = None
) -> Federation:
    def keep(crossing: Crossing) -> None:
        assert recorder is not None
        copied = {name: tensor.clone() for name, tensor in crossing.tensors.items()}
        recorder.append(Crossing(crossing.channel, crossing.client, crossing.round, crossing.step, copied))

    return assemble(
        private.samples, model, training, Pplr(training), seed=1,
        wire=Wire(recorder=keep if recorder is not None else None),
    )  # fmt: skip


def finish(federation: Federation, rounds: int, first: int = 1) -> tuple[list[RoundLog], list[RoundState]]:
    logs: list[RoundLog] = []
    states: list[RoundState] = []

    def done(log: RoundLog, state: RoundState) -> None:
        logs.append(log)
        states.append(state)

    train(federation, rounds, first=first, done=done)
    return logs, states


def same(a: RoundState, b: RoundState) -> bool:
    return all(
        torch.equal(a.adapters[client][name], b.adapters[client][name])
        for client in a.adapters
        for name in a.adapters[client]
    ) and all(
        a.optimizers[client].steps == b.optimizers[client].steps
        and all(torch.equal(t, b.optimizers[client].moments[name]) for name, t in a.optimizers[client].moments.items())
        for client in a.optimizers
    )


@pytest.fixture(scope="module")
def reference(small_scenario: scenario.Scenario, private: PrivateData) -> list[RoundState]:
    model = model_at(small_scenario, private, LAYERS, 0, dropout=0.1)
    return finish(federation_of(model, private, small_scenario.training), 2)[1]


@pytest.mark.parametrize(("front", "back"), [(0, 0), (1, 1), (2, 0), (0, 2), (1, 2)])
def test_a_whole_training_ends_with_the_same_bits_wherever_the_cut_lies(
    small_scenario: scenario.Scenario, private: PrivateData, reference: list[RoundState], front: int, back: int
) -> None:
    model = model_at(small_scenario, private, front, back, dropout=0.1)
    states = finish(federation_of(model, private, small_scenario.training), 2)[1]
    assert same(states[-1], reference[-1])
    before = model.initial
    assert any(not torch.equal(before[n], t) for n, t in states[-1].adapters["client-0"].items())


def test_a_training_continued_from_a_stored_round_ends_with_the_same_bits(
    small_scenario: scenario.Scenario, private: PrivateData, reference: list[RoundState]
) -> None:
    """Optimizer, moments and schedule persist across rounds."""
    model = model_at(small_scenario, private, 1, 1, dropout=0.1)
    federation = federation_of(model, private, small_scenario.training)
    federation.resume(reference[0])
    assert same(finish(federation, 2, first=2)[1][-1], reference[-1])


def test_every_channel_of_training_crosses_the_link_and_is_counted(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    seen: list[Crossing] = []
    model = model_at(small_scenario, private, 1, 1)
    federation = federation_of(model, private, small_scenario.training, seen)
    finish(federation, 1)
    by_channel: dict[Channel, list[Crossing]] = defaultdict(list)
    for crossing in seen:
        by_channel[crossing.channel].append(crossing)
    assert set(by_channel) == {
        Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.TRUNK_GRADIENTS,
        Channel.METADATA, Channel.TRUNK_UPDATE, Channel.CLIENT_UPDATE, Channel.STATUS, Channel.PERSONAL_MODEL,
    }  # fmt: skip
    steps = sum(len(client.plan(1)) for client in federation.clients)
    hidden = model.whole.model.config.hidden_size
    assert len(by_channel[Channel.FRONT_ACTIVATIONS]) == steps
    positions = 0
    for crossing in by_channel[Channel.FRONT_ACTIVATIONS]:
        assert crossing.tensors["hidden"].shape[2] == hidden
        positions += crossing.tensors["hidden"].shape[0] * crossing.tensors["hidden"].shape[1]
    for channel in (
        Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.TRUNK_GRADIENTS,
    ):  # fmt: skip
        assert federation.link.sent[channel] == positions * hidden * 4
    joins = len(federation.clients) * 8  # one count of samples each
    assert federation.link.sent[Channel.METADATA] == positions + joins
    assert federation.link.sent[Channel.STATUS] == len(federation.clients) * 8
    client_values = sum(p.numel() for p in model.parts.client_parameters.values())
    assert federation.link.sent[Channel.CLIENT_UPDATE] == len(federation.clients) * client_values * 4
    assert federation.link.sent[Channel.PERSONAL_MODEL] == len(federation.clients) * client_values * 4
    assert federation.link.sent[Channel.TRUNK_UPDATE] == 0


def test_without_a_trunk_only_updates_cross(small_scenario: scenario.Scenario, private: PrivateData) -> None:
    model = model_at(small_scenario, private, 2, 1)
    federation = federation_of(model, private, small_scenario.training)
    finish(federation, 1)
    assert set(federation.link.sent) == {
        Channel.METADATA, Channel.CLIENT_UPDATE, Channel.STATUS, Channel.PERSONAL_MODEL,
    }  # fmt: skip


def test_an_update_is_before_minus_after_of_the_client_s_own_layers(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    seen: list[Crossing] = []
    model = model_at(small_scenario, private, 1, 1)
    federation = federation_of(model, private, small_scenario.training, seen)
    client = federation.clients[0]
    before = dict(client.shared.adapter)
    client.train_round(federation.link, 1)
    (update,) = [c for c in seen if c.channel == Channel.CLIENT_UPDATE]
    assert set(update.tensors) == set(model.parts.client_parameters)
    assert all(torch.equal(t, before[name] - client.shared.adapter[name]) for name, t in update.tensors.items())


def test_the_training_loss_falls_and_the_status_carries_it(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    seen: list[Crossing] = []
    model = model_at(small_scenario, private, 1, 1)
    federation = federation_of(model, private, small_scenario.training, seen)
    logs, _ = finish(federation, 2)
    assert all(logs[1].losses[client] < logs[0].losses[client] for client in logs[0].losses)
    said = {(c.round, c.client): float(c.tensors["loss"]) for c in seen if c.channel == Channel.STATUS}
    assert said == {(log.round, client): loss for log in logs for client, loss in log.losses.items()}


def test_one_local_optimizer_in_two_parts_does_what_one_over_all_would() -> None:
    training = scenario.Training(learning_rate=0.1, weight_decay=0.01, schedule="linear")
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(4, generator=generator) for name in "abc"}
    gradients = [{name: torch.randn(4, generator=generator) for name in "abc"} for _ in range(3)]

    def trained(groups: list[str]) -> dict[str, torch.Tensor]:
        ended = {}
        for group in groups:
            parameters = {name: torch.nn.Parameter(start[name].clone()) for name in group}
            state = OptimizerState()
            for step, gradient in enumerate(gradients):  # a fresh optimizer every time, from the state put away
                optimizer = LocalOptimizer(parameters, training, Stretch(step, 3), state)
                for name, parameter in parameters.items():
                    parameter.grad = gradient[name].clone()
                optimizer.step()
                state = optimizer.state()
            ended |= {name: p.detach() for name, p in parameters.items()}
        return ended

    whole, parted = trained(["abc"]), trained(["a", "bc"])
    plain = {name: torch.nn.Parameter(t.clone()) for name, t in start.items()}
    library = torch.optim.AdamW(plain.values(), lr=0.1, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(library, lambda step: 1 - step / 3)
    for gradient in gradients:
        for name, parameter in plain.items():
            parameter.grad = gradient[name].clone()
        library.step()
        schedule.step()
    for name in start:
        assert torch.equal(whole[name], parted[name])
        assert torch.equal(whole[name], plain[name].detach())


def test_a_loss_that_is_not_finite_stops_the_round_and_names_client_and_round(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model = model_at(small_scenario, private, 1, 1)
    federation = federation_of(model, private, small_scenario.training)
    client = federation.clients[1]
    spoilt = {name: torch.full_like(t, float("nan")) for name, t in client.shared.adapter.items()}
    client.shared = replace(client.shared, adapter=spoilt)
    with pytest.raises(RunError, match=r"client-1: the loss is not finite in round 1, step 0"):
        client.train_round(federation.link, 1)


def test_fedavg_gives_every_client_the_same_model(small_scenario: scenario.Scenario, private: PrivateData) -> None:
    model = model_at(small_scenario, private, 1, 1)
    training = small_scenario.training
    federation = assemble(private.samples, model, training, FedAvg(training), seed=1)
    _, states = finish(federation, 1)
    first, *others = states[-1].adapters.values()
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_each_epoch_holds_every_sample_once_in_its_own_order(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model = model_at(small_scenario, private, 1, 1)
    federation = federation_of(model, private, small_scenario.training.model_copy(update={"local_epochs": 2}))
    client = federation.clients[0]
    count = len(private.samples[client.name])
    rows = np.concatenate(client.plan(1))
    assert sorted(rows[:count]) == sorted(rows[count:]) == list(range(count))
    assert not np.array_equal(rows[:count], rows[count:])
    assert np.array_equal(rows, np.concatenate(client.plan(1)))
    assert not np.array_equal(rows, np.concatenate(client.plan(2)))


def test_private_samples_are_of_members_alone(private: PrivateData, small_market: Dataset, llama_folder: Path) -> None:
    del small_market, llama_folder
    for client, samples in private.samples.items():
        assert set(samples.users) <= set(users_of(private, client))
        for row in range(len(samples)):
            train_items = private.split.train[int(samples.users[row])]
            assert samples.targets[row] == train_items[-1]
            assert list(samples.history[row]) == list(train_items[-1 - len(samples.history[row]) : -1])

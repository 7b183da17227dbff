"""Toy defenses, installed as a third party's package: what they do to a training, and what becomes of it afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.recommenders.bigrec import generate_titles
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.client import Client
from pplr_audit.training.link import TrainingSide
from pplr_audit.training.rounds import Federation, RoundState, train
from tests.toys import install_toys
from tests.training.defended.federations import finish, on, start

ALL_KINDS = (
    {"scale": {"factor": 0.5}}, {"noise": {"scale": 0.02}}, "code", "sums", {"clip": {"noise": 0.1}},
    "blur", [{"clip": {"noise": 0.1}}, {"noise": {"scale": 0.02}}, "scale", "code", "sums"],
)  # fmt: skip


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


BLUR = '''"""Rounds the models that go back, and clips updates at the server and counts there."""
import torch

from pplr_audit.threat_model import Channel, Defense


class Blur(Defense):
    acts = frozenset({"wire", "updates"})
    channels = frozenset({Channel.PERSONAL_MODEL})

    def apply(self, crossing, turn):
        turn.kept["times"] = turn.kept.get("times", torch.tensor(0)) + 1
        return {name: value.round(decimals=2) for name, value in crossing.tensors.items()}

    def updates(self, updates, turn):
        turn.kept["clients"] = turn.kept.get("clients", torch.tensor(0)) + len(updates)
        return {client: {n: t.clamp(-0.01, 0.01) for n, t in own.items()} for client, own in updates.items()}
'''


@pytest.fixture(autouse=True)
def toys(install: Callable[..., Path]) -> None:
    install_toys(install)
    install("blur-defense", "0.1", "[pplr_audit.defenses]\nblur = toy_blur:Blur\n", toy_blur=BLUR)


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


@pytest.mark.parametrize(("defenses", "strategy"), [(d, "fedavg") for d in ALL_KINDS] + [(ALL_KINDS[-1], "ditto")])
def test_a_round_is_replayed_as_it_was_and_a_killed_training_ends_the_same(
    small_scenario: scenario.Scenario, private: PrivateData, defenses: object, strategy: str, tmp_path: Path
) -> None:
    live: list[Crossing] = []
    _, federation = start(small_scenario, private, defenses, live, strategy=strategy)
    files = TrainingFiles(Store.open(tmp_path / "run", "run: x", "x" * 64), [1, 2], federation)
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
    _, other_federation = start(small_scenario, private, defenses, strategy=strategy)
    other_federation.resume(files.state(2))
    other_logs, ended = finish(other_federation, 2, first=2)
    assert same(ended[-1], states[-1])
    assert other_logs[-1].losses == logs[-1].losses
    assert other_logs[-1].sent == logs[-1].sent


def test_gradients_are_scaled_on_both_sides_of_the_cut(small_scenario: scenario.Scenario, private: PrivateData) -> None:
    def update(defenses: object) -> tuple[dict[str, torch.Tensor], Federation]:
        _, federation = start(
            small_scenario, private, defenses, optimizer="sgd", batch_size=1000, strategy="local", dropout=0.0
        )  # fmt: skip
        _, states = finish(federation, 1)
        before, after = states[0].adapters["client-0"], states[1].adapters["client-0"]
        return {name: before[name] - value for name, value in after.items()}, federation

    plain, _ = update("none")
    scaled, federation = update({"scale": {"factor": 0.25}})
    assert {"0", "1", "2"} == {name.split("layers.")[1][0] for name in plain}  # front, trunk, back
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], 0.25 * value, rtol=1e-3, atol=1e-7)
    kept = federation.state(2).kept["client-0"]
    assert kept.keys() == {"scale/client/steps", "scale/server/steps"}
    assert [int(steps) for steps in kept.values()] == [1, 1]


def test_noise_is_drawn_anew_for_every_crossing_and_again_for_a_replayed_one(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    """Two requests of one content, the loss and the metric of a round: what differs is noise, and differs each time."""
    seen: list[Crossing] = []
    model, federation = start(small_scenario, private, {"noise": {"scale": 0.5}}, seen)
    client, prompt = federation.clients[0], model.prompts.build(private.samples["client-0"].history[0])

    def serve() -> list[torch.Tensor]:
        seen.clear()
        with client.served(federation.link).model() as served:
            for _ in range(2):
                generate_titles(served, [prompt], model.prompts, beams=1)
        prompts = [c for c in on(seen, Channel.INFERENCE_ACTIVATIONS) if len(c.tensors) == 2]
        length = prompts[0].tensors["hidden"].shape
        return [c.tensors["hidden"] for c in prompts if c.tensors["hidden"].shape == length]

    drawn = [*serve(), *serve()]
    assert len(drawn) == 4
    assert all(not torch.equal(one, other) for place, one in enumerate(drawn) for other in drawn[:place])
    beginning = federation.state(1)
    loss = client.train_round(federation.link, 1)
    federation.link.report(client.name, 1, loss)
    told, metric = (next(iter(c.tensors.values())) for c in on(seen, Channel.STATUS))
    assert told != metric
    federation.resume(beginning)
    seen.clear()
    assert client.train_round(federation.link, 1) == loss
    (again,) = on(seen, Channel.STATUS)
    assert torch.equal(again.tensors["loss"], told)


def test_a_code_counts_what_it_takes_and_is_read_by_the_receiver(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    seen: list[Crossing] = []
    _, federation = start(small_scenario, private, "code", seen)
    federation.clients[0].train_round(federation.link, 1)
    fronts = on(seen, Channel.FRONT_ACTIVATIONS)
    numbers = sum(c.tensors["hidden"].numel() for c in fronts)
    assert federation.link.sent[Channel.FRONT_ACTIVATIONS] == numbers + 8 * len(fronts)
    assert federation.link.sent[Channel.BACK_GRADIENTS] == 4 * numbers
    assert all(c.tensors["hidden"].unique().numel() <= 256 for c in fronts)
    assert {c.tensors["hidden"].dtype for c in fronts} == {torch.float32}


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "ditto", "pplr"])
def test_the_server_gets_the_sum_of_the_updates_and_averages_by_it(
    small_scenario: scenario.Scenario, private: PrivateData, strategy: str
) -> None:
    seen: list[Crossing] = []
    plain: list[Crossing] = []
    ablated = {"ablate": ("balance",)} if strategy == "pplr" else {}
    _, undefended = start(small_scenario, private, "none", plain, strategy=strategy, **ablated)
    _, federation = start(small_scenario, private, "sums", seen, strategy=strategy, **ablated)
    expected, (logs, states) = finish(undefended, 2)[1], finish(federation, 2)
    for client, adapter in states[1].adapters.items():
        for name, value in adapter.items():
            torch.testing.assert_close(value, expected[1].adapters[client][name], rtol=0, atol=1e-6)
    assert not on(seen, Channel.CLIENT_UPDATE)
    totals = on(seen, Channel.AGGREGATE)
    assert [(c.client, c.round) for c in totals] == [("all", 1), ("all", 2)]
    updates = [c for c in on(plain, Channel.CLIENT_UPDATE) if c.round == 1]
    for name, total in totals[0].tensors.items():
        summed = sum(len(private.samples[c.client]) * c.tensors[name].double() for c in updates)
        torch.testing.assert_close(total, summed)
    assert set(totals[0].tensors) == set(updates[0].tensors)
    assert logs[0].sent["aggregate"] == sum(c.wire_bytes for c in updates)
    assert "client_update" not in logs[0].sent


def test_without_a_defense_nothing_is_kept_and_nothing_more_crosses(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    _, federation = start(small_scenario, private, "none")
    _, states = finish(federation, 1)
    assert states[-1].kept == {}
    assert type(federation.link.training("client-0", 1)) is TrainingSide


def test_a_catalogue_encoded_over_a_noisy_link_in_training_is_encoded_the_same_in_a_replay(
    recformer_scenario: scenario.Scenario,
) -> None:
    """In the midst of a round the link serves; that crossing belongs to the round and is replayed with it."""
    own = prepare(recformer_scenario.data, recformer_scenario.seed)
    seen: list[Crossing] = []
    _, federation = start(recformer_scenario, own, {"noise": {"scale": 0.1}}, seen, strategy="fedavg")
    _, states = finish(federation, 2)
    served = [c for c in on(seen, Channel.INFERENCE_ACTIVATIONS) if (c.client, c.round) == ("client-0", 2)]
    assert served
    assert {c.step for c in served} == {0}
    seen.clear()
    federation.resume(states[1])
    federation.clients[0].train_round(federation.link, 2)
    again = [c for c in on(seen, Channel.INFERENCE_ACTIVATIONS) if c.round == 2]
    assert len(again) == len(served)
    for one, other in zip(again, served, strict=True):
        assert torch.equal(one.tensors["hidden"], other.tensors["hidden"])


def test_updates_are_changed_before_the_server_mixes_them_and_models_as_they_come_back(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    seen: list[Crossing] = []
    model, federation = start(small_scenario, private, "blur", seen, strategy="fedavg")
    _, states = finish(federation, 2)
    updates = [c for c in on(seen, Channel.CLIENT_UPDATE) if c.round == 1]
    assert max(float(value.abs().max()) for c in updates for value in c.tensors.values()) > 0.011  # seen as it was sent
    mixed = states[1].adapters["client-0"]
    for name, value in mixed.items():
        assert float((value - model.initial[name]).abs().max()) < 0.0101 + 0.005
    for name in model.parts.client_parameters:
        assert torch.equal(mixed[name], mixed[name].round(decimals=2))
    assert {client: int(own["blur/server/clients"]) for client, own in states[2].kept.items() if client == "all"} == {
        "all": 2 * len(federation.clients)
    }
    assert int(states[2].kept["client-0"]["blur/server/times"]) == 2


def test_a_noisy_metric_is_the_same_after_a_kill(small_scenario: scenario.Scenario, private: PrivateData) -> None:
    """Validation serves users over the link between two rounds: its noise belongs to the round, and to no process."""

    def begun() -> tuple[Federation, Callable[[Client], float], list[float]]:
        seen: list[Crossing] = []
        model, federation = start(small_scenario, private, {"noise": {"scale": 0.3}}, seen, patience=5, rounds=3)
        prompt, told = model.prompts.build(private.samples["client-0"].history[0]), []

        def validate(client: Client) -> float:
            seen.clear()
            with client.served(federation.link).model() as served:
                generate_titles(served, [prompt], model.prompts, beams=1)
            told.append(float(on(seen, Channel.INFERENCE_ACTIVATIONS)[0].tensors["hidden"].double().sum()))
            return told[-1]

        return federation, validate, told

    federation, validate, told = begun()
    states: list[RoundState] = []
    train(federation, 3, done=lambda log, state: states.append(state), validate=validate)
    killed, validate, again = begun()
    killed.resume(states[1])
    train(killed, 3, first=3, done=lambda log, state: None, validate=validate)
    assert again == told[-len(again) :]
    assert len(set(told)) == len(told)

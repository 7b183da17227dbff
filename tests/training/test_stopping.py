"""Who trains when: client sampling and early stopping."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.client import Client
from pplr_audit.training.costs.run_costs import seconds_per_round
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState
from pplr_audit.training.rounds import Federation, RoundState, train
from pplr_audit.training.stopping import Best, judged, participants, stopped
from tests.training.strategies.test_rivals import Start, finish, start  # noqa: F401
from tests.training.test_rounds import same


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def test_so_many_clients_train_others_every_round_and_all_in_the_long_run() -> None:
    names = [f"c{i}" for i in range(10)]
    drawn = [participants(names, 0.3, seed=1, round_=r) for r in range(200)]
    assert {len(d) for d in drawn} == {3}
    often = Counter(name for d in drawn for name in d)
    assert all(35 < often[name] < 85 for name in names)
    assert participants(names[::-1], 0.3, seed=1, round_=0) == drawn[0]
    assert participants(names, 0.01, seed=1, round_=0) < frozenset(names)
    assert len(participants(names, 0.01, seed=1, round_=0)) == 1
    assert participants(names, 1.0, seed=1, round_=0) == frozenset(names)


def test_a_client_stops_when_its_metric_was_no_better_for_as_many_rounds_as_patience_says() -> None:
    best, waiting = None, []
    for round_, metric in enumerate([0.1, 0.3, 0.3, 0.2, 0.4, 0.1, 0.1], 1):
        best = judged(best, metric, round_, {"a": torch.tensor(float(round_))})
        waiting.append("c" in stopped({"c": best}, 2))
    assert waiting == [False, False, False, True, False, False, True]
    assert best is not None
    assert (best.metric, best.round, best.adapter["a"]) == (0.4, 5, 5.0)
    assert stopped({"c": best}, None) == frozenset()


@pytest.mark.parametrize("strategy", ["pplr", "fedavg"])
def test_who_does_not_train_keeps_its_model_unless_there_is_one_for_all(start: Start, strategy: str) -> None:  # noqa: F811
    _, federation = start(strategy=strategy, participation=0.4)
    seen: list[Crossing] = []
    federation.link.recorder = seen.append
    logs, states = finish(federation, 1)
    (trained,) = logs[0].clients
    assert logs[0].mixing.matrix.shape == (1, 1)
    sent = {crossing.client for crossing in seen if crossing.channel != Channel.PERSONAL_MODEL}
    assert sent == {trained}
    before, after = states
    for client in before.adapters:
        moved = any(not torch.equal(v, after.adapters[client][n]) for n, v in before.adapters[client].items())
        assert moved == (client == trained or strategy == "fedavg")
    if strategy == "fedavg":
        one, *others = after.adapters.values()
        assert all(torch.equal(one[n], other[n]) for other in others for n in one)


@pytest.mark.parametrize("participation", [0.4, 1.0])
def test_the_rate_goes_by_rounds_so_that_it_comes_down_for_those_too_who_sit_some_out(
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    participation: float,
) -> None:
    """Of who trains in every round it is the rate of the steps taken."""
    taken: list[tuple[int, int, int]] = []
    step = LocalOptimizer.step

    def noted(optimizer: LocalOptimizer) -> None:
        taken.append((optimizer._at, optimizer._total, optimizer._steps))
        step(optimizer)

    monkeypatch.setattr(LocalOptimizer, "step", noted)
    logs, _ = finish(start(strategy="local", participation=participation, rounds=4, schedule="linear")[1], 4)
    assert {len(log.clients) for log in logs} == {1 if participation < 1 else 3}
    assert {int(4 * at / total) for at, total, _ in taken} == {0, 1, 2, 3}
    if participation == 1:
        assert all(at == steps for at, _, steps in taken)


def early(federation: Federation, metrics: dict[str, list[float]], rounds: int):  # type: ignore[no-untyped-def]
    told = {name: iter(values) for name, values in metrics.items()}
    logs, states = [], [federation.state(1)]

    def validate(client: Client) -> float | None:
        return next(told[client.name]) if client.name in told else None

    train(federation, rounds, done=lambda log, s: (logs.append(log), states.append(s)), validate=validate)  # type: ignore[func-returns-value]
    return logs, states


@pytest.mark.parametrize("strategy", ["pplr", "fedavg", "ditto"])
def test_a_client_that_has_stopped_sends_nothing_more_and_serves_its_best_model(start: Start, strategy: str) -> None:  # noqa: F811
    _, federation = start(strategy=strategy, patience=1)
    seen: list[Crossing] = []
    federation.link.recorder = seen.append
    metrics = {"client-0": [0.5, 0.4], "client-1": [0.1, 0.2, 0.3, 0.1]}  # client-2 has nothing to measure by
    logs, states = early(federation, metrics, 4)
    assert [log.clients for log in logs] == [
        ("client-0", "client-1", "client-2"), ("client-0", "client-1", "client-2"),
        ("client-1", "client-2"), ("client-1", "client-2"),
    ]  # fmt: skip
    assert [dict(log.metrics) for log in logs] == [
        {"client-0": 0.5, "client-1": 0.1}, {"client-0": 0.4, "client-1": 0.2}, {"client-1": 0.3}, {"client-1": 0.1},
    ]  # fmt: skip
    assert {c.round for c in seen if c.client == "client-0"} == {1, 2}
    said = [c for c in seen if c.channel == Channel.STATUS and "metric" in c.tensors]
    assert [(c.client, float(c.tensors["metric"])) for c in said][:2] == [("client-0", 0.5), ("client-1", 0.1)]
    end = states[-1]

    def model(round_: int, client: str) -> dict[str, torch.Tensor]:
        state = states[round_]  # after that round
        return dict(state.personal.get(client, state.adapters[client]))

    for client, best in (("client-0", 1), ("client-1", 3), ("client-2", 4)):
        assert all(torch.equal(v, end.served(client)[n]) for n, v in model(best, client).items())
    federation.deliver()
    for client in federation.clients:
        expected = end.served(client.name)
        held = dict(client.served_model.adapter)
        held |= federation.server.personals.get(client.name) or {
            n: v for n, v in federation.server.models[client.name].items() if n not in held
        }
        assert all(torch.equal(v, held[n]) for n, v in expected.items())


def test_once_all_have_stopped_nothing_trains_and_nothing_crosses(start: Start) -> None:  # noqa: F811
    _, federation = start(strategy="pplr", patience=1)
    metrics = {f"client-{i}": [0.5, 0.4] for i in range(3)}
    logs, states = early(federation, metrics, 4)
    assert [log.clients for log in logs[2:]] == [(), ()]
    assert all(not any(log.sent.values()) for log in logs[2:])
    assert same(states[2], states[4])
    continued = start(strategy="pplr", patience=1)[1]
    continued.resume(states[3])
    assert continued.training_in(4, continued.best) == ()


def test_a_round_takes_as_long_as_its_slowest_client_and_empty_rounds_do_not_count(
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, federation = start(strategy="pplr", patience=1)
    clock, takes, trains, balances = [0.0], {"client-0": 3.0, "client-1": 5.0, "client-2": 2.0}, Client.train_round, 7.0
    monkeypatch.setattr("pplr_audit.training.rounds.time.perf_counter", lambda: clock[0])

    def slowly(self: Client, *given: object) -> object:
        clock[0] += takes[self.name]
        return trains(self, *given)  # type: ignore[arg-type]

    balance = type(federation.server).balance

    def balanced(self: object, *given: object) -> object:
        clock[0] += balances
        return balance(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "train_round", slowly)
    monkeypatch.setattr(type(federation.server), "balance", balanced)
    logs, _ = early(federation, {name: [0.5, 0.4] for name in takes}, 4)
    assert [log.seconds for log in logs] == [17.0, 17.0, 0.0, 0.0]
    assert [log.alongside for log in logs] == [12.0, 12.0, 0.0, 0.0]
    assert seconds_per_round(logs) == 12.0
    assert seconds_per_round([replace(log, alongside=None) for log in logs]) == 17.0, "of an earlier version"


def test_the_server_knows_what_it_made_and_no_personal_model() -> None:
    shared, own, best = ({"a": torch.tensor(float(value))} for value in (1, 2, 3))
    held = {"c": Best(0.5, 1, 0, best)}
    plain = RoundState(2, {"c": shared}, {"c": OptimizerState()})
    assert plain.served("c") == plain.sent("c") == shared
    stopped_early = RoundState(2, {"c": shared}, {"c": OptimizerState()}, best=held)
    assert stopped_early.served("c") == stopped_early.sent("c") == best
    for kept in ({}, held):
        personal = RoundState(2, {"c": shared}, {"c": OptimizerState()}, {"c": own}, {"c": OptimizerState()}, kept)
        assert personal.sent("c") == shared
        assert personal.served("c") == (best if kept else own)

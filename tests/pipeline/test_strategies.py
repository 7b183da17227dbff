"""Every strategy and every way to train less, from a scenario to a run directory and on to its findings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.allocation import EVERYONE, allotted
from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import InputError
from pplr_audit.report.findings.redaction import redacted
from pplr_audit.runs.documents import validate, validate_evidence
from pplr_audit.runs.store import TRAINING, Store
from pplr_audit.training import job
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.server import Server
from pplr_audit.training.strategies.pplr import Pplr
from pplr_audit.training.utility.validation import as_test, validation_users
from tests.conftest import users_of
from tests.training.strategies.test_balance import contributions


def changed(small: scenario.Scenario, **training: Any) -> scenario.Scenario:
    values = small.model_dump(mode="json")
    values["training"] |= training
    values["audit"] |= {"cuts": [[1, 1]], "victims": 8}
    return scenario.Scenario.model_validate(values)


def files_of(directory: Path) -> TrainingFiles:
    (folder,) = (directory / "trainings").iterdir()
    return TrainingFiles(Store.load(folder, kind=TRAINING))


SETTINGS: list[dict[str, Any]] = [
    {"strategy": "fedavg", "participation": 0.6},
    {"strategy": "ditto"},
    {"strategy": "centralized", "shots": 30},
    {"strategy": "pplr", "ablate": ["similarity", "heating"], "averaging": "product", "patience": 1},
    {"strategy": "local", "participation": 0.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s["strategy"])
def test_a_scenario_with_this_strategy_ends_with_valid_findings_and_utility_of_every_client(
    small_scenario: scenario.Scenario, tmp_path: Path, settings: dict[str, Any]
) -> None:
    told = changed(small_scenario, **settings)
    result = audit.run(told, tmp_path / "run")
    document = result.document
    validate(document)
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    validate_evidence(evidence)
    own = [row for row in document["utility"] if row["strategy"] == told.training.label]
    assert {row["client"] for row in own} == {"all", "client-0", "client-1", "client-2"}
    assert document["run"]["strategy"] == told.training.label
    assert {row["status"] for row in document["findings"]} <= {"ok", "not_applicable"}
    measured = [row for row in document["findings"] if row["status"] == "ok" and row["channel"] == "front_activations"]
    assert measured
    assert sum(client["samples"] for client in document["run"]["clients"]) == (
        told.training.shots or sum(client["members"] for client in document["run"]["clients"])
    )
    ran = next(row for row in document["costs"] if row["measured"])
    for figure in ("wire_bytes_per_sample", "wire_bytes_per_round"):
        assert ran["measured"][figure] == pytest.approx(ran[figure], rel=1e-9)
    served = "serving_wire_bytes_per_request"
    assert ran["measured"][served] == pytest.approx(ran[served], rel=0.02)
    even = [row for row in document["balance"] if row["strategy"] == told.training.label]
    assert {row["measure"] for row in even} == {"standard_deviation", "worst_client", "jain"}
    of_client = {row["client"]: row["value"] for row in own if row["metric"] == "ndcg@20" and row["client"] != "all"}
    worst = next(row for row in even if (row["measure"], row["metric"]) == ("worst_client", "ndcg@20"))
    assert worst["value"] == pytest.approx(min(of_client.values()))
    assert worst["ci"][0] <= worst["value"] <= worst["ci"][1]
    assert "Balance between clients" in (tmp_path / "run" / "report.md").read_text()


def test_findings_of_a_pooled_training_are_of_every_client_s_users(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    told = changed(small_scenario, strategy="centralized")
    audit.train(told, tmp_path / "run")
    final = files_of(tmp_path / "run").latest()
    assert final is not None
    assert list(final.adapters) == [EVERYONE]
    federated = prepare(told.data, told.seed)
    pooled = allotted(federated, shots=None, pooled=True, seed=told.seed)
    assert np.array_equal(pooled.candidates(), federated.candidates())
    assert np.array_equal(pooled.victims(8, 1), federated.victims(8, 1))
    assert [pooled.samples_of(c) for c in federated.samples] == [len(s) for s in federated.samples.values()]


@pytest.mark.parametrize("shots", [1, 7, 30, 10_000])
def test_few_shot_training_has_so_many_samples_in_all_the_same_ones_for_every_strategy(
    small_scenario: scenario.Scenario, shots: int
) -> None:
    private = prepare(small_scenario.data, small_scenario.seed)
    sizes = {client: len(own) for client, own in private.samples.items()}
    few, pooled = (allotted(private, shots=shots, pooled=p, seed=3) for p in (False, True))
    wanted = min(shots, sum(sizes.values()))
    assert sum(map(len, few.samples.values())) == wanted
    assert sorted(np.concatenate([s.users for s in few.samples.values()])) == sorted(pooled.samples[EVERYONE].users)
    for client, own in few.samples.items():
        assert abs(len(own) - shots * sizes[client] / sum(sizes.values())) < 1 or shots > wanted
        for row in range(len(own)):
            (at,) = np.flatnonzero(private.samples[client].users == own.users[row])
            assert own.targets[row] == private.samples[client].targets[at]
            assert list(own.history[row]) == list(private.samples[client].history[at])
    other = allotted(private, shots=shots, pooled=False, seed=4)
    drawn = [np.concatenate([s.users for s in p.samples.values()]).tolist() for p in (few, other)]
    assert (drawn[0] != drawn[1]) == (1 <= shots < sum(sizes.values()))


def test_a_member_that_few_shot_training_passes_over_counts_neither_as_member_nor_as_none(
    small_scenario: scenario.Scenario,
) -> None:
    """Else its prompt would be asked for as one that was trained on."""
    private = prepare(small_scenario.data, small_scenario.seed)
    few = allotted(private, shots=20, pooled=False, seed=3)
    trained = {int(user) for own in few.samples.values() for user in own.users}
    members = {int(user) for user in few.candidates() if private.population.member[user]}
    assert members == trained & {int(user) for user in private.candidates()}
    assert set(few.victims(1000, 1).tolist()) == members
    others = [c for c in few.candidates() if not private.population.member[c]]
    assert others == [c for c in private.candidates() if not private.population.member[c]]


def test_of_many_prefixes_it_is_the_longest_that_makes_a_member(small_scenario: scenario.Scenario) -> None:
    private = prepare(small_scenario.data.model_copy(update={"samples": "all"}), small_scenario.seed)
    few = allotted(private, shots=60, pooled=False, seed=3)
    whole = {
        int(user)
        for own in few.samples.values()
        for row, user in enumerate(own.users)
        if own.targets[row] == private.split.train[int(user)][-1]
        and len(own.history[row]) == min(small_scenario.data.history, len(private.split.train[int(user)]) - 1)
    }
    assert 0 < len(whole) < len({int(user) for own in few.samples.values() for user in own.users})
    assert set(np.flatnonzero(few.trained).tolist()) == whole


def test_stopping_is_decided_on_validation_items_of_members_and_never_on_test_items(
    small_scenario: scenario.Scenario,
) -> None:
    private = prepare(small_scenario.data, small_scenario.seed)
    told = changed(small_scenario, patience=1, valid_users=5)
    split = as_test(private.split)
    for client in private.samples:
        users = validation_users(told, private, client)
        assert 0 < len(users) <= 5
        assert set(users.tolist()) <= set(users_of(private, client).tolist())
        for user in users.tolist():
            assert list(split.test[user]) == list(private.split.valid[user])
            asked = {*split.train[user].tolist(), *split.valid[user].tolist(), *split.test[user].tolist()}
            assert not asked & ({*private.split.test[user].tolist()} - {*private.split.train[user].tolist()})


def without_validation(monkeypatch: pytest.MonkeyPatch, *clients: str) -> None:
    """No user of these clients has a validation item."""

    def emptied(setting: scenario.Data, seed: int) -> PrivateData:
        private = prepare(setting, seed)
        of = np.asarray(private.population.clients)[private.population.client_of]
        lengths = np.where(np.isin(of, clients), 0, private.split.valid.lengths)
        kept = [private.split.valid[user] for user in range(len(lengths)) if lengths[user]]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        valid = Ragged(offsets, np.concatenate([private.split.valid.values[:0], *kept]))
        return replace(private, split=replace(private.split, valid=valid))

    monkeypatch.setattr(job, "prepare", emptied)


@pytest.mark.parametrize("strategy", ["pplr", "centralized"])
def test_patience_is_refused_where_nobody_has_a_validation_item_to_stop_by(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    without_validation(monkeypatch, "client-0", "client-1", "client-2")
    told = changed(small_scenario, patience=1, strategy=strategy)
    said = (
        r"training\.patience: no client has a user with a validation item to measure recall@10 on \(data\.split: leave"
    )
    for command in (audit.run, audit.train):
        with pytest.raises(InputError, match=said):
            command(told, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    audit.train(changed(small_scenario, strategy=strategy), tmp_path / "run")


def test_clients_that_have_nothing_to_stop_by_are_told_in_an_event_the_findings_and_the_report(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_validation(monkeypatch, "client-1")
    told = changed(small_scenario, patience=1, rounds=3, learning_rate=1e-12)
    document = audit.run(told, tmp_path / "run").document
    audit.run(told, tmp_path / "run")
    assert document["run"]["never_stop"] == ["client-1"]
    validate(document)
    assert files_of(tmp_path / "run").logs(3)[-1].clients == ("client-1",)
    (folder,) = (tmp_path / "run" / "trainings").iterdir()
    with Store.load(folder, kind=TRAINING) as store:
        (event,) = [event for event in store.events() if event["kind"] == "never_stop"]
    assert (event["strategy"], event["clients"]) == ("pplr", ["client-1"])
    text = (tmp_path / "run" / "report.md").read_text()
    assert "no user there has a validation item to stop by: client" in text
    withheld = redacted(document, json.loads((tmp_path / "run" / "evidence.json").read_text()))[0]
    assert withheld["run"]["never_stop"] == [withheld["run"]["clients"][1]["name"]] != ["client-1"]


@pytest.mark.parametrize("strategy", ["ditto", "pplr"])
def test_a_training_broken_off_in_any_round_ends_with_the_same_files(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    told = changed(small_scenario, strategy=strategy, rounds=3, patience=3, participation=0.7, valid_users=10)
    whole = audit.train(told, tmp_path / "whole")
    balance = Server.balance

    def stop_at(round_: int) -> None:
        def broken(server: Server, at: int, *more: Any) -> Any:
            if at == round_:
                raise KeyboardInterrupt
            return balance(server, at, *more)

        monkeypatch.setattr(Server, "balance", broken)

    for round_ in (1, 2, 3):
        stop_at(round_)
        with pytest.raises(KeyboardInterrupt):
            audit.train(told, tmp_path / "parts")
    monkeypatch.undo()
    parts = audit.train(told, tmp_path / "parts")
    assert parts.document["utility"] == whole.document["utility"]
    states = [sorted((tmp_path / name).rglob("state.safetensors"))[-1].read_bytes() for name in ("whole", "parts")]
    assert states[0] == states[1]
    logs = [files_of(tmp_path / name).logs(3) for name in ("whole", "parts")]
    assert [log.metrics for log in logs[0]] == [log.metrics for log in logs[1]]


def test_a_client_without_a_sample_takes_no_part_and_serves_the_base_model(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    told = changed(small_scenario, shots=1)
    document = audit.train(told, tmp_path / "run").document
    assert [client["samples"] for client in document["run"]["clients"]].count(0) == 2
    (state,) = [files_of(tmp_path / "run").latest()]
    assert state is not None
    assert len(state.adapters) == 1
    values = {
        (row["strategy"], row["client"]): row["value"] for row in document["utility"] if row["metric"] == "ndcg@20"
    }
    for client in document["run"]["clients"]:
        if not client["samples"]:
            assert values["pplr", client["name"]] == values["untrained", client["name"]]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("alpha", "0", "more than 0"), ("alpha", "-1", "more than 0"), ("beta", "0", "0.001 or more"),
        ("tau", "0", "1e-06 or more"), ("tau", "nan", "number"), ("participation", "0", "more than 0"),
        ("participation", "1.5", "1 or less"), ("shots", "0", "1 or more"), ("patience", "0", "1 or more"),
        ("proximal", "-0.1", "0 or more"), ("averaging", "sum", "product"), ("ablate", "[tau]", "similarity"),
        ("ablate", "[balance, speed]", "no other term"), ("ablate", "[]", "empty"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_field_with_what_is_accepted(field: str, value: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        scenario.load("quickstart", [f"training.{field}={value}"])
    assert f"training.{field}" in str(refused.value)
    assert said in str(refused.value)


def test_an_ablation_of_a_strategy_that_has_no_such_terms_is_refused() -> None:
    with pytest.raises(InputError, match=r"training\.ablate: switches off terms of pplr, but .* is fedavg"):
        scenario.load("quickstart", ["training.strategy=fedavg", "training.ablate=[speed]"])


@pytest.mark.parametrize("tau", [1e-6, 1e6])
@pytest.mark.parametrize("beta", [1e-3, 1e6])
def test_the_balance_is_finite_at_the_ends_of_what_is_accepted(tau: float, beta: float) -> None:
    training = scenario.Training(tau=tau, beta=beta, alpha=1e-9)
    for losses in ([1.0, 1.0], [0.0, 900.0]):
        got = [replace(c, loss=loss) for c, loss in zip(contributions(2), losses, strict=True)]
        assert np.isfinite(Pplr(training).mixing(got, 100).matrix).all()


def test_what_crosses_in_a_round_that_nobody_trained_in_cannot_be_attacked_and_is_no_zero(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    """A model that does not learn stops after two rounds; the third, the last, is empty."""
    told = changed(small_scenario, rounds=3, patience=1, learning_rate=1e-12)
    document = audit.run(told, tmp_path / "run").document
    validate(document)
    assert [bool(log.losses) for log in files_of(tmp_path / "run").logs(3)] == [True, True, False]
    rows = [
        row for row in document["findings"] if row["channel"] == "front_activations" and row["adversary"] == "server"
    ]
    assert rows
    assert {row["status"] for row in rows} == {"not_applicable"}
    assert {row["detail"]["reason"] for row in rows} == {"no victim's client trained in round 3"}
    assert [row for row in document["findings"] if row["channel"] == "model_output" and row["status"] == "ok"]
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    assert [entry["round"] for entry in evidence["balance"]] == [1, 2]
    assert {"metric"} <= set(evidence["training"][0])

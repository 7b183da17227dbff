"""What an onlooker records while rounds are trained is what a replay of them yields, and it changes no bit."""

from collections.abc import Hashable
from pathlib import Path

import pytest
import torch

from pplr_audit import pipeline, scenario
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import make_plan
from pplr_audit.audit.replay import records
from pplr_audit.audit.replay.collusion import colluded
from pplr_audit.audit.replay.live import LiveRecords
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.runs.progress import Clock, Silent
from pplr_audit.runs.store import TRAINING, Store
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.executor import Executor, Processes, Serial
from pplr_audit.training.job import Inputs
from pplr_audit.training.side_by_side import allowed
from pplr_audit.training.spec import own_training
from tests.audit.knowledge.test_build import changed

ASKED = [{"ridge": {"prompts": 16, "held_out": 4}}, "label_match"]


def same(found: Spool, wanted: Spool, key: Hashable) -> int:
    """Number of records of a key, which are the same in both."""
    pairs = list(zip(found.records(key), wanted.records(key), strict=True))
    for one, other in pairs:
        assert (one.row, one.client, one.round, one.step, one.batch, one.occurrence) == (
            other.row, other.client, other.round, other.step, other.batch, other.occurrence
        )  # fmt: skip
        assert torch.equal(one.tensor, other.tensor)
    return len(pairs)


@pytest.mark.parametrize(
    ("of", "given", "at_once"),
    [
        ("small_scenario", {"training": {"strategy": "pplr", "local_epochs": 2}}, 2),
        ("small_scenario", {"training": {"strategy": "ditto"}, "rounds": "all"}, 1),
        ("small_scenario", {"knowledge": "auxiliary"}, 2),
        ("recformer_scenario", {}, 2),
    ],
)
def test_an_onlooker_records_what_a_replay_yields_and_changes_no_bit(
    of: str, given: dict[str, object], at_once: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    asked = changed(request.getfixturevalue(of), **{"attacks": ASKED, "victims": 8, **given})
    asked = asked.model_copy(update={"training": asked.training.model_copy(update={"rounds": 2})})
    spec, inputs = own_training(asked), Inputs(Clock(Silent()).phase)
    plan = make_plan(asked, inputs.model(asked).layers)
    folders, bytes_, seen = (tmp_path / "watched", tmp_path / "alone"), [], None
    for folder in folders:
        job = inputs.job(spec, asked, plan.rounds)
        live = LiveRecords(job, plan, tmp_path) if folder == folders[0] else None
        with Store.open(folder, spec.text, spec.digest, TRAINING) as store, allowed(at_once):
            files = TrainingFiles(store, plan.rounds, job.federation)
            resume.train(job.federation, files, 2, lambda steps=1, note="": None, onlooker=live)
            bytes_.append({n: store.read_bytes(n) for n in store.paths() if n.endswith(".safetensors")})
            seen = live or seen
            again = Harness(job, files, plan, tmp_path)
            if live is None:
                continue
            assert sorted(live.rounds) == list(plan.rounds)
            for round_ in plan.rounds:
                wanted = again._recorded("training", round_)
                count = sum(same(live.rounds[round_], wanted, trace) for trace in plan.traces(round_))
                assert count >= 8
                handed = sum(same(live.rounds[round_], wanted, colluded(t)) for t in plan.traces(round_))
                assert bool(handed) == (asked.audit.knowledge == "auxiliary")
                public = {key for key in wanted.keys if isinstance(key, tuple) and key[0] == "catalogue"}
                assert bool(public) == (of == "recformer_scenario")
                assert live.rounds[round_].keys == wanted.keys
                assert all(same(live.rounds[round_], wanted, key) == 48 for key in public)
    assert bytes_[0] == bytes_[1]


def test_too_much_for_memory_is_left_to_a_replay(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pplr_audit.audit.replay.live.AT_ONCE", 1000)
    asked = changed(small_scenario, attacks=ASKED)
    job = Inputs(Clock(Silent()).phase).job(own_training(asked), asked, [1])
    live = LiveRecords(job, make_plan(asked, 2), tmp_path)
    live.train(job.federation.clients[0], job.federation.link, asked.training.rounds)
    live.keep(asked.training.rounds, [])
    assert live.rounds == {}


@pytest.mark.parametrize("executor", [Serial(), Processes(2)])
def test_a_run_in_one_call_replays_no_round_and_finds_what_a_later_attack_finds(
    executor: Executor, small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = changed(small_scenario, attacks=ASKED, victims=8)
    replayed: list[int] = []
    original = records.training_records

    def counted(federation: object, parts: object, state: object, *rest: object, **more: object) -> None:
        replayed.append(1)
        original(federation, parts, state, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("pplr_audit.audit.harness.training_records", counted)
    at_once = pipeline.run(asked, tmp_path / "once", threads=1, executor=executor).document
    assert replayed == []
    pipeline.train(asked, tmp_path / "twice", threads=1, executor=executor)
    later = pipeline.attack(tmp_path / "twice", threads=1, executor=executor).document
    assert replayed == [1]
    found, wanted = (
        [{**f, "seconds": 0} for f in document["findings"]] for document in (at_once, later)
    )  # fmt: skip
    assert found == wanted
    assert any(finding["status"] == "ok" for finding in found)

"""Tasks in forked processes: the same results, the same bits, and no process that outlives its run."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import connection, get_context
from pathlib import Path

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import RunError
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.runs.store import TRAINING, Store
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training import resume
from pplr_audit.training.apart import trained_apart
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.client import Client
from pplr_audit.training.crossings import RoundRecorder
from pplr_audit.training.job import Inputs
from pplr_audit.training.onlooker import NoOnlooker
from pplr_audit.training.side_by_side import _Apart, allowed, side_by_side, width
from pplr_audit.training.spec import own_training
from pplr_audit.training.utility.measure import utility_rows

ROUNDS = 2


def test_tasks_come_back_in_order_with_tensors_and_errors_in_their_turn() -> None:
    def squared(number: int) -> tuple[int, torch.Tensor]:
        time.sleep(0.05 * (number == 0))
        if number == 3:
            raise RunError("three")
        return os.getpid(), torch.full((2,), float(number * number))

    with allowed(2):
        assert width(5) == 2
        found = side_by_side([partial(squared, number) for number in range(5)])
        seen = [next(found) for _ in range(3)]
        with pytest.raises(RunError, match="three"):
            next(found)
    assert [values.tolist() for _, values in seen] == [[0, 0], [1, 1], [4, 4]]
    assert os.getpid() not in {process for process, _ in seen}
    assert width(5) == 1
    assert [process for process, _ in side_by_side([partial(squared, 1)])] == [os.getpid()]


def test_with_several_threads_nothing_is_forked() -> None:
    torch.set_num_threads(2)
    try:
        with allowed(2):
            assert width(5) == 1
    finally:
        torch.set_num_threads(1)


def test_a_process_that_is_killed_is_one_error_and_leaves_none_behind() -> None:
    def die(place: int) -> None:
        if place:
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)

    started = time.monotonic()
    with allowed(2), pytest.raises(RunError, match="ended with -9"):
        list(side_by_side([partial(die, 0), partial(die, 1)]))
    assert time.monotonic() - started < 30


def test_a_process_that_is_killed_within_its_answer_is_the_same_error() -> None:
    def die(answer: connection.Connection) -> None:
        os.write(answer.fileno(), (1000).to_bytes(4, "big") + b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    apart = _Apart(lambda: None, get_context("fork"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pplr_audit.training.side_by_side._work", lambda task, answer: die(answer))
        apart.start()
        apart.end()
    with pytest.raises(RunError, match="ended with -9"):
        apart.result()


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def trained(asked: scenario.Scenario, folder: Path, at_once: int) -> dict[str, bytes]:
    """All tensors that a training leaves."""
    spec = own_training(asked)
    job = Inputs(_silent).job(spec, asked, [1, 2])
    with Store.open(folder, spec.text, spec.digest, TRAINING) as store, allowed(at_once):
        resume.train(job.federation, TrainingFiles(store, [1, 2], job.federation), ROUNDS, lambda n=1, note="": None)
        logs = TrainingFiles(store).logs(ROUNDS)
        assert all(0 < float(log.alongside or 0) <= log.seconds + 0.01 for log in logs)
        sent = repr([(dict(sorted(log.sent.items())), log.losses, log.catalogue) for log in logs]).encode()
        return {name: store.read_bytes(name) for name in store.paths() if name.endswith(".safetensors")} | {"": sent}


class _silent:  # a phase of no progress
    def __init__(self, name: str) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("strategy", ["pplr", "ditto"])
def test_clients_side_by_side_leave_the_bits_of_clients_one_after_the_other(
    small_scenario: scenario.Scenario, tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = small_scenario.training.model_copy(update={"strategy": strategy})
    asked = small_scenario.model_copy(update={"training": training})
    here: list[int] = []
    original: Callable[..., float] = Client.train_round
    monkeypatch.setattr(Client, "train_round", lambda *given: (here.append(1), original(*given))[1])
    apart = trained(asked, tmp_path / "apart", 2)
    assert here == [], "no client has trained in this process"
    assert apart == trained(asked, tmp_path / "here", 1)
    assert len(here) == 3 * ROUNDS
    assert len(apart) == 3 + 2 + 1


def test_of_what_crosses_a_fork_hands_back_what_a_recorder_keeps(small_scenario: scenario.Scenario) -> None:
    job = Inputs(_silent).job(own_training(small_scenario), small_scenario)
    client, server, link = job.federation.clients[0], job.federation.server, job.federation.link
    recorder = RoundRecorder(link, [1])
    recorder.begin(1)
    apart = trained_apart(client, server, link, 1, NoOnlooker())
    assert apart.crossings == [], "activations and gradients of every step would be much"
    assert {crossing.channel for crossing in apart.of_rounds} == {
        Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.STATUS
    }  # fmt: skip


def test_users_of_clients_side_by_side_are_served_and_counted_the_same(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    found = []
    for at_once in (1, 2):
        job = Inputs(_silent).job(own_training(small_scenario), small_scenario)
        tally = Tally()
        with allowed(at_once):
            utility = utility_rows(job, "none", tally, lambda n=1, note="": None)
        found.append((utility.rows, utility.balance, tally, dict(job.federation.link.sent)))
    assert found[0] == found[1]
    assert found[0][2].requests > 0

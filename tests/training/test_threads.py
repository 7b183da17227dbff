"""The threads of a run are chosen once, kept by whatever continues it, and sleep while they wait."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.cli.doctor import machine
from pplr_audit.errors import InputError
from pplr_audit.models.backbones.load import hidden_size
from pplr_audit.runs import processor
from pplr_audit.runs.progress import Advance, Bars, Lines, to
from pplr_audit.runs.store import TRAINING, Store
from pplr_audit.training import resume, threads
from pplr_audit.training.server import Server
from pplr_audit.training.threads import Choice, Cores, Pace, choose, limited, watched
from tests.conftest import comparable

WAITING = """
import sys, time
from pplr_audit.cli import main as cli

sys.argv = ["pplr-audit", "--version"]
try:
    cli.main()
except SystemExit:
    pass
assert "torch" not in sys.modules
import torch

torch.set_num_threads(2)
x = torch.ones(400_000)
x.add(1)
began = time.process_time()
for _ in range(40):
    x.add(1)
    time.sleep(0.02)
print(time.process_time() - began)
"""


def seconds_of_work(**environment: str) -> float:
    """Processor time for forty short products of two threads with pauses between them, behind ``cli.main``."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", WAITING], env={**others, **environment}, capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two threads on one core never spin for long")
def test_threads_that_wait_sleep_unless_the_environment_says_otherwise() -> None:
    asleep, spinning = seconds_of_work(), seconds_of_work(OMP_WAIT_POLICY="ACTIVE")
    assert asleep < 0.3 < spinning, (asleep, spinning)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """Say how many cores there are, and how many of them others take."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def said(usable: int, taken: float) -> None:
        monkeypatch.setattr(threads, "_places", lambda: list(range(usable)))
        for module in (threads, machine):
            monkeypatch.setattr(module, "watched", lambda: Cores(usable, taken))

    return said


@pytest.mark.parametrize(
    ("usable", "taken", "number"), [(2, 0.0, 2), (2, 1.0, 1), (2, 2.0, 1), (2, 0.3, 2), (16, 5.2, 11), (1, 0.0, 1)]
)
def test_a_large_model_gets_the_cores_that_are_free(
    free: Callable[[int, float], None], usable: int, taken: float, number: int
) -> None:
    free(usable, taken)
    assert choose(4096, 16, 512) == choose(None, 16, 512) == Choice(number, "the free cores")


@pytest.mark.parametrize(("width", "number"), [(16, 1), (32, 1), (64, 2), (96, 4), (768, 64)])
def test_a_small_model_gets_no_more_threads_than_it_can_use(
    free: Callable[[int, float], None], width: int, number: int
) -> None:
    free(64, 0.0)
    assert choose(width, 8, 60).number == number


@pytest.mark.parametrize(
    ("width", "beside", "number"), [(64, 5, 1), (64, 1, 2), (512, 5, 1), (513, 5, 2), (None, 5, 2)]
)
def test_clients_of_a_small_model_get_a_core_each(
    free: Callable[[int, float], None], monkeypatch: pytest.MonkeyPatch, width: int | None, beside: int, number: int
) -> None:
    free(2, 0.0)
    monkeypatch.setattr(threads, "usable", lambda: 2)
    assert choose(width, 16, 68, beside).number == number


@pytest.mark.parametrize(("said", "number"), [("3", 3), ("4,2", 4), (" 1 ", 1)])
def test_what_the_environment_says_counts_as_a_choice(
    free: Callable[[int, float], None], monkeypatch: pytest.MonkeyPatch, said: str, number: int
) -> None:
    free(2, 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert choose(16, 1, 1) == Choice(number, "OMP_NUM_THREADS")


@pytest.mark.parametrize("said", ["", "0", "many", "-2", "1000000"])
def test_what_is_no_number_of_threads_is_no_choice(
    free: Callable[[int, float], None], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    free(2, 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert choose(4096, 16, 512).number == 2


def test_another_program_is_seen_and_the_own_work_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert watched(0.5).taken > 0.4
        finally:
            busy.kill()
    monkeypatch.setattr(threads, "_places", lambda: [0, 1])
    work, own = iter([10.0, 13.0]), iter([4.0, 6.0])
    monkeypatch.setattr(threads, "_busy", lambda: next(work))
    monkeypatch.setattr(threads, "_own", lambda: next(own))
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    assert threads._Watch().look().taken == pytest.approx(0.5)


def test_all_libraries_compute_with_the_threads_and_get_their_own_back() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    before, torchs = {each["filepath"]: each["num_threads"] for each in threadpool_info()}, torch.get_num_threads()
    with limited(2):
        assert torch.get_num_threads() == 2
        assert {each["num_threads"] for each in threadpool_info()} == {2}
    assert {each["filepath"]: each["num_threads"] for each in threadpool_info()} == before
    assert torch.get_num_threads() == torchs


def test_the_size_of_a_model_is_told_without_loading_it(llama_folder: Path, bert_folder: Path, tmp_path: Path) -> None:
    assert hidden_size("tiny-llama") == 96
    assert hidden_size(str(llama_folder)) == hidden_size(str(bert_folder)) == 32
    (tmp_path / "config.json").write_text("[]")
    assert hidden_size(str(tmp_path)) is hidden_size("nobody/no-such-model") is None


class Told:
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda n=1, note="": None

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([(10, 0.0), (11, 0.0)], ""),
        ([(10, 1.9), (11, 1.9)], "round 1 took 10 s: other programs kept 1.9 of 2 cores busy beside the 2 threads"),
        ([(10, 0.1), (90, 1.9), (95, 1.9)], "round 2 took 90 s"),
        ([(10, 0.1), (90, 0.1)], ""),  # slow by itself
        ([(10, 0.1), (11, 1.9)], ""),  # beside others, and not slow
        ([(1, 1.9)], ""),
    ],
)
def test_a_round_that_others_made_slow_is_said_once(
    monkeypatch: pytest.MonkeyPatch, rounds: list[tuple[float, float]], said: str
) -> None:
    monkeypatch.setattr(threads, "_places", lambda: [0, 1])
    seen = iter([Cores(2, taken) for _, taken in rounds])
    monkeypatch.setattr(threads._Watch, "look", lambda self: next(seen))
    told = Told()
    pace = Pace(2, told.say)
    for number, (seconds, _) in enumerate(rounds, 1):
        pace.round_done(number, seconds)
    assert len(told.lines) == bool(said)
    assert said in "".join(told.lines)


def test_what_the_user_should_know_is_a_line_of_its_own_where_there_are_no_bars() -> None:
    stream = StringIO()
    shown = to(stream)
    assert isinstance(shown, Lines)
    with shown.phase("training", 3) as advance:
        advance(1, "round 1")
        shown.say("slow\x1b[2J")
    assert stream.getvalue() == "slow\\x1b[2J\n"
    bars, drawn = Bars(stream), StringIO()
    bars._stream = drawn
    bars.say("before any bar")
    with bars.phase("training", 3):
        bars.say("beside a [bar]")
    assert "before any bar\n" in drawn.getvalue()
    assert "beside a [bar]" in drawn.getvalue()


@pytest.fixture(scope="module")
def one_cut(small_scenario: scenario.Scenario) -> scenario.Scenario:
    asked = {"cuts": ((1, 1),), "attacks": ("loss",)}
    return small_scenario.model_copy(
        update={
            "audit": small_scenario.audit.model_copy(update=asked),
            "training": small_scenario.training.model_copy(update={"rivals": ("local",)}),
        }
    )


@pytest.fixture(scope="module")
def with_two(one_cut: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> audit.AuditResult:
    return audit.train(one_cut, tmp_path_factory.mktemp("two") / "run", threads=2)


@pytest.fixture
def copied(with_two: audit.AuditResult, tmp_path: Path) -> Path:
    return shutil.copytree(with_two.directory, tmp_path / "run")


def noted(directory: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((directory / "manifest.json").read_text())["compute"]
    return entries


def test_threads_processor_and_libraries_stand_in_the_manifest(with_two: audit.AuditResult) -> None:
    (entry,) = noted(with_two.directory)
    assert (entry["threads"], entry["chosen"]) == (2, "--threads")
    assert entry["processor"]["capability"] == torch.backends.cpu.get_cpu_capability()
    assert entry["processor"]["model"]
    assert entry["libraries"]["torch"] == torch.__version__
    assert with_two.document["run"]["compute"] == [entry]
    assert torch.get_num_threads() == 1  # as before the training


def test_what_continues_a_run_keeps_its_threads_and_ends_with_the_same_findings(
    one_cut: scenario.Scenario, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was trained with 2 by option; here the environment says 1, and a rival and the last round are trained anew."""
    assert os.environ["OMP_NUM_THREADS"] == "1"
    straight = audit.run(one_cut, shutil.copytree(copied, tmp_path / "straight"), threads=2)
    left: list[str] = []
    for folder in (copied / "trainings").iterdir():
        with Store.load(folder, writable=True, kind=TRAINING) as store:
            for path in store.paths():
                if "rounds/003/" in path or path.endswith(("/002/log.json", "utility.json", "per_user.safetensors")):
                    store.remove(path)
            left += store.paths()
    assert "rounds/002/state.safetensors" in left
    used: list[int] = []
    balance = Server.balance
    monkeypatch.setattr(Server, "balance", lambda *given: (used.append(torch.get_num_threads()), balance(*given))[1])
    told = Told()
    continued = audit.run(one_cut, copied, told)
    assert used
    assert set(used) == {2}
    assert comparable(continued.document) == comparable(straight.document)
    assert [entry["threads"] for entry in noted(copied)] == [2]
    assert told.lines[0] == f"{copied}: goes on with the 2 threads that it began with, not 1 (--threads)"
    assert all("other programs kept" in line for line in told.lines[1:])
    assert "2 threads (chosen by --threads)" in (copied / "report.md").read_text()


def test_other_threads_and_another_processor_are_said_and_noted(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    document = audit.attack(copied, progress=told, threads=1).document
    (line,) = told.lines
    assert "threads 2 before, 1 now" in line
    assert "last digits" in line
    assert [entry["threads"] for entry in noted(copied)] == [2, 1]
    assert document["run"]["compute"] == noted(copied)
    assert "2 threads (chosen by --threads)" in (text := (copied / "report.md").read_text())
    assert "; then 1 thread (chosen by --threads)" in text

    older = {**processor.processor(), "capability": "DEFAULT", "instructions": ["avx"]}
    monkeypatch.setattr(resume, "processor", lambda: older)
    told = Told()
    audit.attack(copied, progress=told)
    (line,) = told.lines
    assert "capability DEFAULT" in line
    assert "threads" not in line.split(": ", 1)[1].split("before")[0]
    assert [entry["threads"] for entry in noted(copied)] == [2, 1, 1]
    with Store.load(copied) as store:
        changed = [event for event in store.events() if event["kind"] == "compute_changed"]
    assert [event["now"]["threads"] for event in changed] == [1, 1]


@pytest.mark.parametrize("wrong", [0, -1, 10**9, "2", True, None])
def test_a_number_of_threads_that_is_none_is_refused_by_name(copied: Path, wrong: Any) -> None:
    with Store.load(copied, writable=True) as store:
        (entry,) = store.manifest["compute"]
        store.update_manifest(compute=[{**entry, "threads": wrong}])
    with pytest.raises(InputError, match=r"manifest\.json: .*compute"):
        audit.attack(copied)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("command", [["run", "quickstart"], ["train", "quickstart"], ["attack", "."]])
@pytest.mark.parametrize("number", ["0", "-1", "1000000", "two"])
def test_the_option_takes_a_number_of_threads(command: list[str], number: str) -> None:
    done = CliRunner().invoke(cli.app, [*command, "--threads", number])
    assert done.exit_code == 2
    assert "--threads" in done.output


def test_the_option_reaches_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[object] = []

    def stop(*arguments: object) -> None:
        given.append(arguments[3])
        raise InputError("far enough")

    for name, command in {"run": "quickstart", "train": "quickstart", "attack": str(tmp_path)}.items():
        monkeypatch.setattr(audit, name, stop)
        CliRunner().invoke(cli.app, [name, command, "--threads", "3"])
        CliRunner().invoke(cli.app, [name, command])
    assert given == [3, None] * 3


@pytest.mark.parametrize(
    ("usable", "taken", "environment", "state", "said"),
    [
        (2, 0.0, {}, "ok", "up to 2"),
        (2, 1.2, {}, "warning", "up to 1 for a training that begins now: other programs keep 1.2 cores busy"),
        (2, 1.2, {"OMP_NUM_THREADS": "2"}, "warning", "up to 2 for a training that begins now (OMP_NUM_THREADS), more"),
        (2, 1.2, {"OMP_NUM_THREADS": "1"}, "ok", "up to 1"),
        (2, 0.0, {"OMP_WAIT_POLICY": "active"}, "warning", "spin while they wait"),
        (2, 0.0, {"GOMP_SPINCOUNT": "300000"}, "warning", "spin while they wait"),
    ],
)
def test_the_doctor_says_how_many_threads_a_training_would_take(
    free: Callable[[int, float], None], monkeypatch: pytest.MonkeyPatch, usable: int, taken: float,
    environment: dict[str, str], state: str, said: str,
) -> None:  # fmt: skip
    for name in (*threads.ASLEEP, "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    free(usable, taken)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check = machine._threads()
    assert (check.name, check.state) == ("threads", state)
    assert said in check.found
    assert bool(check.advice) == (state == "warning")

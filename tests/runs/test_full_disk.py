"""A disk that fills up anywhere in a run: one message, nothing lost, and the same command continues."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.errors import InputError, RunError
from pplr_audit.runs.directory import refused
from pplr_audit.runs.store import Store
from tests.conftest import comparable

FULL = OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def disk_full_at(monkeypatch: pytest.MonkeyPatch, part: str, time: int) -> Iterator[None]:
    """The ``time``-th write to a file with ``part`` in its path takes half of the data, then the disk is full."""
    paths: dict[int, str] = {}
    opening, writing = os.open, os.write
    left, full = time, False

    def open_(path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        fd = opening(path, flags, mode, **rest)
        paths[fd] = str(path)
        return fd

    def write(fd: int, data: Any) -> int:
        nonlocal left, full
        if fd not in paths:
            return writing(fd, data)
        if full:
            raise FULL
        left -= part in paths[fd]
        if left > 0 or part not in paths[fd]:
            return writing(fd, data)
        full = True
        return writing(fd, bytes(data)[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_)
        patched.setattr(os, "write", write)
        yield
    assert full, f"nothing was written to {part} so often"


def assert_whole(directory: Path) -> None:
    """Every recorded file holds what was recorded, and no unfinished one is left."""
    with Store.load(directory) as store:
        for path in store.paths():
            store.read_bytes(path)
        store.events()
    assert not list(directory.rglob("*pplr-audit-tmp"))


def command(setting: scenario.Scenario, folder: Path) -> list[str]:
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(setting.model_dump(mode="json")))
    return ["run", str(file), "--out", str(folder / "run"), "--json"]


@pytest.mark.parametrize(
    ("part", "time", "begin"),
    [
        ("state.safetensors", 2, ""),
        ("checksums.jsonl", 9, ""),
        ("events.jsonl", 2, "trained"),
        ("report.html", 1, "trained"),
    ],
)
def test_a_disk_that_fills_up_is_exit_code_1_and_one_message_and_the_same_command_continues(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, finished: audit.AuditResult, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, part: str, time: int, begin: str,
) -> None:  # fmt: skip
    if begin:
        shutil.copytree(trained.directory, tmp_path / "run")
    call = command(small_scenario, tmp_path)
    with disk_full_at(monkeypatch, part, time):
        stopped = CliRunner().invoke(cli.app, call)
    assert stopped.exit_code == 1
    (line,) = stopped.stderr.splitlines()
    assert part in line
    assert "cannot be written: No space left on device; what was there is whole, the same command continues" in line
    assert_whole(tmp_path / "run")
    continued = CliRunner().invoke(cli.app, call)
    assert continued.exit_code == 0, continued.stderr
    assert comparable(json.loads(continued.stdout)) == comparable(finished.document)
    assert_whole(tmp_path / "run")


def test_a_limit_on_the_size_of_files_set_from_outside_ends_a_real_process_the_same_way(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, finished: audit.AuditResult, tmp_path: Path
) -> None:
    shutil.copytree(trained.directory, tmp_path / "run")
    size = 30_000  # less than what crosses of the victims

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "pplr_audit", *command(small_scenario, tmp_path)]
    stopped = subprocess.run(call, capture_output=True, text=True, env=environment, preexec_fn=limit, check=False)
    assert stopped.returncode == 1, stopped.stderr
    (line,) = stopped.stderr.splitlines()
    assert "what crossed cannot be kept: File too large; what was there is whole" in line
    assert_whole(tmp_path / "run")
    assert comparable(audit.run(small_scenario, tmp_path / "run").document) == comparable(finished.document)


def test_a_full_disk_where_the_run_would_begin_is_no_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Any:
        raise FULL

    for owner, name in ((Path, "mkdir"), (os, "open")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, full)
            with pytest.raises(RunError, match="No space left on device"):
                Store.open(tmp_path / name, "name: x\n", "a" * 64)
    denied = OSError(errno.EACCES, "Permission denied")
    assert isinstance(refused(tmp_path, "cannot be made", denied), InputError)


def test_a_full_disk_does_not_keep_a_run_from_being_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path, "name: x\n", "a" * 64).close()

    def full(*_: object) -> int:
        raise FULL

    monkeypatch.setattr(os, "pwrite", full)
    with Store.open(tmp_path, "name: x\n", "a" * 64), pytest.raises(InputError, match="another process is running it"):
        Store.open(tmp_path, "name: x\n", "a" * 64)


HELD_BACK_OR_NOT = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


def ended(call: list[str], unbuffered: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own; Python ignores an empty PYTHONUNBUFFERED, as if it was not set."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "pplr_audit", *call]
    return subprocess.run(command, text=True, env=environment, check=False, **streams)


SAID = "what was to be printed: cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("call", "unbuffered"),
    [
        (["list", "scenarios"], ""), (["data", "synthetic", "--json"], ""), (["data", "synthetic", "--json"], "1"),
        (["data", "synthetic"], "1"), (["--help"], ""), (["--version"], "1"), (["costs", "--help"], ""),
    ],
    ids=str,
)  # fmt: skip
@needs_full
def test_output_that_goes_to_a_full_disk_is_exit_code_1_and_one_message(call: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = ended(call, unbuffered, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, SAID)


@needs_full
def test_so_it_is_for_a_command_that_imports_much() -> None:
    with Path("/dev/full").open("w") as full:
        done = ended(["costs", "tiny-llama", "--json"], "", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, SAID)


@needs_full
def test_a_finished_run_whose_document_goes_to_a_full_disk_is_whole_and_says_so(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    with Path("/dev/full").open("w") as full:
        done = ended(command(small_scenario, tmp_path), "", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, SAID)
    assert_whole(tmp_path / "run")


@pytest.mark.parametrize(
    ("call", "code", "unbuffered"),
    [
        (["list", "readers"], 0, ""), (["list", "readers"], 0, "1"), (["run", "no-such"], 2, ""),
        (["no-such"], 2, "1"), (["run"], 2, ""),
    ],
    ids=str,
)  # fmt: skip
@needs_full
def test_an_error_stream_on_a_full_disk_changes_no_exit_code(call: list[str], code: int, unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = ended(call, unbuffered, stdout=subprocess.PIPE, stderr=full)
        both = ended(call, unbuffered, stdout=full, stderr=full)
    assert done.returncode == code
    assert bool(done.stdout) == (code == 0)
    assert both.returncode == (code or 1)


@HELD_BACK_OR_NOT
@pytest.mark.parametrize("call", [["list", "readers"], ["data", "synthetic"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_exit_code_1_without_a_word(call: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as broken:
        done = ended(call, unbuffered, stdout=broken, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("call", "code"), [(["data", "synthetic"], 0), (["run", "no-such"], 2)], ids=str)
def test_streams_that_are_closed_take_nothing_and_change_no_exit_code(call: list[str], code: int) -> None:
    script = 'exec "$@" >&- 2>&-'
    done = subprocess.run(["sh", "-c", script, "sh", sys.executable, "-m", "pplr_audit", *call], check=False)
    assert done.returncode == code

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

from pplr_audit import audit, cli, scenario
from pplr_audit.errors import InputError, RunError
from pplr_audit.runs import store as stores
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
    assert isinstance(stores._refused(tmp_path, "cannot be made", denied), InputError)


def test_a_full_disk_does_not_keep_a_run_from_being_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path, "name: x\n", "a" * 64).close()

    def full(*_: object) -> int:
        raise FULL

    monkeypatch.setattr(os, "pwrite", full)
    with Store.open(tmp_path, "name: x\n", "a" * 64), pytest.raises(InputError, match="another process is running it"):
        Store.open(tmp_path, "name: x\n", "a" * 64)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_goes_to_a_full_disk_is_exit_code_1_and_one_message() -> None:
    with Path("/dev/full").open("w") as full:
        call = [sys.executable, "-m", "pplr_audit", "list", "scenarios"]
        done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "what was to be printed: cannot be written: No space left on device\n"

"""The main job killed at a chosen place and continued: the findings are the same, or what was damaged is named."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from tests.conftest import comparable
from tests.forked import command_line


def shell(setting: scenario.Scenario, folder: Path, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    file = folder / "scenario.yaml"
    if not file.exists():
        file.write_text(yaml.safe_dump(setting.model_dump(mode="json")))
    call = ["run", str(file), "--out", str(folder / "run"), "--json"]
    return command_line(call, folder, failpoint)


@pytest.fixture(scope="module")
def killed(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], None]:
    """Leave in a folder a run that was killed at a failpoint, once each; only a round's begins with the training."""

    @cache
    def made(failpoint: str) -> Path:
        folder = tmp_path_factory.mktemp("killed")
        if not failpoint.startswith("round"):
            shutil.copytree(trained.directory, folder / "run")
        assert shell(small_scenario, folder, failpoint=failpoint).returncode == -signal.SIGKILL
        assert not (folder / "run" / "findings.json").exists()
        return folder / "run"

    def left(failpoint: str, folder: Path) -> None:
        shutil.copytree(made(failpoint), folder / "run")

    return left


@pytest.mark.parametrize("failpoint", ["round#4", "attack#3", "report"])
def test_a_run_killed_and_continued_ends_with_the_same_findings(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, killed: Callable[[str, Path], None],
    tmp_path: Path, failpoint: str,
) -> None:  # fmt: skip
    killed(failpoint, tmp_path)
    continued = shell(small_scenario, tmp_path)
    assert continued.returncode == 0, continued.stderr
    assert comparable(json.loads(continued.stdout)) == comparable(finished.document)


@pytest.mark.parametrize(
    ("failpoint", "pattern"),
    [("attack#3", "trainings/*/rounds/002/state.safetensors"), ("report", "guesses/ridge-front*k0*")],
)
def test_a_file_damaged_between_a_kill_and_the_continuation_is_refused_and_does_not_become_a_finding(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, killed: Callable[[str, Path], None],
    tmp_path: Path, failpoint: str, pattern: str,
) -> None:  # fmt: skip
    killed(failpoint, tmp_path)
    (victim,) = (tmp_path / "run").glob(pattern)
    data = victim.read_bytes()
    victim.write_bytes(data[:-7])
    refused = shell(small_scenario, tmp_path)
    assert refused.returncode == 2
    assert victim.name in refused.stderr
    victim.write_bytes(data)
    continued = shell(small_scenario, tmp_path)
    assert comparable(json.loads(continued.stdout)) == comparable(finished.document)

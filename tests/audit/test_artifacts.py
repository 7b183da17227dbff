"""Fits of a run lie in its directory: written once, read again bit for bit, refused where they are something else."""

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pplr_audit.audit.artifacts import StoredArtifacts
from pplr_audit.audit.run_attack import run_attack
from pplr_audit.errors import InputError, RunError
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View
from pplr_audit.training.side_by_side import allowed

MADE = {"x": torch.tensor([0.1, float("inf"), -0.0]), "n": torch.tensor(2**40), "b": torch.ones(2).bfloat16()}


def opened(root: Path) -> Store:
    return Store.open(root, "name: x\n", "0" * 64)


def made(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    yield from ((place, MADE) for place in missing)


def never(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    raise AssertionError("it is there already")
    yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run that holds two fits."""
    with opened(tmp_path / "run") as store:
        StoredArtifacts(store).fitted("fit", {1: {"a": 1}, 2: {"a": 2}}, made, 1)
    return tmp_path / "run"


def test_a_fit_is_written_once_and_read_again_bit_for_bit(root: Path) -> None:
    files = sorted((root / "artifacts").iterdir())
    assert [file.name[:4] for file in files] == ["fit-", "fit-"]
    before = [file.stat().st_mtime_ns for file in files]
    with opened(root) as store:
        artifacts = StoredArtifacts(store)
        found = artifacts.fitted("fit", {1: {"a": 1}, 2: {"a": 2}}, never, 1)
        for file in files:
            file.unlink()
        assert artifacts.fitted("fit", {1: {"a": 1}}, never, 1).keys() == MADE.keys(), "nothing is read twice"
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in MADE.items())
    assert len(before) == 2


@pytest.mark.parametrize(
    ("how", "said"),
    [("altered", "altered"), ("cut", "truncated"), ("missing", "is missing"), ("foreign", "another fit")],
)
def test_a_file_that_is_not_what_was_written_is_refused_by_name(root: Path, how: str, said: str) -> None:
    first, second = sorted((root / "artifacts").iterdir())
    whole = {file: file.read_bytes() for file in (first, second)}
    with opened(root) as store:
        for file, other in ((first, second), (second, first)):
            if how == "foreign":  # recorded as it should be, and yet another fit
                store.write_bytes(f"artifacts/{file.name}", whole[other])
            elif how == "missing":
                file.unlink()
            else:
                file.write_bytes(whole[file][:-1] + (b"\xff" if how == "altered" else b""))
        artifacts = StoredArtifacts(store)
        with pytest.raises(InputError, match=rf"artifacts/fit-[0-9a-f]{{16}}\.safetensors.*{said}"):
            artifacts.fitted("fit", {1: {"a": 1}}, never, 1)
        assert artifacts.broken is not None


def test_what_a_kill_left_unrecorded_is_made_again(root: Path) -> None:
    with opened(root) as store:
        for path in store.paths("artifacts"):
            data = store.read_bytes(path)
            store.remove(path)
            (root / path).write_bytes(data[:7])
        artifacts = StoredArtifacts(store)
        assert torch.equal(artifacts.fitted("fit", {1: {"a": 1}}, made, 1)["n"], MADE["n"])


class Learning:
    """A third party's attack that learns something, and catches whatever goes wrong."""

    name, secret, channels, controls = "learning", "history", frozenset({Channel.FRONT_ACTIVATIONS}), 0

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        found = knowledge.fitted("fit", {"a": 1}, lambda: MADE)
        assert torch.equal(found["x"], MADE["x"])
        raise OSError("of its own")


def test_a_damaged_fit_ends_the_audit_and_is_no_failure_of_the_attack(root: Path) -> None:
    nothing: object = None
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", (Record(0, "a", 1, 0, torch.ones(1, 1)),))
    for file in (root / "artifacts").iterdir():
        file.write_bytes(b"damaged")
    with opened(root) as store:
        turn = Knowledge("base", nothing, torch.zeros(1, 1), nothing, {}, (), 3, 3, artifacts=StoredArtifacts(store))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="truncated or altered"):
            run_attack(Learning(), view, [turn], 60)


def test_a_disk_that_refuses_a_fit_ends_the_audit(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        artifacts = StoredArtifacts(store)
        (tmp_path / "run" / "artifacts").write_text("in the way")
        with pytest.raises((InputError, RunError)):
            artifacts.fitted("fit", {1: {"a": 1}}, made, 1)
        assert artifacts.broken is not None
    shutil.rmtree(tmp_path / "run")


def test_fits_made_ahead_in_forks_are_there_for_whoever_asks_and_an_error_is_left_to_them(tmp_path: Path) -> None:
    asked: list[int] = []
    with opened(tmp_path / "run") as store:
        artifacts = StoredArtifacts(store)

        def task(number: int) -> None:
            asked.append(number)  # in a fork: nobody here sees it
            if number == 3:
                raise ValueError("a third party's attack")
            artifacts.fitted("fit", {number: {"a": number}}, made, number)

        with allowed(2):
            artifacts.ahead([partial(task, number) for number in (1, 2, 3)])
        assert asked == []
        assert artifacts.apart is None
        assert len(list((tmp_path / "run/artifacts").iterdir())) == 2
        for number in (1, 2):
            assert artifacts.fitted("fit", {number: {"a": number}}, never, number).keys() == MADE.keys()
        artifacts.ahead([partial(task, 4), partial(task, 5)])
        assert asked == [], "one at a time nothing is made ahead"

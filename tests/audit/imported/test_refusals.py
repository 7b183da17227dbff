"""A recording that is not what it should be is refused in one line, before anything is written."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from pplr_audit.cli.main import app
from tests.audit.imported.conftest import Draft

Write = Callable[..., None]
OBSERVATIONS = "observations.safetensors"


@pytest.fixture
def folder(sequences: Draft, write: Write, tmp_path: Path) -> Path:
    write(tmp_path / "in", sequences.said, sequences.tensors, sequences.truth)
    return tmp_path / "in"


def refused(folder: Path, attack: str = "ridge") -> str:
    """The message of a refusal, which leaves nothing behind."""
    out = folder.parent / "out"
    done = CliRunner().invoke(app, ["import", str(folder), "--out", str(out), "--attack", attack])
    assert done.exit_code == 2, done.output
    assert not out.exists()
    assert len(done.output.strip().splitlines()) == 1, done.output
    return done.output


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "recording.json"
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))


def replaced(folder: Path, data: bytes, name: str = OBSERVATIONS) -> None:
    """Put other bytes into a file, and their size and hash into the manifest."""
    (folder / name).write_bytes(data)
    listed = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    changed(folder, lambda said: said["files"].update({name: listed}))


FIELDS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda s: s.pop("channel"), "channel: Field required"),
    (lambda s: s.update(channel="smoke_signals"), "channel: Input should be"),
    (lambda s: s.update(channel="model_output"), "channel: Input should be"),
    (lambda s: s.update(schema="pplr-audit/recording/2"), "schema: Input should be"),
    (lambda s: s.update(history="3"), "history: Input should be a valid integer"),
    (lambda s: s.update(adversary="aggregator"), "channel: aggregator does not see front_activations"),
    (lambda s: s["model"].pop("backbone"), "model.backbone: is required"),
    (lambda s: s["model"].update(backbone="/no/such/folder"), "/no/such/folder"),
    (lambda s: s["model"]["cut"].update(front=9), "front"),
    (lambda s: s["model"]["cut"].update(back=1), "model.cut: no block is left for the server"),
    (lambda s: s["observations"].append(s["observations"][0]), "stands there twice"),
    (lambda s: s["observations"][1].update(client="nobody"), "observations[1].client: 'nobody'"),
    (lambda s: s["observations"][1].update(length=10**15), "observations[1].length"),
    (lambda s: s["observations"][1].update(length=3), "shape"),
    (lambda s: s["observations"][1].update(round=7), "observations[1].round"),
    (lambda s: s["observations"].pop(), "is of no row"),
    (lambda s: s["files"].update({"/etc/passwd": s["files"][OBSERVATIONS]}), "files./etc/passwd"),
    (lambda s: s["files"].update({"../observations.safetensors": s["files"][OBSERVATIONS]}), "files"),
    (lambda s: s["files"].pop(OBSERVATIONS), "observations.safetensors is missing"),
    (lambda s: s["files"].pop("truth.json"), "truth.json lies in the folder and is not listed"),
    (lambda s: s["files"][OBSERVATIONS].update(bytes=2**32), "truncated or altered"),
    (lambda s: s["files"][OBSERVATIONS].update(bytes=10**18), "files.observations.safetensors.bytes"),
]


@pytest.mark.parametrize(("change", "told"), FIELDS)
def test_a_wrong_field_is_named(folder: Path, change: Callable[[dict[str, Any]], object], told: str) -> None:
    changed(folder, change)
    message = refused(folder)
    assert told in message
    assert str(folder) in message


def huge() -> bytes:
    """A file that says of itself that it holds an exabyte."""
    header = json.dumps({"0": {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]}}).encode()
    return len(header).to_bytes(8, "little") + header


DATA: list[tuple[Callable[[dict[str, torch.Tensor]], bytes], str]] = [
    (lambda t: pickle.dumps(t), OBSERVATIONS),
    (lambda t: huge(), OBSERVATIONS),
    (lambda t: save({k: v[:, :-1].contiguous() for k, v in t.items()}), "shape"),
    (lambda t: save({k: v * float("nan") for k, v in t.items()}), "not finite"),
    (lambda t: save({k: v.int() for k, v in t.items()}), "int32 (accepted: float32"),
    (lambda t: save({k: v for k, v in t.items() if k != "0"}), "'0' is missing"),
    (lambda t: save({**t, "x" * 501: t["0"].clone()}), "a name of 501 characters"),
    (lambda t: save({**t, "extra": t["0"].clone()}), "'extra' is of no row"),
]


@pytest.mark.parametrize(("make", "told"), DATA)
def test_wrong_tensors_are_named(
    folder: Path, sequences: Draft, make: Callable[[dict[str, torch.Tensor]], bytes], told: str
) -> None:
    replaced(folder, make(sequences.tensors))
    message = refused(folder)
    assert told in message
    assert OBSERVATIONS in message


def test_a_file_that_was_altered_or_is_a_link_or_missing_is_refused(folder: Path) -> None:
    file = folder / OBSERVATIONS
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "truncated or altered" in refused(folder)
    file.write_bytes(data + b" ")
    assert "truncated or altered" in refused(folder)
    file.rename(folder / "elsewhere")
    assert "no such file" in refused(folder)
    file.symlink_to(folder / "elsewhere")
    assert "a link" in refused(folder)
    (folder / "recording.json").write_text("{")
    assert "recording.json" in refused(folder)
    (folder / "recording.json").unlink()
    assert "recording.json: no such file" in refused(folder)


TRUTHS: list[tuple[Callable[[list[dict[str, Any]]], object], str]] = [
    (lambda rows: rows.pop(), "is missing"),
    (lambda rows: rows.append(dict(rows[0])), "stands there twice"),
    (lambda rows: rows[0].update(row=999), "rows[0].row: 999 is not asked about"),
    (lambda rows: rows[0]["samples"][0].update(items=[999]), "an item that the catalogue"),
    (lambda rows: rows[0]["samples"][0]["items"].pop(), "tokens, and"),
    (lambda rows: rows[0].update(user="me"), "rows[0].user"),
]


@pytest.mark.parametrize(("change", "told"), TRUTHS)
def test_a_truth_that_does_not_fit_is_refused(
    folder: Path, change: Callable[[list[dict[str, Any]]], object], told: str
) -> None:
    truth = json.loads((folder / "truth.json").read_text())
    change(truth["rows"])
    replaced(folder, json.dumps(truth).encode(), "truth.json")
    message = refused(folder)
    assert told in message
    assert "truth.json" in message


@pytest.mark.parametrize(
    ("attack", "told"),
    [("loss", "loss reads"), ("linkage", "linkage asks for linkage"), ("fsha", "chooses what is sent"),
     ("nosuch", "unknown name"), ("ridge={words: 3}", "unknown setting")],
)  # fmt: skip
def test_an_attack_that_a_recording_has_nothing_for_is_refused(folder: Path, attack: str, told: str) -> None:
    assert told in refused(folder, attack)


def test_another_recording_does_not_go_on_in_the_same_directory(folder: Path) -> None:
    out = folder.parent / "out"
    command = ["import", str(folder), "--out", str(out), "--attack", "ridge={prompts: 16}"]
    assert CliRunner().invoke(app, command).exit_code == 0
    before = (out / "findings.json").read_bytes()
    changed(folder, lambda said: said.update(seed=5))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "holds another attacked recording" in done.output
    assert (out / "findings.json").read_bytes() == before
    for other in ("attack", "report"):
        done = CliRunner().invoke(app, [other, str(out)])
        assert done.exit_code == 2
        assert "not a run of pplr-audit" in done.output


def test_a_directory_and_an_attack_have_to_be_given(folder: Path, tmp_path: Path) -> None:
    for options, told in ((["--attack", "ridge"], "--out: give"), (["--out", str(tmp_path / "x")], "--attack: give")):
        done = CliRunner().invoke(app, ["import", str(folder), *options])
        assert done.exit_code == 2
        assert told in done.output

"""A recording is attacked the same way as a run: with the same values, controls, seals and truths."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit.audit.imported.attack_recording import cells_of
from pplr_audit.audit.imported.inputs import RecordedInputs
from pplr_audit.audit.imported.manifest import Manifest, TruthFile, understood_as
from pplr_audit.audit.imported.recording import read
from pplr_audit.audit.plan import attack_of
from pplr_audit.cli.main import app
from pplr_audit.runs.documents import validate
from pplr_audit.runs.store import Store
from tests.audit.imported.conftest import PAGE, RIDGE, Draft, Source, exported, said_of
from tests.toys import FOLDER

Write = Callable[..., None]


def measured(document: dict[str, Any], **wanted: object) -> list[dict[str, Any]]:
    return [row for row in document["findings"] if all(row[name] == value for name, value in wanted.items())]


def test_the_documents_on_the_page_are_read() -> None:
    manifest, truth = re.findall(r"```json\n(.*?)```", PAGE, flags=re.S)
    assert understood_as(Manifest, manifest.encode(), Path("recording.json")).name == "other-system"
    assert len(understood_as(TruthFile, truth.encode(), Path("truth.json")).rows) == 2


@pytest.mark.parametrize("channel", ["front_activations", "inference_activations"])
def test_ridge_finds_in_a_recording_of_a_run_what_it_finds_in_the_run_and_less_in_its_control(
    source: Source, channel: str, write: Write, tmp_path: Path
) -> None:
    draft = exported(source, channel)
    write(tmp_path / "in", draft.said, draft.tensors, draft.truth)
    result = audit.import_recording(tmp_path / "in", tmp_path / "out", [RIDGE])
    validate(result.document)
    assert json.loads((tmp_path / "out" / "findings.json").read_text()) == result.document
    run = source.document
    compared = 0
    for row in measured(result.document, attack="ridge"):
        (own,) = measured(run, attack="ridge", channel=channel, metric=row["metric"])
        assert row["status"] == own["status"] == "ok"
        assert (row["value"], row["n"], row["cut"], row["round"]) == (own["value"], own["n"], own["cut"], own["round"])
        compared += 1
    assert compared > 4
    (tokens,) = measured(result.document, metric="token_accuracy")
    assert (tokens["knowledge"], tokens["detail"]["recording"]) == ("base", "other-system")
    assert 0.1 < tokens["value"] < 1
    assert tokens["detail"]["control"] < 0.5 * tokens["value"]
    assert result.document["run"]["recording"]["scored"]


def test_answers_are_sealed_once_and_a_second_call_reads_them(sequences: Draft, write: Write, tmp_path: Path) -> None:
    write(tmp_path / "in", sequences.said, sequences.tensors, sequences.truth)
    first = audit.import_recording(tmp_path / "in", tmp_path / "out", [RIDGE])
    sealed = {file: file.read_bytes() for file in (tmp_path / "out" / "guesses").iterdir()}
    assert len(sealed) == 1
    again = audit.import_recording(tmp_path / "in", tmp_path / "out", [RIDGE])
    assert again.document["findings"] == first.document["findings"]
    assert {file: file.read_bytes() for file in sealed} == sealed


def test_the_other_attacks_on_activations_read_a_recording_too(sequences: Draft, write: Write, tmp_path: Path) -> None:
    some = sorted(sequences.truth, key=lambda row: int(row["row"]))[:3]
    rows = {row["row"] for row in some}
    seen = [each for each in sequences.said["observations"] if each["row"] in rows]
    write(tmp_path / "in", {**sequences.said, "observations": seen},
          {key: value for key, value in sequences.tensors.items() if int(key) in rows}, some)  # fmt: skip
    asked = [{"embedding_match": {"steps": 5, "prompts": 32, "held_out": 4}}, "prefix_search"]
    document = audit.import_recording(tmp_path / "in", tmp_path / "out", asked).document
    for name in ("embedding_match", "prefix_search"):
        (row,) = measured(document, attack=name, metric="token_accuracy")
        assert row["status"] == "ok"
        assert row["value"] > row["detail"]["control"]


def test_without_a_truth_answers_are_sealed_and_not_scored(sequences: Draft, write: Write, tmp_path: Path) -> None:
    write(tmp_path / "in", {**sequences.said, "defense": "noise"}, sequences.tensors)
    command = ["import", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--attack", "ridge={prompts: 32}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "recording of another system" in " ".join(done.output.split())
    assert len([*(tmp_path / "out" / "guesses").iterdir()]) == 1
    document = json.loads((tmp_path / "out" / "findings.json").read_text())
    validate(document)
    assert {row["status"] for row in document["findings"]} == {"skipped"}
    assert {(row["defense"], row["adaptive"]) for row in document["findings"]} == {("noise", False)}
    assert "truth.json" in document["findings"][0]["detail"]["reason"]


def test_adapters_that_the_adversary_has_are_its_front(
    source: Source, sequences: Draft, write: Write, tmp_path: Path
) -> None:
    (cell,) = (cell for cell in source.plan.cells if cell.channel == "front_activations")
    adapters = {
        f"{client}/{name}": value.clone()
        for client, own in source.harness._state(cell.round).adapters.items()
        for name, value in own.items()
    }
    write(tmp_path / "in", sequences.said, sequences.tensors, sequences.truth, adapters)
    document = audit.import_recording(tmp_path / "in", tmp_path / "out", [RIDGE]).document
    (own,) = measured(source.document, channel="front_activations", metric="token_accuracy")
    (row,) = measured(document, metric="token_accuracy")
    assert row["knowledge"] == "front"
    assert row["value"] > own["value"], "the front that made what crossed inverts it better than the public weights"


@pytest.fixture
def bias(install: Callable[..., Path]) -> None:
    """The toy attack that names a client by the bias of its updates."""
    points = "[pplr_audit.attacks]\nbias = toy_bias:Bias\nlister = toy_readers:Lister\n"
    modules = {f"toy_{name}": (FOLDER / f"{name}.py").read_text() for name in ("bias", "readers")}
    install("toy-attacks", "0.1", points, **modules)


def updates_of(source: Source) -> Draft:
    """Updates of two rounds, each client with a mark of its own; nobody is named in the second."""
    model = source.harness._model
    held = model.whole.held_by_client(2, 0)
    clients = sorted(source.harness.private.samples)
    tensors, seen, truth = {}, [], []
    for round_ in (1, 2):
        for place, client in enumerate(clients):
            row = (round_ - 1) * len(clients) + (place + round_) % len(clients)
            generator = torch.Generator().manual_seed(row)
            for name in held:
                noise = torch.randn(model.initial[name].shape, generator=generator)
                tensors[f"{row}/{name}"] = 1e-4 * noise + 1e-2 * (place + 1)
            seen.append({"row": row, "round": round_, **({"client": client} if round_ == 1 else {})})
            if round_ == 2:
                samples = [{"items": [place, place + 3], "target": place + 5}]
                truth.append({"row": row, "user": place, "client": client, "samples": samples})
    said = said_of(source, adversary="aggregator", channel="client_update", observations=seen)
    return Draft(said, tensors, truth)


def test_a_toy_names_the_client_of_an_update_in_a_recording_and_not_in_its_control(
    source: Source, bias: None, write: Write, tmp_path: Path
) -> None:
    draft = updates_of(source)
    write(tmp_path / "in", draft.said, draft.tensors, draft.truth)
    document = audit.import_recording(tmp_path / "in", tmp_path / "out", ["bias", "lister"]).document
    validate(document)
    (named,) = measured(document, attack="bias", metric="owner_hit@1")
    assert (named["status"], named["value"], named["n"]) == ("ok", 1.0, 3)
    assert named["detail"]["control"] == 0.0
    assert named["detail"]["also_rounds"] == [1]
    (listed,) = measured(document, attack="lister", metric="item_recall")
    assert listed["status"] == "ok"
    assert len(listed["detail"]["seen"]) == 3, "of the newest round alone"


@pytest.mark.parametrize("secret", ["items", "owner"])
def test_no_attack_is_told_by_the_truth_or_the_manifest_whose_an_update_is(
    source: Source, bias: None, write: Write, tmp_path: Path, secret: str
) -> None:
    draft = updates_of(source)
    seen = [dict(each) for each in draft.said["observations"]]
    if secret == "owner":  # the recorder knew, and the question hides it
        clients = {each["row"]: each["client"] for each in draft.truth}
        seen = [{"client": clients.get(each["row"]), **each} for each in seen]
    write(tmp_path / "in", {**draft.said, "observations": seen}, draft.tensors, draft.truth)
    recording = read(tmp_path / "in")
    attacks = dict([attack_of("lister" if secret == "items" else "bias", "--attack")])
    (cell,) = cells_of(recording, attacks)
    with Store.open(tmp_path / "out", "", "digest") as store:
        view = RecordedInputs(recording, attacks, store).view(cell)
    newest = [update for update in view.records if update.round == 2]
    assert {*view.asked} == {update.row for update in newest} == {each["row"] for each in draft.truth}
    assert {update.client for update in newest} == {*view.asked.values()} == {""}
    assert {*recording.clients.values()} == {*recording.manifest.clients}, "scoring knows"

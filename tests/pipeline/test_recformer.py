"""RecFormer from a scenario file to a report, by the command line: run, attack and continue, and what does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.runs.documents import validate, validate_evidence
from pplr_audit.training.server import Server
from tests.conftest import LAYERS, comparable


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def written(setting: scenario.Scenario, folder: Path) -> Path:
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(setting.model_dump(mode="json")))
    return file


@pytest.fixture(scope="module")
def done(recformer_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("recformer")
    return folder / "run", invoked("run", written(recformer_scenario, folder), "--out", folder / "run", "--json")


@pytest.fixture(scope="module")
def document(done: tuple[Path, Result]) -> dict[str, Any]:
    assert done[1].exit_code == 0, done[1].stderr
    return json.loads(done[1].stdout)


def of(document: dict[str, Any], **wanted: object) -> list[dict[str, Any]]:
    return [row for row in document["findings"] if all(row[name] == value for name, value in wanted.items())]


def test_a_run_ends_with_findings_that_its_schemas_accept_and_a_report(
    done: tuple[Path, Result], document: dict[str, Any]
) -> None:
    directory, _ = done
    validate(document)
    assert json.loads((directory / "findings.json").read_text()) == document
    validate_evidence(json.loads((directory / "evidence.json").read_text()))
    for name in ("report.html", "report.md"):
        assert (directory / name).stat().st_size > 1000
    assert "recformer" in (directory / "report.md").read_text().lower()


def test_ridge_is_measured_at_the_cuts_asked_for_in_training_and_in_serving(document: dict[str, Any]) -> None:
    for channel in ("front_activations", "inference_activations"):
        rows = of(document, attack="ridge", channel=channel, metric="token_accuracy", status="ok")
        assert [row["cut"]["front"] for row in rows] == [1, 2]
        assert all(row["baseline"] < row["ci"][0] <= row["value"] <= row["ci"][1] for row in rows)


def test_membership_is_measured_on_the_one_number_that_ranking_gives(document: dict[str, Any]) -> None:
    rows = of(document, attack="loss", metric="auc", status="ok")
    assert {row["detail"]["mode"] for row in rows} == {"threshold", "reference"}


def test_utility_stands_beside_the_untrained_model_and_popularity(document: dict[str, Any]) -> None:
    rows = [row for row in document["utility"] if row["client"] == "all"]
    assert {row["strategy"] for row in rows} == {"pplr", "untrained", "popularity", "best_possible"}
    assert {row["n"] for row in rows if row["strategy"] == "pplr"} == {30}


def test_the_measured_costs_of_the_cut_that_ran_are_the_computed_ones(document: dict[str, Any]) -> None:
    (row,) = [row for row in document["costs"] if row["measured"] is not None]
    assert row["cut"] == {"front": 1, "back": 1}
    for name in ("client_parameters", "client_bytes", "wire_bytes_per_sample", "wire_bytes_per_round"):
        assert row["measured"][name] == pytest.approx(row[name], rel=1e-9), name
    for name in ("client_flops_per_token", "training_flops_per_token", "serving_wire_bytes_per_request"):
        assert row["measured"][name] == pytest.approx(row[name], rel=0.05), name


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def balance(*_: object) -> None:
        raise AssertionError("a training where there should be none")

    monkeypatch.setattr(Server, "balance", balance)


@pytest.mark.usefixtures("no_training", "document")
def test_an_attack_at_another_cut_is_added_without_training_again(
    done: tuple[Path, Result], document: dict[str, Any]
) -> None:
    more = invoked("attack", done[0], "--cut", "0,1", "--json")
    assert more.exit_code == 0, more.stderr
    extended = json.loads(more.stdout)
    validate(extended)
    rows = of(extended, attack="ridge", channel="front_activations", metric="token_accuracy", status="ok")
    values = {row["cut"]["front"]: row["value"] for row in rows}
    assert set(values) == {0, 1, 2}
    for row in of(document, attack="ridge", channel="front_activations", metric="token_accuracy", status="ok"):
        assert values[row["cut"]["front"]] == row["value"]


def test_trained_first_and_attacked_later_is_the_same(
    recformer_scenario: scenario.Scenario, document: dict[str, Any], tmp_path: Path
) -> None:
    """The item tables of the trained models are those that the training left in the run directory."""
    file = written(recformer_scenario, tmp_path)
    trained = invoked("train", file, "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.stderr
    assert not (tmp_path / "run" / "findings.json").exists()
    attacked = invoked("attack", tmp_path / "run", "--json")
    assert attacked.exit_code == 0, attacked.stderr
    assert comparable(json.loads(attacked.stdout)) == comparable(document)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.popularity_weight=1",
            "model.popularity_weight: is only for bigrec, but",
        ),
        ("training.loss_on=all", "training.loss_on: all is only for bigrec"),
        ("model.recformer.temperature=0", "model.recformer.temperature: 0 is not accepted"),
        ("model.recformer.attributes=[title,price]", "model.recformer.attributes"),
        ("model.recformer.refresh_steps=0", "model.recformer.refresh_steps: 0 is not accepted"),
        ("training.warmup=1", "training.warmup: 1 is not accepted"),
        ("model.dropout=1", "model.dropout: 1 is not accepted"),
        ("model.max_tokens=131", "model.max_tokens: 131 exceeds the positions of"),
    ],
)
def test_what_does_not_fit_recformer_is_refused_by_field(
    recformer_scenario: scenario.Scenario, tmp_path: Path, override: str, message: str
) -> None:
    refused = invoked("run", written(recformer_scenario, tmp_path), "--out", tmp_path / "run", "--set", override)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_settings_of_recformer_are_refused_with_bigrec(small_scenario: scenario.Scenario, tmp_path: Path) -> None:
    refused = invoked(
        "run", written(small_scenario, tmp_path), "--out", tmp_path / "run", "--set", "model.recformer.pooling=mean"
    )
    assert refused.exit_code == 2
    assert "model.recformer: is only for recformer, but model.recommender is bigrec" in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("train", "cut"), [("all", (1, 0)), ("lora", (0, LAYERS))])
def test_a_training_of_other_weights_at_another_cut_ends_too(
    recformer_scenario: scenario.Scenario, tmp_path: Path, train: str, cut: tuple[int, int]
) -> None:
    ran = invoked(
        "train", written(recformer_scenario, tmp_path), "--out", tmp_path / "run", "--set",
        f"model.recformer.train={train}", "--set", f"model.cut.front={cut[0]}", "--set", f"model.cut.back={cut[1]}",
        "--set", "training.patience=1", "--set", "training.warmup=0.2", "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    (row,) = [row for row in json.loads(ran.stdout)["costs"] if row["measured"] is not None]
    assert row["cut"] == {"front": cut[0], "back": cut[1]}
    for name in ("client_parameters", "wire_bytes_per_round"):
        assert row["measured"][name] == pytest.approx(row[name], rel=1e-9), name
    assert row["measured"]["training_flops_per_token"] == pytest.approx(row["training_flops_per_token"], rel=0.05)

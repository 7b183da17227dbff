"""Rivals of a run: trained beside it as they would be alone, and compared with it user by user."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.errors import InputError, RunError
from pplr_audit.pipeline import AuditResult
from pplr_audit.report.findings.redaction import redacted
from pplr_audit.report.terminal.training import training_tables
from pplr_audit.runs import failpoints
from pplr_audit.runs.atomic import unwritable
from pplr_audit.runs.documents import validate
from pplr_audit.runs.store import TRAINING, Store
from pplr_audit.scenario.rivals import trainings
from pplr_audit.training.run_job import UTILITY, user_scores
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.utility.user_scores import compared

RIVALS = ("fedavg", {"pplr": {"ablate": ("balance",)}}, "centralized")
LABELS = ["pplr", "fedavg", "pplr without balance", "centralized"]


def changed(told: scenario.Scenario, **settings: object) -> scenario.Scenario:
    training = scenario.Training.model_validate(told.training.model_dump() | settings)
    return told.model_copy(update={"training": training})


@pytest.fixture(scope="module")
def beside(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    return audit.run(changed(small_scenario, rivals=RIVALS), tmp_path_factory.mktemp("rivals") / "run")


def rows(result: AuditResult, part: str, strategy: str) -> list[dict[str, object]]:
    return [row for row in result.document[part] if row["strategy"] == strategy]


@pytest.fixture(scope="module")
def fedavg(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    """FedAvg alone, not attacked."""
    return audit.train(changed(small_scenario, strategy="fedavg"), tmp_path_factory.mktemp("fedavg") / "run")


def test_each_is_worth_what_it_is_alone(
    beside: AuditResult, trained: AuditResult, fedavg: AuditResult, small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    pooled = audit.train(changed(small_scenario, strategy="centralized"), tmp_path / "centralized")
    for strategy, alone in (("pplr", trained), ("fedavg", fedavg), ("centralized", pooled)):
        for part in ("utility", "balance"):
            assert rows(alone, part, strategy) == rows(beside, part, strategy)


def test_pplr_without_its_balance_is_fedavg(beside: AuditResult) -> None:
    for one, other in zip(rows(beside, "utility", LABELS[1]), rows(beside, "utility", LABELS[2]), strict=True):
        assert {**one, "strategy": ""} == {**other, "strategy": ""}


def test_the_attacks_are_on_the_run_s_own_strategy_as_without_rivals(
    beside: AuditResult, finished: AuditResult
) -> None:
    found = [[row | {"seconds": 0} for row in run.document["findings"]] for run in (finished, beside)]
    assert found[0] == found[1]
    assert finished.document["differences"] == []


def test_the_differences_are_those_of_two_runs_compared(
    beside: AuditResult, fedavg: AuditResult, small_scenario: scenario.Scenario
) -> None:
    validate(beside.document)
    found = beside.document["differences"]
    assert list(dict.fromkeys(row["against"] for row in found)) == LABELS[1:]
    expected = compared(user_scores(beside.directory), user_scores(fedavg.directory), seed=small_scenario.seed)
    assert [row for row in found if row["against"] == "fedavg"] == expected


def test_the_report_says_so_in_words_and_in_a_table(beside: AuditResult) -> None:
    text = (beside.directory / "report.md").read_text(encoding="utf-8")
    assert "User by user:" in text
    assert "pplr less its rivals, with 95% intervals" in text
    strategies = list(dict.fromkeys(row["strategy"] for row in beside.document["utility"]))
    assert strategies[:4] == LABELS, "before the references"


def test_rivals_of_one_strategy_are_told_apart_by_the_settings_that_the_run_has_otherwise() -> None:
    entries = "[{pplr: {similarity: update}}, {pplr: {ablate: [speed], tau: 0.5}}, {pplr: {ablate: [speed]}}, "
    entries += "{fedprox: {proximal: 1}}, fedprox, {ditto: {proximal: 0.1}}]"
    told = scenario.load("quickstart", [f"training.rivals={entries}", "training.alpha=0.9"]).training
    assert told.label == "pplr"
    assert [rival.label for rival in trainings(told)] == [
        "pplr with similarity update", "pplr without speed with tau 0.5", "pplr without speed",
        "fedprox with proximal 1", "fedprox", "ditto",
    ]  # fmt: skip
    own = scenario.load(
        "quickstart", ["training.similarity=update", "training.rivals=[{pplr: {similarity: parameters}}]"]
    )
    assert [own.training.label, *(rival.label for rival in trainings(own.training))] == [
        "pplr", "pplr with similarity parameters",
    ]  # fmt: skip


def test_pplr_is_compared_with_itself_under_another_similarity(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    rival = {"pplr": {"similarity": "update", "tau": 0.5}}
    document = audit.train(changed(small_scenario, rivals=(rival,)), tmp_path / "run").document
    label = "pplr with similarity update, tau 0.5"
    assert {row["against"] for row in document["differences"]} == {label}
    alone = changed(small_scenario, similarity="update", tau=0.5)
    expected = [row | {"strategy": label} for row in audit.train(alone, tmp_path / "alone").document["utility"]]
    assert [row for row in document["utility"] if row["strategy"] == label] == expected[: len(expected) // 3]


def test_a_run_stopped_amid_its_rivals_goes_on_and_ends_the_same(
    beside: AuditResult, small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    reached: list[str] = []

    def reach(name: str) -> None:
        reached.append(name)
        if len(reached) == 5:
            raise Stop

    told, out = changed(small_scenario, rivals=RIVALS), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", reach)
        patch.setattr("pplr_audit.training.resume.reach", reach)
        with pytest.raises(Stop):
            audit.train(told, out)
    assert not list(out.glob(f"trainings/centralized-*/{UTILITY}"))
    again = audit.train(told, out)
    for part in ("utility", "balance", "differences"):
        assert again.document[part] == beside.document[part]


DIVERGING = ("local", {"fedprox": {"proximal": 1e30}}, "fedavg")
"""With plain gradient descent the second step of fedprox leaves everything behind."""


@pytest.fixture(scope="module")
def plain_descent(small_scenario: scenario.Scenario) -> scenario.Scenario:
    return changed(small_scenario, optimizer="sgd", learning_rate=0.01)


def written(told: scenario.Scenario, folder: Path) -> str:
    path = folder / "told.yaml"
    path.write_text(scenario.dump(told))
    return str(path)


def test_a_rival_that_diverges_is_told_of_and_stops_neither_the_others_nor_the_run(
    plain_descent: scenario.Scenario, tmp_path: Path
) -> None:
    told, out = changed(plain_descent, rivals=DIVERGING), tmp_path / "run"
    called = CliRunner().invoke(cli.app, ["run", written(told, tmp_path), "--out", str(out)])
    assert called.exit_code == 0, called.output
    document = json.loads((out / "findings.json").read_text())
    validate(document)
    (failed,) = document["run"]["failed_rivals"]
    assert failed["strategy"].startswith("fedprox")
    assert re.match(r"fedprox.*, client-0: the (adapter|loss) .*in round 1", failed["reason"])
    said = f"{failed['strategy']} was not measured, as its training broke off: {failed['reason']}"
    assert said in " ".join(called.output.split())
    assert "training broke off" in (out / "report.md").read_text()
    assert list(dict.fromkeys(row["against"] for row in document["differences"])) == ["local", "fedavg"]
    alone = audit.train(plain_descent, tmp_path / "alone").document
    for part in ("utility", "balance"):
        own = [[row for row in doc[part] if row["strategy"] == "pplr"] for doc in (document, alone)]
        assert own[0] == own[1], "what broke off has left nothing behind"
    (folder,) = out.glob("trainings/fedprox-*")
    with Store.load(folder, kind=TRAINING) as store:
        (event,) = [event for event in store.events() if event["kind"] == "training_failed"]
    assert event["error"] == failed["reason"]
    withheld = redacted(document, json.loads((out / "evidence.json").read_text()))[0]
    assert "client-0" not in json.dumps(withheld["run"])


def test_a_rival_that_broke_off_is_tried_again_when_the_run_is_continued(
    plain_descent: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = changed(plain_descent, rivals=("fedavg",))
    with monkeypatch.context() as patch:
        patch.setattr(FedAvg, "mixing", raising(RunError("fedavg: for now")))
        document = audit.train(told, tmp_path / "run").document
    assert document["run"]["failed_rivals"] == [{"strategy": "fedavg", "reason": "fedavg: for now"}]
    assert document["differences"] == []
    assert "fedavg was not measured" in str(training_tables(document)[0].caption)
    attacked = audit.attack(tmp_path / "run").document
    assert attacked["run"]["failed_rivals"][0]["strategy"] == "fedavg"
    assert "run tries it again" in attacked["run"]["failed_rivals"][0]["reason"], "attack trains nothing"
    again = audit.train(told, tmp_path / "run").document
    assert again["run"]["failed_rivals"] == []
    assert {row["against"] for row in again["differences"]} == {"fedavg"}


def test_a_full_disk_stops_a_run_amid_its_rivals(
    plain_descent: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = unwritable(tmp_path, OSError(28, "No space left on device"))
    full.__cause__ = OSError(28, "No space left on device")
    monkeypatch.setattr(FedAvg, "mixing", raising(full))
    with pytest.raises(RunError, match="No space left on device"):
        audit.train(changed(plain_descent, rivals=("fedavg",)), tmp_path / "run")


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[fedavgg]", r"training.rivals\[0\]: unknown name 'fedavgg'; did you mean 'fedavg'\?"),
        ("[{fedprox: {rounds: 3}}]", r"training.rivals.*fedprox: unknown setting 'rounds' .*proximal"),
        ("[{fedprox: {proximal: -1}}]", r"training.rivals.*fedprox: proximal: .*greater than or equal to 0"),
        ("[{fedavg: {ablate: [speed]}}]", r"training.rivals\[0\]: fedavg: ablate switches off terms of pplr"),
        ("[{pplr: {ablate: [balance, speed]}}]", "pplr: ablate balance switches off all terms"),
        ("[{pplr: {ablate: [heating, speed]}}, {pplr: {ablate: [speed, heating]}}]", "two trainings are pplr without"),
        ("[pplr]", "training.rivals.*two trainings are pplr"),
        (
            "[fedprox, {fedprox: {proximal: 0.1}}]",
            "training.rivals.*two trainings are fedprox; two of one strategy need different settings",
        ),
        ("[{pplr: {tau: 1}}, {pplr: {tau: 1, alpha: 0.7}}]", "training.rivals.*two trainings are pplr with tau 1;"),
    ],
)
def test_rivals_that_do_not_fit_are_refused_with_the_field(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario.load("quickstart", [f"training.rivals={given}"])

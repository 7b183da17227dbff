"""A run in parts: trained first, attacked later, extended by attacks and cuts that its scenario did not ask for."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pplr_audit import __version__, scenario
from pplr_audit import pipeline as audit
from pplr_audit.audit import attacking
from pplr_audit.audit.extension import Extension, attacks_at_cuts
from pplr_audit.cli import main as cli
from pplr_audit.cli.attack_options import from_options
from pplr_audit.errors import InputError, RunError
from pplr_audit.models import precision
from pplr_audit.runs.documents import validate
from pplr_audit.runs.store import Store
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View
from pplr_audit.training import resume
from pplr_audit.training.server import Server
from tests.conftest import LAYERS, comparable


def copied(result: audit.AuditResult, folder: Path) -> Path:
    shutil.copytree(result.directory, folder / "run")
    return folder / "run"


def contents(directory: Path) -> dict[str, bytes]:
    """All files; of the list of checksums, which opening a run puts in order, what it lists is checked by the store."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "checksums.jsonl"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def uncorrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings by themselves: what they are corrected for grows with the audit."""
    return [{name: value for name, value in row.items() if name != "corrected"} for row in rows]


def fronts(document: dict[str, Any], **wanted: object) -> list[int]:
    """The cuts at which an attack on what crosses in training was measured."""
    wanted = {"channel": "front_activations", "metric": "token_accuracy", "status": "ok", **wanted}
    rows = [row for row in document["findings"] if all(row[name] == value for name, value in wanted.items())]
    return [row["cut"]["front"] for row in rows]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever balances the clients now is training."""

    def balance(*_: object) -> None:
        raise AssertionError("a training where there should be none")

    monkeypatch.setattr(Server, "balance", balance)


@pytest.fixture(scope="module")
def narrow(small_scenario: scenario.Scenario) -> scenario.Scenario:
    """One attack at one cut."""
    asked = {"cuts": ((1, 1),), "attacks": small_scenario.audit.attacks[:1]}
    return small_scenario.model_copy(update={"audit": small_scenario.audit.model_copy(update=asked)})


@pytest.fixture(scope="module")
def attacked(narrow: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> audit.AuditResult:
    return audit.run(narrow, tmp_path_factory.mktemp("attacked") / "run")


def test_a_training_leaves_its_utility_and_no_finding_and_no_report(
    trained: audit.AuditResult, finished: audit.AuditResult
) -> None:
    assert trained.document["schema"] == "pplr-audit/training/1"
    assert trained.document["utility"] == finished.document["utility"]
    assert len(trained.document["costs"]) == len(finished.document["costs"])
    assert trained.report is None
    there = {path.name for path in trained.directory.iterdir()}
    assert there >= {"manifest.json", "scenario.yaml", "trainings"}
    assert not there & {"findings.json", "evidence.json", "report.html", "report.md", "cells", "guesses"}
    with pytest.raises(InputError, match="no findings yet"):
        audit.write_report(trained.directory, ["html"], redact=False)


def test_a_budget_of_one_second_ends_every_long_attack_and_not_the_run(
    narrow: scenario.Scenario, tmp_path: Path
) -> None:
    """An attack is `budget_exhausted` in every metric that it could have had, and without a value."""
    long = ({"inverter": {"prompts": 5_000}}, {"sdar": {"steps": 10**6}}, {"fsha": {"steps": 10**6}})
    asked = {"attacks": (*long, "length"), "adversaries": ("server", "malicious_server"), "budget": {"seconds": 1}}
    chosen = scenario.Scenario.model_validate(
        narrow.model_dump(mode="json") | {"audit": narrow.audit.model_dump(mode="json") | asked}
    )
    result = audit.run(chosen, tmp_path / "run")
    validate(result.document)
    measured = [row for row in result.document["findings"] if row["status"] != "not_applicable"]
    for name in ("inverter", "sdar", "fsha"):
        rows = [row for row in measured if row["attack"] == name]
        assert {row["metric"] for row in rows} >= {"token_accuracy", "item_hit@1"}
        assert all(row["status"] == "budget_exhausted" and row["value"] is None for row in rows)
        assert all(row["detail"]["reason"] == "more than 1 s" for row in rows)
    assert [row for row in measured if row["attack"] == "length" and row["status"] == "ok"]
    assert "budget exhausted" in (result.directory / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("continued_by", ["run", "attack"])
def test_run_and_attack_continue_a_training_without_training_again(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, finished: audit.AuditResult, tmp_path: Path,
    continued_by: str,
) -> None:  # fmt: skip
    directory = copied(trained, tmp_path)
    before = contents(directory / "trainings")
    result = audit.run(small_scenario, directory) if continued_by == "run" else audit.attack(directory)
    assert comparable(result.document) == comparable(finished.document)
    assert json.loads((directory / "findings.json").read_text()) == json.loads(json.dumps(result.document))
    assert result.report == directory / "report.html"
    assert contents(directory / "trainings") == before


@pytest.mark.usefixtures("no_training")
def test_an_extension_adds_cells_and_loses_nothing_and_the_scenario_still_continues_the_run(
    narrow: scenario.Scenario, attacked: audit.AuditResult, finished: audit.AuditResult, tmp_path: Path
) -> None:
    directory = copied(attacked, tmp_path)
    before = contents(directory)
    assert fronts(attacked.document) == [1]
    extended = audit.attack(directory, from_options(["loss"], ["2,0"])).document
    validate(extended)
    # The cut asked for belongs to the attack asked for; what the scenario asks for stays what it was.
    assert fronts(extended) == [1]
    extended = audit.attack(directory, from_options([], ["2,0", "2,1"])).document
    assert sorted(fronts(extended)) == [1, 2]
    assert [
        row for row in uncorrected(attacked.document["findings"]) if row not in uncorrected(extended["findings"])
    ] == []
    manifest = json.loads((directory / "manifest.json").read_text())
    assert len(manifest["extensions"]) == len(extended["run"]["audit"]["extensions"]) == 2
    audit.attack(directory, from_options(["ridge={prompts: 48, held_out: 8}"], ["2,0"]))
    assert (directory / "manifest.json").read_text().count("cuts") == 2, "what is there already is no extension"
    # What was found in parts is what one run finds that asks for all of it.
    whole = uncorrected([row for row in comparable(finished.document) if "attack" in row])
    found = uncorrected([row for row in comparable(extended) if "attack" in row])
    closed = [row for row in found if row["cut"] == {"front": 2, "back": 1}]
    assert {row["status"] for row in closed} == {"not_applicable"}
    assert [row for row in found if row not in whole and row not in closed] == []
    assert {row["attack"] for row in found if row["status"] == "ok"} == {"ridge", "loss"}

    after = contents(directory)
    for name, data in before.items():
        if name.startswith(("cells/", "guesses/", "trainings/", "scenario", "utility")):
            assert after[name] == data, name
    reports = (directory / "report.html").read_text()
    assert "k=2" in reports
    again = audit.run(narrow, directory).document
    assert comparable(again) == comparable(extended)
    assert contents(directory / "cells") == {k[6:]: v for k, v in after.items() if k.startswith("cells/")}


@pytest.mark.usefixtures("no_training")
def test_the_same_attack_with_other_settings_is_another_attack(attacked: audit.AuditResult, tmp_path: Path) -> None:
    directory = copied(attacked, tmp_path)
    extended = audit.attack(directory, from_options(["ridge={prompts: 24, held_out: 4}"], [])).document
    told = [row["detail"]["settings"] for row in extended["findings"] if row["metric"] == "token_accuracy"]
    assert {"prompts": 24, "held_out": 4} in told
    assert {"prompts": 48, "held_out": 8} in told
    assert all(row in uncorrected(extended["findings"]) for row in uncorrected(attacked.document["findings"]))
    report = (directory / "report.md").read_text()
    assert "prompts=24" in report
    assert "prompts=48" in report


def test_an_extension_that_was_broken_off_is_finished_by_the_run(
    narrow: scenario.Scenario, attacked: audit.AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copied(attacked, tmp_path)
    reports = (directory / "report.html").read_bytes()
    run_cell = attacking.run_cell

    def failing(cell: Any, *rest: Any, **named: Any) -> Any:
        if cell.front == 2:
            raise RunError("the disk is full")
        return run_cell(cell, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(attacking, "run_cell", failing)
        with pytest.raises(RunError):
            audit.attack(directory, Extension(cuts=((2, 0),)))
    assert (directory / "report.html").read_bytes() == reports
    assert sorted(fronts(audit.run(narrow, directory).document)) == [1, 2]


class Moody:
    """A third party's attack that fails on its first day."""

    name, secret, controls = "moody", "history", 1
    channels = frozenset({Channel.FRONT_ACTIVATIONS})
    works = False

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if not self.works:
            raise ZeroDivisionError
        raise NotApplicable("it is not in the mood")


def test_attack_tries_what_failed_again(
    attacked: audit.AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, names = plugins.load, plugins.names
    monkeypatch.setattr(plugins, "load", lambda kind, name: Moody if name == "moody" else load(kind, name))
    monkeypatch.setattr(plugins, "names", lambda kind: (*names(kind), *(["moody"] if kind == "attacks" else [])))
    directory = copied(attacked, tmp_path)

    def reasons(document: dict[str, Any]) -> set[str]:
        rows = [row for row in document["findings"] if row["attack"] == "moody" and row["adversary"] == "server"]
        return {row["status"] for row in rows}

    assert reasons(audit.attack(directory, from_options(["moody"], [])).document) == {"failed"}
    monkeypatch.setattr(Moody, "works", True)
    assert reasons(audit.attack(directory).document) == {"not_applicable"}


SHARP = """
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model import NotApplicable


class Sharp:
    name, secret, controls, channels = "sharp", "history", 1, frozenset({Channel.FRONT_ACTIVATIONS})

    def run(self, view, knowledge, budget):
        raise NotApplicable("it only stands here")
"""


def test_which_package_and_version_each_plugin_came_from_stands_in_manifest_and_findings(
    attacked: audit.AuditResult, tmp_path: Path, install: Callable[..., Path]
) -> None:
    install("sharp-plugin", "2.5", "[pplr_audit.attacks]\nsharp = sharp_attack:Sharp\n", sharp_attack=SHARP)
    directory = copied(attacked, tmp_path)
    document = audit.attack(directory, from_options(["sharp"], [])).document
    manifest = json.loads((directory / "manifest.json").read_text())
    assert document["run"]["plugins"] == manifest["plugins"]
    found = {(p["kind"], p["name"]): (p["package"], p["version"]) for p in manifest["plugins"]}
    ours = "pplr-audit", __version__
    assert found == {
        ("strategies", "pplr"): ours, ("attacks", "ridge"): ours,
        ("attacks", "sharp"): ("sharp-plugin", "2.5"),
    }  # fmt: skip
    assert "sharp-plugin 2.5: sharp" in (directory / "report.md").read_text()


def test_a_plugin_that_ran_in_two_versions_is_noted_in_both(tmp_path: Path, install: Callable[..., Path]) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        install("first-plugin", "1.0", "[pplr_audit.attacks]\nsharp = sharp_attack:Sharp\n")
        resume.note_plugins(store, [("attacks", "sharp")])
        install("First.Plugin", "1.1", "[pplr_audit.attacks]\nsharp = sharp_attack:Sharp\n")  # before it on the path
        for _ in range(2):
            resume.note_plugins(store, [("attacks", "sharp"), ("attacks", "never heard of")])
        assert [each["version"] for each in store.manifest["plugins"]] == ["1.0", "1.1"]


def test_what_an_extension_leaves_open_is_all_that_the_run_has_whatever_came_first() -> None:
    narrow = scenario.Audit(attacks=("ridge",), cuts=((1, 1),))
    attack, cut = Extension(attacks=("loss",)), Extension(cuts=((2, 0),))
    cells = [
        {(name, pair) for ask in attacks_at_cuts(narrow, order) for name in ask.attacks for pair in ask.cuts}
        for order in ([attack, cut], [cut, attack], [attack, cut, attack])
    ]
    assert cells[0] == cells[1] == cells[2] == {(n, c) for n in ("ridge", "loss") for c in ((1, 1), (2, 0))}
    everywhere = attacks_at_cuts(scenario.Audit(attacks=("ridge",)), [attack])
    assert [ask.cuts for ask in everywhere] == ["all", "all"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attack", "rigde"], r"--attack rigde: unknown name 'rigde'; did you mean 'ridge'\?"),
        (["--attack", "ridge={prompts: 0}"], r"--attack: ridge: prompts is 0 \(accepted: a whole number, 1 or more"),
        (["--attack", "ridge={prompt: 3}"], r"--attack: ridge: unknown setting 'prompt'; did you mean 'prompts'\?"),
        (["--attack", "loss={k: 3}"], r"--attack: loss: unknown setting 'k' \(accepted: none"),
        (["--attack", "ridge={prompts: [1"], r"--attack ridge=.*: not YAML"),
        (["--attack", "ridge=64"], r"--attack ridge=64: not of the form NAME=\{setting: value\}"),
        (["--attack", "ridge={a: 1, a: 2}"], r"a second time"),
        (["--attack", ""], r"--attack : unknown name ''"),
        (["--cut", "2"], r"--cut 2: not of the form FRONT,BACK"),
        (["--cut", "-1,0"], r"--cut -1,0: not of the form FRONT,BACK"),
        (["--cut", "1,2,3"], r"--cut 1,2,3: not of the form"),
        (["--cut", "all", "--cut", "1,1"], r"--cut all: not of the form .* single --cut all"),
        (["--cut", "3,1"], r"--cut: \[3, 1\] does not fit the 3 blocks"),
    ],
)
def test_a_wrong_extension_is_exit_code_2_and_one_message_and_nothing_written(
    finished: audit.AuditResult, options: Sequence[str], said: str
) -> None:
    before = contents(finished.directory)
    done = CliRunner().invoke(cli.app, ["attack", str(finished.directory), *options])
    assert done.exit_code == 2, done.output
    assert re.search(said, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert contents(finished.directory) == before


def test_a_run_whose_training_is_not_finished_says_how_to_finish_it(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    balance = Server.balance

    def second_round_fails(server: Server, round_: int, stopped: frozenset[str]) -> Any:
        if round_ == 2:
            raise RunError("the machine is switched off")
        return balance(server, round_, stopped)

    with monkeypatch.context() as patched:
        patched.setattr(Server, "balance", second_round_fails)
        with pytest.raises(RunError):
            audit.train(small_scenario, tmp_path / "run")
    refused = CliRunner().invoke(cli.app, ["attack", str(tmp_path / "run")])
    assert refused.exit_code == 2
    assert "training is not finished (1 of 2 rounds)" in refused.stderr
    command = refused.stderr.strip().partition("continue it with: pplr-audit ")[2].split(" ")
    done = CliRunner().invoke(cli.app, [*command, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["utility"] == trained.document["utility"]


def test_other_data_or_weights_are_refused_by_name(trained: audit.AuditResult, tmp_path: Path) -> None:
    directory = copied(trained, tmp_path)
    with Store.load(directory, writable=True) as store:
        store.update_manifest(inputs={**store.manifest["inputs"], "backbone": "0" * 64})
    done = CliRunner().invoke(cli.app, ["attack", str(directory)])
    assert done.exit_code == 2
    assert f"{directory}: began with another backbone (00000000, now " in done.stderr


@pytest.mark.parametrize("wide", [True, False])
def test_a_run_of_auto_goes_on_in_the_number_format_that_it_began_in(
    narrow: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: bool
) -> None:
    """Whatever the processor is that it goes on on; one that begins there does not, as the other of these two does."""
    monkeypatch.setattr(precision, "WIDE", 1)
    monkeypatch.setattr(precision, "in_hardware", lambda: wide)
    began, directory = "bfloat16" if wide else "float32", tmp_path / "run"
    assert audit.train(narrow, directory).document["run"]["precision"] == began
    monkeypatch.setattr(precision, "in_hardware", lambda: not wide)
    for document in (audit.attack(directory).document, audit.run(narrow, directory).document):
        assert document["run"]["precision"] == began
        assert any(row["status"] == "ok" for row in document["findings"])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for place, said in ((tmp_path / "nowhere", "no such directory"), (tmp_path, "not a run of pplr-audit")):
        done = CliRunner().invoke(cli.app, ["attack", str(place)])
        assert done.exit_code == 2
        assert said in done.stderr


def test_train_ends_with_tables_of_utility_and_costs_and_the_run_last(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, tmp_path: Path
) -> None:
    directory, file = copied(trained, tmp_path), tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(small_scenario.model_dump(mode="json")))
    done = CliRunner().invoke(cli.app, ["train", str(file), "--out", str(directory)])
    assert done.exit_code == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    assert last == str(directory)
    overall = next(row for row in trained.document["utility"] if row["metric"] == "recall@10")
    (line,) = [line for line in shown if line.split("│")[1:2] == [" all      "]]
    assert f"{overall['value']:.4f}" in line
    assert all(any(client in line for line in shown) for client in ("client-0", "client-1", "client-2"))
    assert sum("k=" in line for line in shown) == LAYERS + 1
    assert sum("k=1, m=1 (ran)" in line for line in shown) == 1
    told = CliRunner().invoke(cli.app, ["train", str(file), "--out", str(directory), "--json"])
    assert json.loads(told.stdout)["costs"] == json.loads(json.dumps(trained.document["costs"]))


def test_attack_ends_with_the_table_and_the_report_last(finished: audit.AuditResult, tmp_path: Path) -> None:
    directory = copied(finished, tmp_path)
    done = CliRunner().invoke(cli.app, ["attack", str(directory)])
    assert done.exit_code == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    assert last == str(directory / "report.html")
    assert any("token_accuracy" in line or "item_hit@1" in line for line in shown)
    told = CliRunner().invoke(cli.app, ["attack", str(directory), "--json"])
    assert comparable(json.loads(told.stdout)) == comparable(finished.document)

"""Many trainings in one run: defended, rivals, further seeds; asked anew, made side by side, planned before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.errors import InputError
from pplr_audit.runs.documents import validate
from pplr_audit.training.executor import Processes, Serial
from pplr_audit.training.server import Server
from pplr_audit.training.spec import own_training
from tests.conftest import comparable
from tests.toys import install_toys

NOISE = {"noise": {"scale": 0.05}}


def asking(small: scenario.Scenario, **sections: Any) -> scenario.Scenario:
    """The small scenario at one cut, with other fields."""
    values = small.model_dump(mode="json")
    values["audit"] |= {"cuts": [[1, 1]], "victims": 8} | sections.pop("audit", {})
    values["training"] |= sections.pop("training", {})
    return scenario.Scenario.model_validate(values | sections)


def contents(directory: Path) -> dict[str, bytes]:
    """All files but the list of checksums, which opening a run puts in order."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "checksums.jsonl"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def rows(document: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    """Findings of these values, without the time that they took and what they are corrected for."""
    left_out = ("seconds", "corrected", "seed")
    found = (row for row in document["findings"] if all(row[name] == value for name, value in wanted.items()))
    return [{name: value for name, value in row.items() if name not in left_out} for row in found]


def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def balance(*_: object) -> None:
        raise AssertionError("a training where there should be none")

    monkeypatch.setattr(Server, "balance", balance)


@pytest.fixture(scope="module")
def plain(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> audit.AuditResult:
    return audit.run(asking(small_scenario, training={"strategy": "fedavg"}), tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture
def copied(plain: audit.AuditResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain.directory, tmp_path / "run"))


def test_toy_defenses_go_from_scenario_to_report_and_leave_the_run_s_own_training_alone(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, install: Callable[..., Path]
) -> None:
    install_toys(install)
    before = contents(copied / "trainings")
    defenses = ["none", {"scale": {"factor": 0.5}}, NOISE, "sums", [{"scale": {"factor": 0.5}}, NOISE]]
    asked = asking(small_scenario, training={"strategy": "fedavg"}, defenses=defenses)
    document = audit.run(asked, copied).document
    validate(document)
    assert rows(document, defense="none") == rows(plain.document), "what was found undefended stays, bit for bit"
    after = contents(copied / "trainings")
    assert {name: after[name] for name in before} == before
    names = ["none", "scale(factor=0.5)", "noise(scale=0.05)", "sums", "scale(factor=0.5)+noise(scale=0.05)"]
    assert list(dict.fromkeys(row["defense"] for row in document["findings"])) == names
    assert len(list((copied / "trainings").iterdir())) == len(names)

    def read(defense: str) -> float:
        (row,) = rows(
            document, defense=defense, channel="front_activations", metric="token_accuracy", status="ok",
        )  # fmt: skip
        return float(row["value"])

    assert read("noise(scale=0.05)") < read("none") - 0.2, "the noise is on what was recorded"
    assert read("sums") == read("none"), "aggregation changes nothing of what crosses in a round's first step"
    against = {row["against"] for row in document["differences"]}
    assert against == {f"fedavg under {name}" for name in names[1:]}
    text = (copied / "report.md").read_text(encoding="utf-8")
    assert all(name in text for name in ("noise(scale=0.05)", "scale(factor=0.5)", "sums"))
    used = {each["name"] for each in document["run"]["plugins"] if each["kind"] == "defenses"}
    assert used == {"scale", "noise", "sums"}


def test_what_contradicts_is_refused_before_anything_is_written(
    small_scenario: scenario.Scenario, tmp_path: Path, install: Callable[..., Path]
) -> None:
    install_toys(install)
    for defenses, said in ((["sums"], "needs each of them"), ([["sums", "sums"]], "stands twice")):
        file = tmp_path / "mine.yaml"
        with pytest.raises(InputError, match=said):  # noqa: PT012
            file.write_text(json.dumps(asking(small_scenario).model_dump(mode="json") | {"defenses": defenses}))
            audit.run(scenario.load(str(file)), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_defense_that_breaks_off_leaves_the_run_its_former_question(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, install: Callable[..., Path]
) -> None:
    code = """\"\"\"Broken.\"\"\"
from pplr_audit.threat_model import Defense


class Raiser(Defense):
    acts = frozenset({"gradients"})

    def gradients(self, gradients, turn):
        raise KeyError("boom")
"""
    install("raiser", "0.1", "[pplr_audit.defenses]\nraiser = raiser_code:Raiser\n", raiser_code=code)
    with pytest.raises(InputError, match="raiser: its hook gradients breaks off with KeyError"):
        audit.run(asking(small_scenario, training={"strategy": "fedavg"}, defenses=["raiser"]), copied)
    assert (copied / "scenario.yaml").read_text() == (plain.directory / "scenario.yaml").read_text()
    assert comparable(audit.attack(copied).document) == comparable(plain.document)


def test_another_question_goes_on_in_the_same_run_without_training(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_trained(monkeypatch)
    before = contents(copied)
    fewer = {"attacks": ["loss"], "cuts": [[2, 0]]}
    asked = asking(small_scenario, training={"strategy": "fedavg"}, audit=fewer, report={"formats": ["md"]})
    document = audit.run(asked, copied).document
    assert {row["attack"] for row in document["findings"]} == {"loss"}
    after = contents(copied)
    assert {name for name in before if name.startswith(("cells/", "guesses/", "trainings/"))} <= after.keys()
    assert document["run"]["created"] == plain.document["run"]["created"]
    again = audit.run(asking(small_scenario, training={"strategy": "fedavg"}), copied).document
    assert comparable(again) == comparable(plain.document), "the first question is answered from what is there"
    times = plain.document["run"]["seconds"]
    for phase in ("training fedavg", "measuring fedavg", "attacking"):
        assert again["run"]["seconds"][phase] >= times[phase]
    assert again["run"]["seconds"]["training fedavg"] == times["training fedavg"]


def test_attack_takes_fields_of_audit_and_no_other(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_trained(monkeypatch)
    called = CliRunner().invoke(cli.app, ["attack", str(copied), "--set", "audit.victims=5"])
    assert called.exit_code == 0, called.output
    document = json.loads((copied / "findings.json").read_text())
    assert document["run"]["audit"]["victims"] == 5
    for wrong, said in (
        ("training.rounds=3", "only fields of audit can change here"), ("audit.victim=3", "victims"),
        ("audit.seeds=[1,2]", "its training is not finished"),
    ):  # fmt: skip
        called = CliRunner().invoke(cli.app, ["attack", str(copied), "--set", wrong])
        assert called.exit_code == 2
        assert said in called.stderr
    goes_on = called.stderr.strip().partition("continue it with: ")[2]
    assert goes_on == f"pplr-audit train {copied / 'scenario.yaml'} --out {copied} and the same --set"
    assert json.loads((copied / "findings.json").read_text()) == document


def test_a_round_that_nobody_had_asked_to_keep_is_made_again_to_the_bit(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, tmp_path: Path
) -> None:
    every = asking(small_scenario, training={"strategy": "fedavg"}, audit={"rounds": "all"})
    later = audit.run(every, copied).document
    straight = audit.run(every, tmp_path / "straight")
    assert comparable(later) == comparable(straight.document)
    (folder,) = (copied / "trainings").iterdir()
    (whole,) = (straight.directory / "trainings").iterdir()
    for name in ("state", "crossings"):
        path = f"rounds/001/{name}.safetensors"
        assert (folder / path).read_bytes() == (whole / path).read_bytes()
    found, before = rows(later, round=2), rows(plain.document, round=2)
    again = [row for row in found if row["detail"].get("also_rounds") == [1]]
    assert {row["channel"] for row in again} == {"front_activations"}, "what crossed of a sample earlier is read, too"
    assert [row for row in found if row not in again] == [row for row in before if row["status"] == "not_applicable"]


def test_another_seed_is_what_a_run_of_that_seed_is_and_means_have_intervals_over_seeds(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, tmp_path: Path
) -> None:
    asked = asking(small_scenario, training={"strategy": "fedavg"}, audit={"seeds": [1, 2]})
    document = audit.run(asked, copied).document
    validate(document)
    assert comparable({**document, "findings": document["findings"]}) == comparable(plain.document)
    other = audit.run(asking(small_scenario, training={"strategy": "fedavg"}, seed=2), tmp_path / "other").document
    assert {"findings", "utility"} <= other.keys()

    def chosen(row: dict[str, Any]) -> bool:
        at = row["metric"], row["adversary"], row["detail"].get("mode")
        return at == ("auc", "outsider", "threshold")

    def auc(found: dict[str, Any]) -> float:
        (row,) = filter(chosen, found["findings"])
        return float(row["value"])

    (over,) = filter(chosen, document["seeds"])
    assert over["seeds"] == [1, 2]
    assert over["values"] == [auc(document), auc(other)]
    assert over["value"] == pytest.approx(sum(over["values"]) / 2)
    assert over["ci"][0] <= min(over["values"])
    assert over["ci"][1] >= max(over["values"])
    (mean,) = [r for r in document["utility_seeds"] if r["metric"] == "recall@10"]
    own = [r["value"] for d in (document, other) for r in d["utility"]
           if (r["strategy"], r["client"], r["metric"]) == ("fedavg", "all", "recall@10")]  # fmt: skip
    assert mean["values"] == own
    text = (copied / "report.md").read_text(encoding="utf-8")
    assert "2 seeds" in text


def test_rivals_are_attacked_where_that_is_asked_and_the_run_s_own_findings_stay(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, tmp_path: Path
) -> None:
    asked = asking(
        small_scenario, training={"strategy": "fedavg", "rivals": ["local"]}, audit={"strategies": "all"}
    )  # fmt: skip
    document = audit.run(asked, copied).document
    validate(document)
    assert rows(document) == rows(plain.document)
    alone = audit.run(asking(small_scenario, training={"strategy": "local"}), tmp_path / "local").document
    assert {row["strategy"] for row in document["strategies"]} == {"local"}
    assert rows({"findings": document["strategies"]}) == rows(alone)
    assert "| local |" in (copied / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("threads", [1, 2], ids=["forks", "processes of a server"])
def test_trainings_side_by_side_leave_the_bytes_of_trainings_one_after_the_other(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    asked = asking(small_scenario, training={"rivals": ["fedavg", "local"]})
    for name, made in (("one", Serial()), ("two", Processes(2 * threads))):
        audit.train(asked, tmp_path / name, threads=threads, executor=made)
    one, two = (contents(tmp_path / name / "trainings") for name in ("one", "two"))
    assert one.keys() == two.keys()
    exact = [name for name in one if name.endswith((".safetensors", "utility.json", "training.yaml"))]
    assert len(exact) >= 3 * 4

    def without_time(data: bytes) -> Any:
        found = json.loads(data)
        for row in found.get("costs", ()):
            row.pop("seconds_per_round", None)
            (row["measured"] or {}).pop("seconds_per_round", None)
        return found

    for name in exact:
        same = without_time if name.endswith("utility.json") else bytes
        assert same(one[name]) == same(two[name]), name  # type: ignore[operator]
    never_trained(monkeypatch)
    assert audit.run(asked, tmp_path / "two").document["utility"]


def test_a_plan_says_what_is_left_and_writes_nothing(
    small_scenario: scenario.Scenario, plain: audit.AuditResult, copied: Path, tmp_path: Path
) -> None:
    before = contents(copied)
    own = asking(small_scenario, training={"strategy": "fedavg"})
    done = audit.plan(own, copied)
    (training,) = done["trainings"]
    assert (training["name"], training["whole"], training["seconds"]) == (own_training(own).name, True, 0)
    assert all(row["done"] == row["cells"] for row in done["cells"])
    assert done["total"]["seconds"] == done["total"]["seconds_at_most"] == 0
    more = asking(
        small_scenario, training={"strategy": "fedavg", "rivals": ["local"]}, audit={"seeds": [1, 2]}
    )  # fmt: skip
    left = audit.plan(more, copied)
    assert [row["whole"] for row in left["trainings"]] == [True, False, False, False]
    assert left["total"]["seconds"] > 0
    assert left["total"]["bytes"] > 0
    assert contents(copied) == before
    (first,) = [row for row in audit.plan(own, tmp_path / "new")["replays"] if row["of"] == "victims"]
    assert (first["live"], first["seconds"]) == (True, 0), "recorded while the round is trained"
    whole = CliRunner().invoke(cli.app, ["run", str(copied / "scenario.yaml"), "--out", str(copied), "--plan"])
    assert "Nothing is left to do." in whole.output
    called = CliRunner().invoke(cli.app, ["run", str(copied / "scenario.yaml"), "--out", str(tmp_path / "x"), "--plan"])
    assert called.exit_code == 0, called.output
    assert "0 of 2 rounds" in called.output
    assert not (tmp_path / "x").exists()


def test_two_defenses_are_two_trainings_and_a_name_is_of_all_that_a_training_depends_on(
    small_scenario: scenario.Scenario,
) -> None:
    from dataclasses import replace

    own = own_training(small_scenario)
    others = [
        replace(own, defenses=NOISE), replace(own, defenses={"noise": {"scale": 0.1}}), replace(own, seed=2),
        replace(own, defenses=NOISE, cut=(1, 1)), replace(own, defenses=NOISE, cut=(2, 1)), replace(own, coins=1),
        replace(own, canaries=("x",)), replace(own, data=own.data.model_copy(update={"reserve": 0.2})),
        replace(own, training=own.training.model_copy(update={"alpha": 0.1})),
    ]  # fmt: skip
    names = [own.name, *(each.name for each in others)]
    assert len(set(names)) == len(names)
    assert own.name.startswith("pplr-none-")
    assert others[0].name.startswith("pplr-noise-scale-0.05-")
    audited = small_scenario.model_copy(update={"audit": scenario.Audit(victims=3)})
    assert own_training(audited) == own


def test_a_run_of_an_older_layout_is_refused_by_version(copied: Path) -> None:
    manifest = copied / "manifest.json"
    manifest.write_text(manifest.read_text().replace("pplr-audit/run/2", "pplr-audit/run/1"))
    for command in (["attack", str(copied)], ["report", str(copied)]):
        called = CliRunner().invoke(cli.app, command)
        assert called.exit_code == 2
        assert len(called.stderr.splitlines()) == 1


def test_an_audit_side_by_side_finds_what_one_cell_after_the_other_finds(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    """Rounds, replays, attacks that read, attacks that learn, and a server that hijacks a training."""
    attacks = [
        {"ridge": {"prompts": 16, "held_out": 4}},
        {"label_match": {"shortlist": 4}},
        "loss",
        {"fsha": {"steps": 5}},
    ]
    asked = asking(
        small_scenario,
        audit={"attacks": attacks, "cuts": [[1, 1], [2, 0]], "adversaries": ["server", "malicious_server", "outsider"]},
    )
    found = [
        audit.run(asked, tmp_path / name, executor=made).document
        for name, made in (("one", Serial()), ("two", Processes(2)))
    ]
    assert comparable(found[0]) == comparable(found[1])
    guesses = [contents(tmp_path / name / "guesses") for name in ("one", "two")]
    assert guesses[0] == guesses[1]
    assert len(guesses[0]) > 6
    artifacts = [contents(tmp_path / name / "artifacts") for name in ("one", "two")]
    assert artifacts[0] == artifacts[1]

"""A redacted report in every format: users, titles, attributes, clients, folders and the machine are marked."""

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.report.findings.details import beside_of
from pplr_audit.report.findings.redaction import redacted
from pplr_audit.report.findings.series import is_measured
from pplr_audit.report.sentences.answer import answer
from pplr_audit.report.sentences.few_users import narrow_intervals
from pplr_audit.report.sentences.protocol import unfair_coins
from pplr_audit.report.words.vocabulary import CHANNELS, learned_words
from pplr_audit.runs import environment, processor
from pplr_audit.runs.documents import validate

MARKS = {
    "user": "qzuser", "title": "qztitle", "attribute value": "qzvalue", "client": "qzclient", "folder": "qzfolder",
    "host": "qzhost",
}  # fmt: skip
FORMATS = "html,md,json"


def market(folder: Path) -> Path:
    """Atomic files of 60 users with an attribute of theirs, every text with its mark."""
    folder.mkdir(parents=True)
    stem = folder / folder.name
    events = [
        f"{MARKS['user']}{user}\t{(user * 7 + 3 * place) % 40}\t{place}" for user in range(60) for place in range(8)
    ]
    stem.with_suffix(".inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *events]))
    items = [f"{item}\t{MARKS['title']} number {item}" for item in range(40)]
    stem.with_suffix(".item").write_text("\n".join(["item_id:token\ttitle:token_seq", *items]))
    users = [
        f"{MARKS['user']}{user}\t{MARKS['client']}{user % 2}\t{MARKS['attribute value']}{user % 3}"
        for user in range(60)
    ]
    stem.with_suffix(".user").write_text("\n".join(["user_id:token\tregion:token\ttaste:token", *users]))
    return folder


@pytest.fixture(scope="module")
def marked(small_scenario: scenario.Scenario, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with examples, scores by client, and an attack that names attribute values in its reason."""
    root = tmp_path_factory.mktemp("marked") / MARKS["folder"]
    backbone = root / f"{MARKS['folder']}-model"
    root.mkdir()
    backbone.symlink_to(llama_folder)
    setting = small_scenario.model_dump(mode="json")
    setting["data"] |= {
        "path": str(market(root / f"{MARKS['folder']}-data")), "partition": "attribute:region", "clients": 2,
        "audit_users": 40, "test_users": 20,
    }  # fmt: skip
    setting["model"]["backbone"] = str(backbone)
    setting["training"] |= {"rounds": 1, "patience": 3, "rivals": ["fedavg"]}
    setting["audit"] |= {
        "cuts": [[1, 1]],
        "attacks": [{"ridge": {"prompts": 48, "held_out": 8}}, "loss", {"attribute": {"name": "taste"}}],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(platform, "platform", lambda: f"Linux-{MARKS['host']}")
        patched.setattr(environment, "_cpu", lambda: f"{MARKS['host']} processor")
        patched.setattr(processor, "_cpuinfo", lambda: {"model name": MARKS["host"]})
        directory = root / "run"
        yield audit.run(scenario.Scenario.model_validate(setting), directory).directory


@pytest.fixture
def run(marked: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy that a test may change."""
    import shutil

    shutil.copytree(marked, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(platform, "platform", lambda: f"Linux-{MARKS['host']}")
        patched.setattr(environment, "_cpu", lambda: f"{MARKS['host']} processor")
        patched.setattr(processor, "_cpuinfo", lambda: {"model name": MARKS["host"]})
        yield tmp_path / "run"


def call(*args: object) -> str:
    done = CliRunner().invoke(cli.app, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.stdout


def marks_in(text: str) -> set[str]:
    """The kinds of what is found in a text, however it is escaped."""
    bare = text.replace("\\", "").lower()
    return {kind for kind, mark in MARKS.items() if mark in bare}


def test_an_open_report_has_them_so_that_this_test_can_fail(run: Path) -> None:
    assert marks_in((run / "findings.json").read_text()) == {"attribute value", "client", "folder", "host"}
    assert marks_in((run / "report.html").read_text()) >= {"title", "attribute value", "client", "folder", "host"}
    assert marks_in((run / "report.md").read_text()) >= {"title", "attribute value", "client", "folder", "host"}


def test_a_redacted_report_has_none_of_them_in_any_format(run: Path, tmp_path: Path) -> None:
    for out in ((), ("--out", tmp_path / "out")):
        files = call("report", run, "--redact", "--format", FORMATS, *out).split()
        assert len(files) == 3
        for file in files:
            assert marks_in(Path(file).read_text()) == set(), file
    validate(json.loads(Path(files[2]).read_text()))
    assert marks_in((run / "findings.json").read_text()), "the run keeps its findings"


def test_no_format_is_left_as_it_was(run: Path) -> None:
    call("report", run, "--redact", "--format", "json")
    assert marks_in((run / "report.html").read_text() + (run / "report.md").read_text()) == set()


def test_the_run_remembers_it(run: Path, tmp_path: Path) -> None:
    call("report", run, "--redact")
    added = call("attack", run, "--attack", "length", "--json")
    assert '"length"' in added
    assert marks_in(added) == set()
    again = call("report", run, "--format", FORMATS)
    outside = call("report", run, "--format", FORMATS, "--out", tmp_path / "out")
    (tmp_path / "scenario.yaml").write_text((run / "scenario.yaml").read_text())
    printed = [
        call(verb, tmp_path / "scenario.yaml", "--out", run, "--json") for verb in ("run", "train")
    ]  # fmt: skip
    for text in (*printed, *(Path(file).read_text() for file in (again + outside).split())):
        assert marks_in(text) == set()
    assert "length" in (run / "report.md").read_text()
    call("report", run, "--no-redact")
    assert marks_in((run / "report.md").read_text()) >= {"title", "client"}
    call("attack", run)
    assert marks_in((run / "report.md").read_text()) >= {"title", "client"}


def test_what_is_asked_of_a_copy_outside_is_not_remembered(run: Path, tmp_path: Path) -> None:
    call("report", run, "--redact", "--out", tmp_path / "out")
    call("report", run)
    assert "title" in marks_in((run / "report.md").read_text())


def test_the_answer_stays_the_same_but_for_names(run: Path) -> None:
    document, evidence = (json.loads((run / f"{name}.json").read_text()) for name in ("findings", "evidence"))
    bare, shown = redacted(document, evidence)
    assert [each.verdict for each in answer(bare)] == [each.verdict for each in answer(document)]
    assert [row["value"] for row in bare["findings"]] == [row["value"] for row in document["findings"]]
    hits = [[slot["hit"] for slot in each["slots"]] for each in evidence["examples"]]
    assert [[slot["hit"] for slot in each["slots"]] for each in shown["examples"]] == hits != []


def test_what_the_adversary_had_and_every_warning_stay(run: Path) -> None:
    document, evidence = (json.loads((run / f"{name}.json").read_text()) for name in ("findings", "evidence"))
    reading = [row for row in document["findings"] if row["secret"] == "history" and is_measured(row)]
    for row in reading:
        row["detail"] |= {"interval_covers": [0.88, 0.97], "beside": ["trunk_activations", MARKS["title"]]}
    for row in document["findings"]:
        if row["secret"] == "membership" and is_measured(row):
            row["detail"] |= {"model_free_auc": 0.7, "model_free_ci": [0.6, 0.8]}
    bare, _ = redacted(document, evidence)
    for said in (narrow_intervals, unfair_coins):
        assert said(bare) == said(document) != []
    assert {learned_words(row["detail"]) for row in reading} - {""}
    for row, had in zip(bare["findings"], document["findings"], strict=True):
        assert learned_words(row["detail"]) == learned_words(had["detail"])
        assert beside_of(row["detail"]) == tuple(each for each in beside_of(had["detail"]) if each in CHANNELS)
    colluding = {**document["findings"][0], "detail": {"colluder": document["run"]["clients"][0]["name"]}}
    bare, _ = redacted({**document, "findings": [colluding]}, evidence)
    assert bare["findings"][0]["detail"] == {"colluder": "client 1"}
    colluding["detail"] = {"auxiliary": MARKS["title"], "colluder": MARKS["user"], "model_free_ci": [MARKS["user"], 1]}
    assert marks_in(json.dumps(redacted({**document, "findings": [colluding]}, evidence))) == set()


def test_what_a_later_version_adds_goes_unless_it_is_a_number(run: Path) -> None:
    document, evidence = (json.loads((run / f"{name}.json").read_text()) for name in ("findings", "evidence"))
    new = {"threads": 2, "owner": MARKS["user"], "owners": {MARKS["user"]: 1}, MARKS["user"].upper(): 1}
    for place in (
        document["run"],
        document["run"]["audit"],
        document["run"]["data"],
        document["findings"][0]["detail"],
    ):
        place |= new
    document["run"]["audit"]["extensions"] = [{"attacks": [{"attribute": {"name": MARKS["user"]}}], "cuts": None}]
    document["findings"][0]["detail"] |= {"mode": MARKS["title"].upper(), "note": [MARKS["title"]]}
    evidence["examples"][0]["settings"] = {"name": MARKS["attribute value"], "prompts": 3}
    bare, shown = redacted(document, evidence)
    assert marks_in(json.dumps([bare, shown])) == set()
    assert bare["run"]["threads"] == bare["findings"][0]["detail"]["threads"] == 2
    assert shown["examples"][0]["settings"] == {"prompts": 3}


def test_the_scenario_of_the_run_is_where_its_paths_are_kept(run: Path) -> None:
    assert MARKS["folder"] in yaml.safe_load((run / "scenario.yaml").read_text())["data"]["path"]

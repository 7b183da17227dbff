"""The main job from a scenario to a report, continued, altered, and fed what does not fit."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.data.synthetic import market
from pplr_audit.errors import InputError
from pplr_audit.runs.documents import validate, validate_evidence
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import View
from tests.conftest import LAYERS, comparable


def of(document: dict[str, Any], **wanted: object) -> list[dict[str, Any]]:
    return [row for row in document["findings"] if all(row[name] == value for name, value in wanted.items())]


def test_a_run_ends_with_findings_that_its_schemas_accept(finished: audit.AuditResult) -> None:
    document = json.loads((finished.directory / "findings.json").read_text())
    assert document == json.loads(json.dumps(finished.document))
    validate(document)
    validate_evidence(json.loads((finished.directory / "evidence.json").read_text()))
    for name in ("report.html", "report.md", "manifest.json", "scenario.yaml", "events.jsonl"):
        assert (finished.directory / name).stat().st_size > 0
    assert not list(finished.directory.rglob("*.pkl"))
    assert not (finished.directory / "coins.json").exists(), "who trained, by name, is read by nothing"


def test_ridge_is_measured_at_every_cut_on_both_channels_and_reads_the_first_cut(finished: audit.AuditResult) -> None:
    for channel in ("front_activations", "inference_activations"):
        rows = of(finished.document, attack="ridge", channel=channel, metric="token_accuracy", status="ok")
        assert [row["cut"] for row in rows] == [{"front": k, "back": None} for k in range(LAYERS)]
        assert rows[0]["value"] == 1.0
        assert all(row["baseline"] < row["ci"][0] <= row["value"] <= row["ci"][1] for row in rows)
        assert all(row["n"] > 0 and row["seconds"] > 0 for row in rows)


def test_what_crossed_in_the_first_step_stands_beside_what_crossed_later(finished: audit.AuditResult) -> None:
    rows = of(finished.document, attack="ridge", metric="token_accuracy", status="ok")
    for row in rows:
        kinds = [row["detail"].get(name) for name in ("first_step", "later_steps")]
        if row["channel"] == "inference_activations":
            assert kinds == [None, None]
        else:
            assert all(0 <= kind["ci"][0] <= kind["mean"] <= kind["ci"][1] <= 1 and kind["n"] > 0 for kind in kinds)
            assert sum(kind["n"] for kind in kinds) == 12, "each victim once"


def test_what_is_read_of_histories_is_told_by_user_and_by_client(finished: audit.AuditResult) -> None:
    rows = of(finished.document, attack="ridge", metric="item_hit@1", status="ok")
    assert rows
    for row in rows:
        found = row["detail"]["over_users"]
        assert found["n"] == 12
        assert 0 <= found["least"] <= found["quartiles"][0] <= found["median"] <= found["quartiles"][1] <= found["most"]
        (whole,) = of(
            finished.document, **{**{f: row[f] for f in ("attack", "channel", "cut")}, "metric": "exact_history"}
        )
        assert found["all_read"]["mean"] == pytest.approx(whole["value"])
        assert set(found["clients"]) <= {client["name"] for client in finished.document["run"]["clients"]}


def test_a_cut_that_leaves_the_server_nothing_is_not_applicable_instead_of_zero(finished: audit.AuditResult) -> None:
    rows = [row for row in of(finished.document, attack="ridge") if row["cut"] == {"front": LAYERS, "back": 0}]
    assert rows
    assert all(row["status"] == "not_applicable" and row["value"] is None and row["ci"] is None for row in rows)
    assert all("nothing crosses here" in row["detail"]["reason"] for row in rows)


def test_membership_is_measured_in_both_modes_beside_chance_and_a_control(finished: audit.AuditResult) -> None:
    rows = of(finished.document, attack="loss", metric="auc", status="ok")
    assert {row["detail"]["mode"] for row in rows} == {"threshold", "reference"}
    assert all(row["cut"] is None and row["knowledge"] == "base" for row in rows)
    by = {(row["adversary"], row["detail"]["mode"]): row["value"] for row in rows}
    for mode in ("threshold", "reference"):  # the server holds the very models that answer outsiders
        assert by["server", mode] == by["outsider", mode]
    assert all(row["baseline"] == 0.5 for row in rows), "chance is known exactly; an estimate is no constant"
    for row in rows:
        chance, control = row["comparisons"]
        assert (chance["name"], chance["value"], chance["ci"]) == ("chance", 0.5, [0.5, 0.5])
        assert (control["name"], control["draws"]) == ("control", 20)
        assert control["least"] <= control["value"] <= control["most"]
        assert control["ci"][0] < control["value"] < control["ci"][1]
        low, high = row["detail"]["model_free_ci"]
        assert low < row["detail"]["model_free_auc"] < high
        assert row["corrected"]["over"] == len(rows)
        assert row["corrected"]["p"] >= max(chance["p"], control["p"])
        assert row["corrected"]["ci"][0] <= row["ci"][0] <= row["ci"][1] <= row["corrected"]["ci"][1]
    rates = {row["metric"] for row in of(finished.document, attack="loss")} - {"auc"}
    assert rates == {"tpr@0.1"}  # some forty non-members resolve nothing finer


def test_a_next_item_is_compared_with_what_the_own_model_recommends_and_with_a_control(
    finished: audit.AuditResult,
) -> None:
    rows = of(finished.document, attack="ridge", secret="label", metric="label_hit@1", status="ok")
    assert rows
    for row in rows:
        named = {each["name"]: each for each in row["comparisons"]}
        assert [*named] == ["popularity", "own_model", "control"]
        assert named["control"]["draws"] == 10
        assert row["detail"]["own_model_reads"] == "what the attack read"
        assert row["baseline"] == max(each["value"] for each in named.values())
        assert row["corrected"]["over"] == len(of(finished.document, secret="label", metric="label_hit@1", status="ok"))


def test_every_guess_was_sealed_with_its_hash_before_it_was_scored(finished: audit.AuditResult) -> None:
    events = [json.loads(line) for line in (finished.directory / "events.jsonl").read_text().splitlines()]
    sealed = {event["cell"]: event["sha256"] for event in events if event["kind"] == "guess_sealed"}
    guesses = list((finished.directory / "guesses").iterdir())
    assert len(guesses) == len(sealed) == 2 * LAYERS + 2
    for guess in guesses:
        assert hashlib.sha256(guess.read_bytes()).hexdigest() == sealed[guess.stem]


def test_utility_is_reported_for_all_and_for_each_client_beside_its_references(finished: audit.AuditResult) -> None:
    told = finished.document["utility"]
    rows = [row for row in told if row["strategy"] != "best_possible"]
    assert {row["strategy"] for row in rows} == {"pplr", "untrained", "popularity"}
    assert {row["client"] for row in rows} == {"all", "client-0", "client-1", "client-2"}
    assert {row["metric"] for row in rows} == {"recall@10", "ndcg@10", "recall@20", "ndcg@20"}
    assert all(row["ci"][0] <= row["value"] <= row["ci"][1] for row in rows)
    assert {row["n"] for row in rows if row["client"] == "all"} == {30}
    best = {row["metric"]: row["value"] for row in told if row["strategy"] == "best_possible"}
    known = market(scenario.Market(users=120, items=48, tastes=3), 1).best_recall
    assert known is not None
    assert best == {"recall@10": known[10], "recall@20": known[20]}


def test_computed_and_measured_costs_of_the_cut_that_ran_agree(finished: audit.AuditResult) -> None:
    rows = {(row["cut"]["front"], row["cut"]["back"]): row for row in finished.document["costs"]}
    assert set(rows) == {(k, m) for k in range(LAYERS + 1) for m in range(LAYERS + 1 - k)}
    ran = rows[1, 1]
    measured = ran["measured"]
    assert measured is not None
    for name in ("client_parameters", "client_bytes", "wire_bytes_per_sample", "wire_bytes_per_round"):
        assert measured[name] == pytest.approx(ran[name], rel=1e-9), name
    for name in ("client_flops_per_token", "training_flops_per_token", "serving_wire_bytes_per_request"):
        assert measured[name] == pytest.approx(ran[name], rel=0.02), name
    assert all(row["measured"] is None for cut, row in rows.items() if cut != (1, 1))
    shares = [rows[k, 0]["client_share"] for k in range(LAYERS + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_same_run_again_does_nothing_and_answers_the_same(
    small_scenario: scenario.Scenario, finished: audit.AuditResult
) -> None:
    guesses = {path: path.stat().st_mtime_ns for path in (finished.directory / "guesses").iterdir()}
    again = audit.run(small_scenario, finished.directory)
    assert comparable(again.document) == comparable(finished.document)
    assert guesses == {path: path.stat().st_mtime_ns for path in (finished.directory / "guesses").iterdir()}


def test_with_a_user_a_client_membership_has_nothing_to_compare_and_says_so(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    chosen = small_scenario.model_dump(mode="json")
    chosen["data"] |= {"partition": "per_user", "market": {"users": 30, "items": 48, "tastes": 3}}
    chosen["training"]["rounds"] = 1
    chosen["audit"] |= {"victims": 4, "cuts": [[1, 1]]}
    rows = audit.run(scenario.Scenario.model_validate(chosen), tmp_path / "run").document["findings"]
    (row,) = [r for r in rows if r["secret"] == "membership" and r["adversary"] == "outsider"]
    assert row["status"] == "not_applicable"
    assert "no client has both a member and a non-member" in row["detail"]["reason"]
    # Each client has one victim, so the control is dealt across clients: it must not repeat the attack's answer.
    read = [r for r in rows if r["metric"] == "token_accuracy" and r["status"] == "ok"]
    assert read
    assert all(r["detail"]["control"] < r["value"] for r in read)


def copied(finished: audit.AuditResult, folder: Path) -> Path:
    shutil.copytree(finished.directory, folder / "run")
    return folder / "run"


@pytest.mark.parametrize("kind", ["truncated", "altered", "missing"])
@pytest.mark.parametrize(
    "pattern", ["trainings/*/rounds/003/state.safetensors", "cells/ridge-front*k1*", "trainings/*/utility.json"]
)
def test_a_damaged_file_is_refused_by_name(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, tmp_path: Path, pattern: str, kind: str
) -> None:
    directory = copied(finished, tmp_path)
    (victim,) = directory.glob(pattern)
    data = victim.read_bytes()
    if kind == "missing":
        victim.unlink()
    else:
        victim.write_bytes(data[:-7] if kind == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=victim.name):
        audit.run(small_scenario, directory)


class Careless:
    """A third party's attack: writes into what it is given, or reads what this version does not record."""

    name = "careless"
    controls = 1

    def __init__(self, channel: str = "front_activations", secret: str = "history") -> None:
        self.channels, self.secret = frozenset({Channel(channel)}), secret

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        for record in view.records:
            record.tensor.zero_()
        knowledge.embeddings.zero_()
        knowledge.prompts.titles.values[:] = 0
        raise ZeroDivisionError


def test_an_attack_can_harm_no_other_cell_and_is_not_fed_what_is_not_recorded(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: Careless if name == "careless" else load(kind, name))
    unrecorded = {"careless": {"channel": "client_update", "secret": "label"}}
    attacks = ("careless", unrecorded, {"careless": {"secret": "membership"}}, *small_scenario.audit.attacks)
    chosen = small_scenario.model_copy(update={"audit": small_scenario.audit.model_copy(update={"attacks": attacks})})
    document = audit.run(chosen, tmp_path / "run").document
    mine = {**document, "findings": [r for r in document["findings"] if r["attack"] != "careless"]}
    for row, alone in zip(comparable(mine), comparable(finished.document), strict=True):
        assert row == alone
    others = [row for row in document["findings"] if row["attack"] == "careless" and row["adversary"] == "server"]
    assert {row["status"] for row in others} == {"failed", "not_applicable"}
    assert {(r["secret"], r["channel"]) for r in others if "does not record" in r["detail"]["reason"]} == {
        ("label", "client_update"), ("membership", "front_activations"),
    }  # fmt: skip


def test_a_split_without_a_test_item_for_anyone_who_trains_is_refused_before_anything_is_written(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "items.tsv").write_text("item_id\ttitle\n" + "".join(f"{i}\tTitle {i}\n" for i in range(30)))
    lines = "".join(f"u{u} {u % 30} {(u + 1) % 30} {(u + 2) % 30}\n" for u in range(40))
    (folder / "sequential_train.txt").write_text(lines)
    (folder / "sequential_valid.txt").write_text("".join(f"u{u}\n" for u in range(40)))
    (folder / "sequential_test.txt").write_text("".join(f"u{u}\n" for u in range(40)))
    changed = small_scenario.model_dump(mode="json")
    changed["data"] |= {"path": str(folder), "split": "given", "audit_users": 20}
    with pytest.raises(InputError, match="no user who trains has a test item"):
        audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_directory_of_another_scenario_is_refused_and_left_as_it_is(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, tmp_path: Path
) -> None:
    directory = copied(finished, tmp_path)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="another run"):
        audit.run(small_scenario.model_copy(update={"seed": 2}), directory)
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_report_can_be_written_again_and_redacted(finished: audit.AuditResult, tmp_path: Path) -> None:
    directory = copied(finished, tmp_path)
    titles = {
        slot["truth"]
        for example in json.loads((directory / "evidence.json").read_text())["examples"]
        for slot in example["slots"]
    }
    assert titles
    html = (directory / "report.html").read_text()
    assert any(title in html for title in titles)
    written = audit.write_report(directory, ["html", "md"], redact=True)
    assert [path.name for path in written] == ["report.html", "report.md"]
    for path in written:
        text = path.read_text()
        assert not any(title in text for title in titles)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.cut.front=3", "model.cut.back=1"], r"model\.cut.*front 3 \+ back 1.*accepted"),
        (["data.clients=60"], r"data\.clients.*60"),
        (["data.clients=1"], r"data\.clients.*2"),
        (["audit.attacks=[rigde]"], r"audit\.attacks.*'rigde'.*'ridge'"),
        (["audit.attacks=[{ridge: {prompt: 3}}]"], r"audit\.attacks: ridge.*prompt"),
        (["audit.cuts=[[2, 2]]"], r"audit\.cuts: \[2, 2\].*accepted"),
        (["audit.rounds=[9]"], r"audit\.rounds.*9"),
        (["model.max_tokens=40"], r"model\.max_tokens: 40 has no room"),
        (["model.max_tokens=4096"], r"model\.max_tokens: 4096 exceeds the positions"),
        (["model.lora.targets=[query]"], r"model\.lora\.targets: no layer 'query'"),
        (["model.backbone=./nowhere"], r"nowhere"),
        (["data.path=./nowhere"], r"data\.path.*nowhere"),
        (["data.split=given"], r"data\.split"),
        (["training.tau=0"], r"training\.tau"),
    ],
)
def test_wrong_input_ends_with_exit_code_2_one_clear_message_and_nothing_written(
    small_scenario: scenario.Scenario, tmp_path: Path, settings: Sequence[str], said: str
) -> None:
    done = called(small_scenario, tmp_path, settings)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def called(setting: scenario.Scenario, folder: Path, settings: Sequence[str]) -> Result:
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(setting.model_dump(mode="json")))
    options = [part for s in settings for part in ("--set", s)]
    return CliRunner().invoke(cli.app, ["run", str(file), "--out", str(folder / "run"), *options])


def test_a_model_folder_without_weights_is_refused(
    small_scenario: scenario.Scenario, llama_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(llama_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    done = called(small_scenario, tmp_path, [f"model.backbone={tmp_path / 'model'}"])
    assert done.exit_code == 2
    assert "safetensors" in done.stderr
    assert not (tmp_path / "run").exists()


def test_titles_with_html_and_quotes_are_data_and_harmless_in_the_report(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    hostile = '<script>alert("x")</script> & "quoted" | `code`'
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f"{i}\t{hostile if i == 1 else f'Plain title {i}'}\tKind|Other" for i in range(1, 41)]
    (folder / "items.tsv").write_text("item_id\ttitle\tcategories\n" + "\n".join(rows) + "\n")
    users = [f"{u} " + " ".join(str(1 + (u * 7 + 3 * j) % 40) for j in range(6)) + " 1 2 3" for u in range(1, 61)]
    (folder / "sequences.txt").write_text("\n".join(users) + "\n")
    setting = small_scenario.model_copy(
        update={
            "data": small_scenario.data.model_copy(update={"path": str(folder), "clients": 2, "audit_users": 40}),
            "training": small_scenario.training.model_copy(update={"rounds": 1}),
        }
    )
    result = audit.run(setting, tmp_path / "run")
    html = (result.directory / "report.html").read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html

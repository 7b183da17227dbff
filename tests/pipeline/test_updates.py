"""Attacks on what crosses once a round, as a third party writes them: from the scenario to the report."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.audit import forecast
from pplr_audit.errors import InputError
from pplr_audit.report.findings.series import above_baseline
from pplr_audit.runs.documents import validate
from pplr_audit.scenario import plugins
from pplr_audit.training.executor import Processes
from pplr_audit.training.link import Link
from tests.conftest import LAYERS
from tests.toys import FOLDER, install_toys

CLIENTS, MARK = 8, 1e-3
CUTS = [[1, 1], [LAYERS, 0]]
POINTS = "[pplr_audit.attacks]\nbias = toy_bias:Bias\nlister = toy_readers:Lister\nsizes = toy_readers:Sizes\n"


def asked(small: scenario.Scenario, **audit_: Any) -> scenario.Scenario:
    changed = small.model_dump()
    changed["data"] |= {"clients": CLIENTS, "reserve": 0.1}
    changed["audit"] |= {"cuts": CUTS, "rounds": "all", **audit_}
    return scenario.Scenario.model_validate(changed)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    for name in ("bias", "readers"):
        (folder / f"toy_{name}.py").write_text((FOLDER / f"{name}.py").read_text())
    described = folder / "toy_attacks-0.1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-attacks\nVersion: 0.1\n")
    (described / "entry_points.txt").write_text(POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        plugins._read.cache_clear()
        yield
    plugins._read.cache_clear()


@pytest.fixture(scope="module")
def marked(toys: None, small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose clients each put a mark on their updates."""
    inner = Link.upload

    def upload(link: Link, client: str, round_: int, update: dict[str, Tensor], loss: float) -> None:
        mark = MARK * int(client.rpartition("-")[2])
        inner(link, client, round_, {name: value + mark for name, value in update.items()}, loss)

    adversaries = ["server", "trunk_host", "aggregator", "peer"]
    chosen = asked(
        small_scenario, adversaries=adversaries, attacks=["bias", "lister", "sizes", "loss"], peer="client-2"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "upload", upload)
        return audit.run(chosen, tmp_path_factory.mktemp("marked") / "run").directory


@pytest.fixture(scope="module")
def document(marked: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((marked / "findings.json").read_text())
    validate(read)
    return read


def rows(document: dict[str, Any], **wanted: object) -> list[dict[str, Any]]:
    return [row for row in document["findings"] if all(row[name] == value for name, value in wanted.items())]


def test_a_toy_names_the_client_by_its_bias_and_finds_nothing_where_owners_are_shuffled(
    document: dict[str, Any],
) -> None:
    for adversary in ("server", "aggregator"):
        found = rows(document, attack="bias", adversary=adversary, metric="owner_hit@1")
        assert [row["cut"] for row in found] == [{"front": 1, "back": 1}, {"front": LAYERS, "back": 0}]
        for row in found:
            assert (row["status"], row["value"], row["n"], row["round"]) == ("ok", 1.0, CLIENTS, 2)
            assert row["detail"]["also_rounds"] == [1], "it reads both rounds"
            assert row["ci"][0] < 1.0 == row["ci"][1]
            chance, control = row["comparisons"]
            assert (chance["name"], chance["value"]) == ("chance", pytest.approx(1 / CLIENTS))
            assert chance["p"] == pytest.approx(1 / 40320), "all eight by chance"
            assert (control["name"], control["draws"]) == ("control", 10)
            assert control["most"] == 0, "no update keeps its owner, and each has its mark"
            assert row["detail"]["control"] == control["value"] == 0
            assert above_baseline(row), "also as the best of all that is said of owners"


def test_without_marks_the_toy_is_not_above_chance_and_with_one_round_it_does_not_apply(
    toys: None, small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    chosen = asked(small_scenario, adversaries=["server"], attacks=["bias"], cuts=[[1, 1]], rounds="last")
    (row,) = audit.run(chosen, tmp_path / "run").document["findings"]
    assert row["status"] == "not_applicable"
    assert "no update of a known round" in row["detail"]["reason"]
    later = chosen.model_copy(update={"audit": chosen.audit.model_copy(update={"rounds": "all"})})
    (row,) = audit.run(later, tmp_path / "run").document["findings"]  # the first round is run again for it
    assert row["status"] == "ok"
    assert not above_baseline(row)


def test_every_cut_has_its_part_of_the_update_and_the_trunk_the_rest(document: dict[str, Any]) -> None:
    seen = {
        (row["channel"], row["cut"]["front"]): row["detail"]["seen"][0]
        for row in rows(document, attack="lister", adversary="server", metric="item_recall", round=2, status="ok")
    }
    number = re.compile(r"layers\.(\d+)\.")
    layers = {place: {int(each) for name in names for each in number.findall(name)} for place, names in seen.items()}
    assert layers["client_update", 1] == layers["aggregate", 1] == layers["personal_model", 1] == {0, 2}
    assert layers["client_update", LAYERS] == {0, 1, 2}
    assert layers["trunk_update", 1] == {1}
    assert ("trunk_update", LAYERS) not in layers, "there is no trunk"


def test_the_items_of_an_update_stand_above_popularity_other_clients_and_the_reserve(document: dict[str, Any]) -> None:
    found = rows(document, attack="lister", adversary="server", channel="client_update", round=2, status="ok")
    metrics = {row["metric"] for row in found}
    assert metrics >= {"item_recall", "item_recall@10", "exact_sequences", "rougeL"}
    assert {"token_ap"} & metrics == set(), "it ranks no tokens"
    for row in found:
        if row["metric"].startswith("item_recall"):
            names = [each["name"] for each in row["comparisons"]]
            assert names == ["popularity", "control", "reserve"]
            assert row["n"] == CLIENTS
            assert 0 <= row["value"] <= 1
    (of_all,) = rows(document, attack="lister", channel="aggregate", adversary="aggregator", metric="item_recall",
                     round=2, cut={"front": 1, "back": 1})  # fmt: skip
    assert of_all["n"] == 1
    assert of_all["value"] > 0.5, "all clients together hold most of the items"


def test_who_knows_the_steps(document: dict[str, Any]) -> None:
    def knows(adversary: str, channel: str) -> set[str]:
        row = rows(document, attack="lister", adversary=adversary, channel=channel, metric="item_recall", round=2)[0]
        return set(row["detail"]["knows"])

    everyone = {f"client-{place} 2" for place in range(CLIENTS)}
    assert knows("server", "client_update") == knows("aggregator", "client_update") == everyone
    assert knows("trunk_host", "trunk_update") == everyone
    assert knows("peer", "personal_model") == {"client-2 2"}


def test_a_peer_is_asked_about_others_alone(document: dict[str, Any], marked: Path) -> None:
    found = rows(document, attack="lister", adversary="peer", channel="personal_model", metric="item_recall")
    row = next(each for each in found if each["round"] == 2)
    assert (row["status"], row["n"], row["knowledge"]) == ("ok", CLIENTS - 1, "own")
    assert len(row["detail"]["seen"]) == 1, "its own model alone"
    (own,) = rows(document, attack="loss", adversary="peer", metric="auc", status="ok")[:1]
    clients = {client["name"]: client for client in document["run"]["clients"]}
    candidates = sum(c["members"] + c["non_members"] for name, c in clients.items() if name != "client-2")
    assert own["n"] <= candidates
    assert own["channel"] == "model_output"
    report = (marked / "report.md").read_text()
    assert "another client: its own data and models" in report
    assert "balances the clients: sees client updates and status" in report
    assert "which client an update is of" in report
    assert "Naming whose update it is** (" in report


def test_membership_from_updates_has_candidates_of_the_same_numbers_everywhere(document: dict[str, Any]) -> None:
    found = [row for row in rows(document, attack="sizes", adversary="server", metric="auc") if row["status"] == "ok"]
    assert found
    for row in found:
        assert row["value"] == pytest.approx(0.5), "within a client all candidates have one size"
        assert [each["name"] for each in row["comparisons"]] == ["chance", "control", "reserve"]


def test_a_peer_that_is_no_client_is_refused_before_anything_is_written(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    chosen = asked(small_scenario, adversaries=["peer"], attacks=["loss"], peer="client-9")
    with pytest.raises(InputError, match=r"audit\.peer: 'client-9' is no client that trains \(accepted: client-0, "):
        audit.run(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_a_defense_sums_the_updates_the_sum_is_what_can_be_read(
    toys: None, small_scenario: scenario.Scenario, tmp_path: Path, install: Callable[..., Path]
) -> None:
    install_toys(install)
    chosen = asked(small_scenario, adversaries=["server", "peer"], attacks=["lister"], cuts=[[1, 1]], rounds="last")
    changed = chosen.model_dump() | {"defenses": ["sums"]}
    changed["training"] |= {"strategy": "fedavg"}
    document = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run").document
    found = {
        (row["adversary"], row["channel"]): row
        for row in rows(document, metric="item_recall") if row["defense"] == "sums"
    }  # fmt: skip
    taken = found["server", "client_update"]
    assert (taken["status"], taken["detail"]["reason"]) == ("not_applicable", "sums takes client_update away")
    summed = found["server", "aggregate"]
    assert (summed["status"], summed["n"]) == ("ok", 1)
    assert [each["name"] for each in summed["comparisons"]] == ["popularity", "reserve"], "a sum has no other client"
    assert found["server", "trunk_update"]["detail"]["reason"].startswith("a defense leaves only the sum")
    assert found["peer", "personal_model"]["status"] == "ok"


def test_the_attack_on_the_page_is_the_one_that_runs_and_has_under_forty_lines() -> None:
    page = (FOLDER.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    code = (FOLDER / "bias.py").read_text(encoding="utf-8")
    assert f"```python\n{code}```" in page
    assert len(code.splitlines()) < 40


def test_updates_of_recformer_are_read_by_server_and_peer_at_every_cut(
    toys: None, recformer_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    changed = recformer_scenario.model_dump()
    changed["audit"] |= {
        "adversaries": ["server", "peer"], "attacks": ["lister", "loss"], "cuts": [[1, 1], [0, 0]], "rounds": [1],
    }  # fmt: skip
    document = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run").document
    found = rows(document, attack="lister", metric="item_recall")
    assert {row["status"] for row in found if row["channel"] != "personal_model"} == {"ok"}
    deeper = [row for row in found if row["channel"] == "personal_model"]
    assert {row["adversary"] for row in deeper} == {"server", "peer"}
    assert {row["status"] for row in rows(document, attack="loss", adversary="peer", metric="auc")} == {"ok"}


def test_a_plan_counts_the_steps_that_are_trained_again_for_their_gradients(
    toys: None, small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast.Speed, "measured", lambda *_: forecast.Speed(1.0))

    def again(attack: Any, **data: float) -> list[dict[str, Any]]:
        chosen = asked(small_scenario, attacks=[attack], cuts=[[1, 1]], rounds="last")
        chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update=data)})
        rows = audit.plan(chosen, tmp_path / "x")["replays"]
        return [row for row in rows if row["of"] in ("steps", "reserve")]

    (one,), (all_,) = (again({"trunk_steps": {"steps": steps}}) for steps in (1, 10**6))
    assert (one["of"], one["steps"], one["round"], one["left"]) == ("steps", 1, 2, True)
    (whole,) = again("lister")
    assert whole["of"] == "reserve"
    assert 0 < one["seconds"] < all_["seconds"] == 2 * whole["seconds"], "on its own samples, and on the reserve's"
    (alone,) = again({"trunk_steps": {"steps": 10**6}}, reserve=0.0)
    assert alone["seconds"] > 0


def test_a_plan_counts_hijacked_trainings_and_the_round_on_the_reserve(
    toys: None, small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    attacks = ["fsha", "lister"]
    chosen = asked(small_scenario, attacks=attacks, adversaries=["server", "malicious_server"], rounds="last")
    left = audit.plan(chosen, tmp_path / "x", executor=Processes(2))
    hijacked = [row for row in left["trainings"] if "-fsha-" in row["name"]]
    assert hijacked
    assert all(row["seconds"] > 0 and not row["whole"] for row in hijacked)
    (control,) = [row for row in left["replays"] if row["of"] == "reserve"]
    assert control["left"]
    assert control["seconds"] > 0
    serial = audit.plan(chosen, tmp_path / "x")
    assert len(serial["trainings"]) == len(left["trainings"])

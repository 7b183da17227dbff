"""Rivals of a run: trained beside it as they would be alone, and compared with it user by user."""

from pathlib import Path

import pytest

from pplr_audit import audit, scenario
from pplr_audit.audit import AuditResult
from pplr_audit.errors import InputError
from pplr_audit.per_user import compared, read
from pplr_audit.report.document import validate
from pplr_audit.runs import failpoints
from pplr_audit.runs.store import Store

RIVALS = ("fedavg", {"pplr": {"ablate": ("balance",)}}, "centralised")
LABELS = ["pplr", "fedavg", "pplr without balance", "centralised"]


def changed(told: scenario.Scenario, **settings: object) -> scenario.Scenario:
    training = scenario.Training.model_validate(told.training.model_dump() | settings)
    return told.model_copy(update={"training": training})


@pytest.fixture(scope="module")
def beside(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    return audit.run(changed(small_scenario, rivals=RIVALS), tmp_path_factory.mktemp("rivals") / "run")


def rows(result: AuditResult, part: str, strategy: str) -> list[dict[str, object]]:
    return [row for row in result.document[part] if row["strategy"] == strategy]


def test_each_is_worth_what_it_is_alone(beside: AuditResult, small_scenario: scenario.Scenario, tmp_path: Path) -> None:
    for strategy in ("pplr", "fedavg", "centralised"):
        alone = audit.train(changed(small_scenario, strategy=strategy), tmp_path / strategy)
        for part in ("utility", "balance"):
            assert rows(alone, part, strategy) == rows(beside, part, strategy)


def test_pplr_without_its_balance_is_fedavg(beside: AuditResult) -> None:
    for one, other in zip(rows(beside, "utility", LABELS[1]), rows(beside, "utility", LABELS[2]), strict=True):
        assert {**one, "strategy": ""} == {**other, "strategy": ""}


def test_the_attacks_are_on_the_run_s_own_strategy_as_without_rivals(
    beside: AuditResult, small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    alone = audit.run(small_scenario, tmp_path / "alone")
    found = [[row | {"seconds": 0} for row in run.document["findings"]] for run in (alone, beside)]
    assert found[0] == found[1]
    assert alone.document["differences"] == []


def test_the_differences_are_those_of_two_runs_compared(
    beside: AuditResult, small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    validate(beside.document)
    found = beside.document["differences"]
    assert list(dict.fromkeys(row["against"] for row in found)) == LABELS[1:]
    audit.train(changed(small_scenario, strategy="fedavg"), tmp_path / "fedavg")
    expected = compared(read(beside.directory), read(tmp_path / "fedavg"), seed=small_scenario.seed)
    assert [row for row in found if row["against"] == "fedavg"] == expected


def test_the_report_says_so_in_words_and_in_a_table(beside: AuditResult) -> None:
    text = (beside.directory / "report.md").read_text(encoding="utf-8")
    assert "User by user:" in text
    assert "pplr less its rivals, with 95% intervals" in text
    strategies = list(dict.fromkeys(row["strategy"] for row in beside.document["utility"]))
    assert strategies[:4] == LABELS, "before the references"


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
        patch.setattr("pplr_audit.resume.reach", reach)
        with pytest.raises(Stop):
            audit.train(told, out)
    with Store.load(out) as store:
        assert not store.exists(audit.UTILITY)
    again = audit.train(told, out)
    for part in ("utility", "balance", "differences"):
        assert again.document[part] == beside.document[part]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[fedavgg]", r"training.rivals\[0\]: unknown name 'fedavgg'; did you mean 'fedavg'\?"),
        ("[{fedprox: {rounds: 3}}]", r"training.rivals.*fedprox: unknown setting 'rounds' .*proximal"),
        ("[{fedprox: {proximal: -1}}]", r"training.rivals.*fedprox: proximal: .*greater than or equal to 0"),
        ("[{fedavg: {ablate: [speed]}}]", r"training.rivals\[0\]: fedavg: ablate switches off terms of pplr"),
        ("[{pplr: {ablate: [balance, speed]}}]", "pplr: ablate without balance no other term is left"),
        ("[{pplr: {ablate: [heating, speed]}}, {pplr: {ablate: [speed, heating]}}]", "two trainings are pplr without"),
        ("[pplr]", "training.rivals.*two trainings are pplr"),
        ("[fedprox, {fedprox: {proximal: 1}}]", "training.rivals.*two trainings are fedprox"),
    ],
)
def test_rivals_that_do_not_fit_are_refused_with_the_field(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario.load("quickstart", [f"training.rivals={given}"])

"""A run directory of a version that called a strategy otherwise opens, goes on and is reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.runs.store import MANIFEST, SCENARIO, Store
from pplr_audit.training import rounds
from pplr_audit.training.utility.user_scores import read

OLD, TODAY = "centralised", "centralized"  # the old name, and today's
RIVALS = [TODAY, {TODAY: {"averaging": "product"}}]
LABELS = ["pplr", TODAY, f"{TODAY} with averaging product"]


def changed(small: scenario.Scenario, **training: Any) -> scenario.Scenario:
    values = small.model_dump(mode="json")
    values["training"] |= training
    values["audit"] |= {"cuts": [[1, 1]], "victims": 8, "attacks": ["loss"]}
    return scenario.Scenario.model_validate(values)


def grow_old(run: Path) -> None:
    """Write the old name wherever earlier versions wrote it, and take away what commit e4e715e did not note yet."""
    with Store.load(run, writable=True) as store:
        for path in store.paths():
            if path.endswith((".json", ".yaml")):
                store.write_text(path, store.read_text(path).replace(TODAY, OLD))
            elif path.endswith("per_user.safetensors"):
                arrays = {name.replace(TODAY, OLD): values for name, values in store.read_arrays(path).items()}
                about = {name: text.replace(TODAY, OLD) for name, text in store.read_metadata(path).items()}
                store.write_tensors(path, arrays, about)
        manifest = store.read_json(MANIFEST)
        store.write_json(MANIFEST, {name: value for name, value in manifest.items() if name != "compute"})
        assert OLD in store.read_text(SCENARIO)


def written(run: Path) -> scenario.Scenario:
    """The scenario as whoever continues the run loads it."""
    with pytest.warns(FutureWarning, match=f"{OLD} is the old name of {TODAY}"):
        return scenario.load(str(run / SCENARIO))


def figures(document: dict[str, Any]) -> dict[str, Any]:
    """What a document measured, without the time that it took."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in document["findings"]]
    return {"findings": rows, **{part: document[part] for part in ("utility", "balance", "differences")}}


@pytest.fixture
def not_trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, training a round fails."""

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(rounds.Client, "train_round", never)


@pytest.mark.parametrize("training", [{"rivals": RIVALS}, {"strategy": TODAY}], ids=["rival", "own"])
def test_a_finished_run_is_reported_attacked_and_continued_without_training(
    small_scenario: scenario.Scenario, tmp_path: Path, not_trained: Callable[[], None], training: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    new = audit.run(changed(small_scenario, **training), run).document
    folders = sorted(path.name for path in (run / "trainings").iterdir())
    grow_old(run)
    not_trained()

    (report,) = audit.write_report(run, ["md"], out=tmp_path / "report")
    text = report.read_text(encoding="utf-8")
    assert TODAY in text
    assert OLD not in text

    continued = audit.run(written(run), run).document
    assert figures(continued) == figures(new)
    attacked = audit.attack(run)
    assert figures(attacked.document) == figures(new)
    assert sorted(path.name for path in (run / "trainings").iterdir()) == folders
    assert set(read(run).scores) >= {new["run"]["strategy"]}
    own = list(dict.fromkeys(row["strategy"] for row in continued["utility"]))
    assert own[: len(LABELS)] == LABELS if "rivals" in training else own[0] == TODAY


def test_a_training_that_was_broken_off_goes_on_in_its_folder(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = changed(small_scenario, strategy=TODAY)
    whole = audit.train(told, tmp_path / "whole").document
    run, trained = tmp_path / "run", rounds.Client.train_round

    def broken(client: Any, link: Any, round_: int) -> float:
        if round_ == 2:
            raise KeyboardInterrupt
        return trained(client, link, round_)

    monkeypatch.setattr(rounds.Client, "train_round", broken)
    with pytest.raises(KeyboardInterrupt):
        audit.train(told, run)
    monkeypatch.undo()
    (folder,) = (run / "trainings").iterdir()
    grow_old(run)
    document = audit.train(written(run), run).document
    assert list((run / "trainings").iterdir()) == [folder]
    assert document["utility"] == whole["utility"]

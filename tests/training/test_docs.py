"""The strategy in docs/strategies.md does what the page says."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.runs.store import TRAINING, Store
from pplr_audit.scenario import plugins
from pplr_audit.training.checkpoints import TrainingFiles

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's code as a module on the path, found by an entry point like a third party's."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    code = found[1]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "ring.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    named = re.search(r"^(\w+) = \"(my_package\S+)\"$", PAGE, re.MULTILINE)
    assert named is not None
    point = EntryPoint(named[1], named[2], "pplr_audit.strategies")
    installed = plugins.points
    monkeypatch.setattr(plugins, "points", lambda kind: (*installed(kind), *([point] if kind == "strategies" else [])))
    return code


def test_a_third_party_s_strategy_of_under_forty_lines_trains_and_is_reported(
    ring: str, small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    assert len(ring.splitlines()) < 40
    assert plugins.describe("strategies")["ring"].startswith("Gossip on a ring")
    values = small_scenario.model_dump(mode="json")
    values["training"]["strategy"] = "ring"
    told = scenario.Scenario.model_validate(values)
    document = audit.train(told, tmp_path / "run").document
    assert {row["strategy"] for row in document["utility"]} >= {"ring"}
    (folder,) = (tmp_path / "run" / "trainings").iterdir()
    files = TrainingFiles(Store.load(folder, kind=TRAINING))
    for log in files.logs(2):
        assert np.array_equal(log.mixing.matrix, [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
    end = files.latest()
    assert end is not None
    first, second = (end.adapters[name] for name in ("client-0", "client-1"))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_every_strategy_and_setting_that_the_page_names_is_there() -> None:
    table = PAGE.split("| name |")[1].split("mu and lambda")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(plugins.names("strategies"))
    for field in re.findall(r"^- `(\w+):", PAGE, re.MULTILINE):
        assert field in scenario.Training.model_fields
    terms = re.findall(r"^\| `(\w+)`", PAGE.split("| term |")[1].split("Such a run")[0], re.MULTILINE)
    for term in terms:
        assert scenario.Training.model_validate({"ablate": [term]}).label == f"pplr without {term}"

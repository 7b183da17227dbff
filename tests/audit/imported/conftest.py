"""Recordings of a small run of ours, written by the code on the page about them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan, make_plan
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.runs.progress import Clock, Silent
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.job import Inputs
from pplr_audit.training.run_job import loaded
from tests.conftest import LAYERS

PAGE = (Path(__file__).parents[3] / "docs" / "recordings.md").read_text(encoding="utf-8")
RIDGE = {"ridge": {"prompts": 6, "held_out": 2}}
"""So few that it errs."""


@dataclass(frozen=True)
class Source:
    """A run that a recording is exported from, with what crossed in it."""

    document: dict[str, Any]
    asked: scenario.Scenario
    harness: Harness
    plan: Plan


@dataclass(frozen=True)
class Draft:
    """A recording before it is written."""

    said: dict[str, Any]
    tensors: dict[str, Tensor]
    truth: list[dict[str, Any]]


@pytest.fixture(scope="session")
def write() -> Callable[..., None]:
    """The function on the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/recordings.md", "exec"), names)
    written: Callable[..., None] = names["write_recording"]
    return written


@pytest.fixture(scope="session")
def source(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A run in which the adversary knows what it knows of a recording: public weights and the catalogue."""
    changed = small_scenario.model_dump()
    changed["model"]["cut"] = {"front": 2, "back": 0}
    changed["training"]["learning_rate"] = 0.05
    changed["audit"] |= {
        "attacks": [RIDGE], "cuts": [[2, 0]], "knowledge": "base", "auxiliary": "catalogue", "adversaries": ["server"],
    }  # fmt: skip
    asked = scenario.Scenario.model_validate(changed)
    result = audit.run(asked, tmp_path_factory.mktemp("source") / "run")
    plan = make_plan(asked, LAYERS)
    job = Inputs(Clock(Silent()).phase).job(plan.own, asked, plan.rounds)
    files = TrainingFiles(loaded(result.directory, plan.own), plan.rounds, job.federation)
    harness = Harness(job, files, plan, tmp_path_factory.mktemp("scratch"))
    return Source(result.document, asked, harness, plan)


def said_of(source: Source, **more: Any) -> dict[str, Any]:
    """The manifest of any recording of the run, without its observations."""
    asked = source.asked
    return {
        "name": "other-system", "model": asked.model.model_dump(mode="json"), "history": asked.data.history,
        "catalogue": [*source.harness.private.dataset.catalogue.titles], "seed": asked.seed,
        "training": {"learning_rate": 0.01, "batch_size": 8}, "clients": sorted(source.harness.private.samples), **more,
    }  # fmt: skip


@pytest.fixture(scope="session")
def sequences(source: Source) -> Draft:
    """Everything that crossed of the victims in training."""
    return exported(source, "front_activations")


def exported(source: Source, channel: str) -> Draft:
    """Everything that crossed of the victims at the cut that ran."""
    (cell,) = (cell for cell in source.plan.cells if cell.channel == channel)
    view, truth = source.harness.view(cell), source.harness.truths(cell)["history"]
    assert isinstance(truth, HistoryTruth)
    observations = [
        {"row": r.row, "client": r.client, "round": r.round, "step": r.step, "length": len(r.tensor)}
        for r in view.records
    ]
    rows = [
        {
            "row": row,
            "user": truth.users[row],
            "samples": [{"items": p.items.tolist(), **({"target": int(p.target)} if p.target >= 0 else {})}],
        }
        for row, p in truth.prompts.items()
    ]
    said = said_of(source, adversary="server", channel=channel, observations=observations)
    return Draft(said, {str(r.row): r.tensor.contiguous().clone() for r in view.records}, rows)

"""The main job on real data with a real language model."""

import os
from pathlib import Path

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
DATA = Path(os.environ.get("PPLR_AUDIT_DATA", SHARED / "data")) / "ml-100k"
MODEL = Path(os.environ.get("PPLR_AUDIT_MODELS", SHARED / "models")) / "stories260k"


@pytest.mark.skipif(not (DATA.is_dir() and MODEL.is_dir()), reason=f"needs {DATA.name} and {MODEL.name} (see README)")
def test_the_ml_100k_scenario_runs_to_a_report_and_reads_histories_at_every_cut(tmp_path: Path) -> None:
    chosen = scenario.load(
        "ml-100k",
        [
            f"data.path={DATA}", f"model.backbone={MODEL}", "data.users=100", "data.audit_users=60",
            "data.test_users=6", "data.history=3", "model.beams=1", "audit.victims=6",
            "audit.attacks=[{ridge: {prompts: 24, held_out: 6}}, loss]",
        ],
    )  # fmt: skip
    result = audit.run(chosen, tmp_path / "run")
    assert (result.directory / "report.html").is_file()
    rows = [row for row in result.document["findings"] if row["metric"] == "token_accuracy" and row["status"] == "ok"]
    assert [row["cut"]["front"] for row in rows] == [0, 1, 2, 3, 4] * 2
    assert all(row["ci"][0] > row["baseline"] for row in rows)
    assert len(result.document["run"]["clients"]) == 5

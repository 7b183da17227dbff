"""What encoding the catalogue costs a round, where some rounds do it and others do not."""

from pathlib import Path

import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario


def test_traffic_of_a_round_holds_the_mean_of_what_encoding_takes(
    recformer_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    training = recformer_scenario.training.model_copy(update={"rounds": 4})
    told = recformer_scenario.model_copy(update={"training": training})
    document = audit.train(told, tmp_path / "run").document
    (row,) = [row for row in document["costs"] if row["measured"]]
    assert row["measured"]["wire_bytes_per_round"] == pytest.approx(row["wire_bytes_per_round"])
    fixed = told.model.recformer.model_copy(update={"refresh_rounds": 0})
    without = told.model_copy(update={"model": told.model.model_copy(update={"recformer": fixed})})
    (bare,) = [row for row in audit.train(without, tmp_path / "bare").document["costs"] if row["measured"]]
    assert row["wire_bytes_per_round"] > bare["wire_bytes_per_round"]

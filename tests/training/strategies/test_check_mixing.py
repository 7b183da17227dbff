"""What a strategy answers, and what of it is refused before it makes a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.errors import RunError
from pplr_audit.training.strategies.check_mixing import checked
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.strategies.protocol import Mixing

THIRDS = np.full((3, 3), 1 / 3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "is a NoneType and no Mixing"),
        (THIRDS, "is a ndarray and no Mixing"),
        (Mixing(None), r"has matrix of shape \(\), and 3"),  # type: ignore[arg-type]
        (Mixing([[1.0], [0.5, 0.5], [1.0]]), "has as matrix what is no array of numbers"),  # type: ignore[arg-type]
        (Mixing(np.eye(2)), r"has matrix of shape \(2, 2\), and 3 clients need \(3, 3\)"),
        (Mixing(THIRDS[:2]), r"has matrix of shape \(2, 3\)"),
        (Mixing(np.where(np.eye(3), np.nan, 0)), "has matrix with values that are not finite"),
        (Mixing(2 * THIRDS), "has matrix whose weights sum to 2 and not to 1"),
        (Mixing(THIRDS + 1e-6 * np.eye(3)[::-1] * 2), "has matrix whose weights sum to 1.000002 and not to 1"),
        (Mixing(THIRDS, absent=THIRDS[0, :2]), r"has absent of shape \(2,\), and 3 clients need \(3,\)"),
        (Mixing(THIRDS, absent=np.array([0.5, 0.5, np.inf])), "has absent with values that are not finite"),
        (Mixing(THIRDS, absent=np.zeros(3)), "has absent whose weights sum to 0 and not to 1"),
        (Mixing(THIRDS, similarity=np.full((3, 3), np.nan)), "has similarity with values that are not finite"),
        (Mixing(THIRDS, speed=np.ones(2)), r"has speed of shape \(2,\)"),
    ],
)
def test_an_answer_that_mixes_no_models_of_the_clients_is_refused_with_strategy_and_round(
    answer: Any, said: str
) -> None:
    with pytest.raises(RunError, match=rf"^ring: what the strategy answers for round 4 {said}"):
        checked(answer, 3, "ring", 4)


def test_a_sound_answer_stays_as_it_is_to_the_bit_and_may_be_written_in_other_arrays() -> None:
    mixing = Mixing(THIRDS, THIRDS, THIRDS[0], THIRDS[0], THIRDS[0])
    assert all(value is getattr(mixing, name) for name, value in vars(checked(mixing, 3, "ring", 1)).items())
    other = checked(Mixing(torch.eye(3), absent=[0.5, 0.5, 0]), 3, "ring", 1)  # type: ignore[arg-type]
    assert np.array_equal(other.matrix, np.eye(3))
    assert isinstance(other.absent, np.ndarray)


def test_a_training_whose_strategy_answers_anything_ends_with_one_message_and_nothing_of_the_round_is_kept(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FedAvg, "mixing", lambda strategy, got, round_: Mixing(1.1 * THIRDS))
    training = small_scenario.training.model_copy(update={"strategy": "fedavg"})
    with pytest.raises(RunError, match=r"^fedavg: what the strategy answers for round 1 has matrix whose weights sum"):
        audit.train(small_scenario.model_copy(update={"training": training}), tmp_path / "run")
    assert len(list((tmp_path / "run").rglob("state.safetensors"))) == 1

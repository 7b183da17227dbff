"""A training whose loss, weights or scores are no longer numbers ends with one message, and keeps what was good."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.data.prepare import prepare
from pplr_audit.errors import RunError
from pplr_audit.models.recommenders.bigrec import BigRec
from pplr_audit.training import divergence
from pplr_audit.training.client import Client
from pplr_audit.training.strategies.pplr import Pplr
from pplr_audit.training.strategies.protocol import Mixing
from tests.pipeline.test_strategies import changed, files_of


def test_a_loss_that_explodes_ends_with_one_message_and_the_last_good_round_is_kept(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    loss, descend, training = BigRec.loss, Client.train_round, [""]

    def named(client: Client, link: Any, round_: int) -> float:
        training[0] = client.name
        return descend(client, link, round_)

    def exploding(task: BigRec, *given: Any) -> Any:
        seen.append(1)
        late = training[0] == "client-1" and len(seen) > steps
        return loss(task, *given) * (1e9 if late else 1.0)

    told = changed(small_scenario, rounds=3)
    private = prepare(told.data, told.seed)
    steps = sum(-(-len(own) // told.training.batch_size) for own in private.samples.values())
    monkeypatch.setattr(Client, "train_round", named)
    monkeypatch.setattr(BigRec, "loss", exploding)
    with pytest.raises(RunError, match=r"client-1: the loss has exploded \(.*\) in round 2, step 0") as failed:
        audit.train(told, tmp_path / "run")
    assert "\n" not in str(failed.value)
    assert "step 0, its first: the cause is the model that round 1 left (last good round: none)" in str(failed.value)
    monkeypatch.undo()
    files = files_of(tmp_path / "run")
    kept = files.latest()
    assert kept is not None
    assert (files.done(), kept.round) == (1, 2)
    assert all(bool(v.isfinite().all()) for adapter in kept.adapters.values() for v in adapter.values())


def test_weights_that_blow_up_in_the_last_step_of_a_round_are_not_kept_either(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    """No loss follows the last step that could show it."""
    shape = {"batch_size": 512, "optimizer": "sgd", "learning_rate": 1e38, "schedule": "constant"}
    for cut in ({"front": 1, "back": 1}, {"front": 0, "back": 0}):
        told = changed(small_scenario, **shape)
        told = told.model_copy(update={"model": told.model.model_copy(update={"cut": scenario.Cut(**cut)})})
        out = tmp_path / f"run-{cut['front']}"
        result = CliRunner().invoke(cli.app, ["train", _written(told, tmp_path), "--out", str(out)])
        assert result.exit_code == 1, result.output
        assert re.search(r"client-\d: the (adapter|loss) (is not finite|has exploded)", result.output), result.output
        state = files_of(out).latest()
        assert state is not None
        assert all(bool(v.isfinite().all()) for adapter in state.adapters.values() for v in adapter.values())


@pytest.mark.parametrize("cut", [(1, 1), (0, 0)])
def test_weights_that_are_finite_and_far_too_large_end_the_training_and_are_not_kept(
    small_scenario: scenario.Scenario, tmp_path: Path, cut: tuple[int, int]
) -> None:
    told = changed(small_scenario, rounds=1, batch_size=512, optimizer="sgd", learning_rate=1e25)
    held = scenario.Cut(front=cut[0], back=cut[1])
    told = told.model_copy(update={"model": told.model.model_copy(update={"cut": held})})
    said = r"^pplr, client-0: the adapter has exploded \(a value of \d.*e\+\d\d\) in round 1, step 0; try a lower"
    with pytest.raises(RunError, match=said):
        audit.train(told, tmp_path / "run")
    assert files_of(tmp_path / "run").done() == 0


def test_models_that_only_the_balance_made_too_large_are_not_kept(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apart(strategy: Pplr, got: Any, round_: int) -> Mixing:
        return Mixing(np.array([[1e9, 1 - 1e9, 0], [0, 1, 0], [0, 0, 1]]))

    monkeypatch.setattr(Pplr, "mixing", apart)
    with pytest.raises(RunError, match=r"^pplr, client-0: the adapter has exploded .* after round 1 was balanced"):
        audit.train(changed(small_scenario), tmp_path / "run")
    assert files_of(tmp_path / "run").done() == 0


def test_what_a_round_left_is_blamed_for_the_first_loss_of_the_next_with_the_last_round_that_was_good() -> None:
    """Whoever runs the same command again must know that it ends the same, and what to change."""
    failed = divergence.diverged_before(scenario.Training(), "client-1", "the loss is not finite", 4, 0)
    assert "the cause is the model that round 3 left (last good round: round 2 at the latest)" in str(failed)
    assert "the same command ends here again; try a lower training.learning_rate (now 0.0001)" in str(failed)


@pytest.mark.parametrize("kind", ["small_scenario", "recformer_scenario"])
@pytest.mark.parametrize("patience", [None, 1])
def test_a_trained_model_whose_scores_are_not_finite_is_told_by_client_and_strategy(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, patience: int | None
) -> None:
    """Wherever it is asked to rank: at the end, and for early stopping. Generation would take NaN without a word."""
    served = Client.served

    def spoilt(client: Client, *given: Any) -> Any:
        spoilt = {name: torch.full_like(value, float("nan")) for name, value in client.shared.adapter.items()}
        client.shared = replace(client.shared, adapter=spoilt)
        return served(client, *given)

    monkeypatch.setattr(Client, "served", spoilt)
    told = changed(request.getfixturevalue(kind), strategy="local", rounds=1, patience=patience)
    said = r"^local, client-0: the trained model's scores are not finite, .*; try a lower training\.learning_rate"
    with pytest.raises(RunError, match=said):
        audit.train(told, tmp_path / "run")


def _written(told: scenario.Scenario, folder: Path) -> str:
    path = folder / f"told-{told.model.cut.front}.yaml"
    path.write_text(scenario.dump(told))
    return str(path)

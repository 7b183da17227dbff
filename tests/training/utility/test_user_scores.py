"""Scores of single users, kept by a run, and two runs compared by them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.training.run_job import user_scores
from pplr_audit.training.utility.user_scores import UserScores, compared


def scores(strategy: str, values: list[float], **changes: Any) -> UserScores:
    clients = np.array([0, 0, 0, 1, 1])
    made = UserScores(strategy, "d1", ("a", "b"), np.arange(5), clients, {strategy: {"recall@10": np.array(values)}})
    return replace(made, **changes)


def test_what_a_run_keeps_of_its_users_is_what_its_utility_is_the_mean_of(trained: audit.AuditResult) -> None:
    kept = user_scores(trained.directory)
    assert kept.strategy == "pplr"
    assert set(kept.scores) == {"pplr", "untrained", "popularity"}
    assert len(set(kept.users.tolist())) == len(kept.users) == 30
    for row in trained.document["utility"]:
        if row["strategy"] == "best_possible":
            continue
        values = kept.scores[row["strategy"]][row["metric"]]
        own = np.ones(30, bool) if row["client"] == "all" else kept.clients == kept.names.index(row["client"])
        assert row["n"] == own.sum()
        assert row["value"] == pytest.approx(values[own].mean())


def test_two_strategies_are_compared_user_by_user_and_a_run_with_itself_differs_in_nothing(
    small_scenario: scenario.Scenario, trained: audit.AuditResult, tmp_path: Path
) -> None:
    told = small_scenario.model_copy(
        update={"training": small_scenario.training.model_copy(update={"strategy": "fedavg"})}
    )
    other = audit.train(told, tmp_path / "fedavg").document
    rows = compared(user_scores(trained.directory), user_scores(tmp_path / "fedavg"))
    at = {(r["metric"], r["client"]): r["value"] for r in trained.document["utility"] if r["strategy"] == "pplr"}
    fedavg = {(r["metric"], r["client"]): r["value"] for r in other["utility"] if r["strategy"] == "fedavg"}
    means = [row for row in rows if row["measure"] == "mean"]
    assert {row["client"] for row in means} == {"all", "client-0", "client-1", "client-2"}
    for row in means:
        key = (row["metric"], row["client"])
        assert row["value"] == pytest.approx(at[key] - fedavg[key])
        assert row["ci"][0] <= row["value"] <= row["ci"][1]
        assert (row["strategy"], row["against"]) == ("pplr", "fedavg")
    assert {row["measure"] for row in rows} == {"mean", "standard_deviation", "worst_client", "jain"}
    assert all(row["value"] == 0 for row in compared(user_scores(trained.directory), user_scores(trained.directory)))


def test_differences_are_those_computed_by_hand_whatever_order_the_users_are_in() -> None:
    one, other = scores("pplr", [1, 1, 0, 1, 0]), scores("fedavg", [1, 0, 0, 0, 0])
    turned = replace(
        other, users=other.users[::-1], clients=other.clients[::-1],
        scores={"fedavg": {"recall@10": other.scores["fedavg"]["recall@10"][::-1]}},
    )  # fmt: skip
    for against in (other, turned):
        found = {(r["measure"], r["client"]): r["value"] for r in compared(one, against)}
        assert found["mean", "all"] == pytest.approx(2 / 5)
        assert found["mean", "a"] == pytest.approx(1 / 3)
        assert found["mean", "b"] == pytest.approx(1 / 2)
        assert found["worst_client", "all"] == pytest.approx(1 / 2 - 0)
        assert found["standard_deviation", "all"] == pytest.approx((2 / 3 - 1 / 2) / 2 - (1 / 3) / 2)
        assert found["jain", "all"] == pytest.approx((7 / 6) ** 2 / (2 * (4 / 9 + 1 / 4)) - 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "d2"}, "different data"), ({"users": np.array([0, 1, 2, 3, 9])}, "different users"),
        ({"clients": np.array([0, 0, 1, 1, 1])}, "different clients"), ({"names": ("a", "c")}, "different clients"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_paired_are_refused(changes: dict[str, Any], said: str) -> None:
    values = [1.0, 0.0, 0.0, 1.0, 0.0]
    with pytest.raises(InputError, match=said):
        compared(scores("pplr", values), scores("fedavg", values, **changes))

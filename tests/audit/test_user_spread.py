"""What is said of single users and clients, without naming one."""

import json
from typing import Any

import numpy as np
import pytest

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.user_spread import LEAST, with_spread
from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.threat_model.channels import Channel

Json = dict[str, Any]
CELL = Cell("ridge", "{}", "server", "front", Channel.FRONT_ACTIVATIONS, 1, None, 5, "none")


def cell(by_user: dict[int, float]) -> Json:
    """A cell as it lies in the run directory."""
    rows = [
        CELL.row(metric, "ok", value=0.5, ci=[0.4, 0.6], baseline=0.1, n=9, detail={"kept": 1})
        for metric in ("token_accuracy", "item_hit@1")
    ]
    return {
        "findings": rows, "per_user": {"item_hit@1/": {str(user): value for user, value in by_user.items()}}, "roc": [],
    }  # fmt: skip


def of(by_user: dict[int, float], clients: int = 1) -> Json:
    (found,) = with_spread([cell(by_user)], lambda user: f"client-{user % clients}", seed=4)
    words, items = found["findings"]
    assert words["detail"] == {"kept": 1}, "one metric says it"
    assert items["detail"]["kept"] == 1
    return dict(items["detail"]["over_users"])


def test_the_middle_the_worst_hit_and_those_read_whole_are_told() -> None:
    found = of({1000: 1.0, 1001: 0.0, 1002: 0.5, 1003: 0.25, 1004: 1.0})
    assert [found[name] for name in ("n", "least", "quartiles", "median", "most")] == [5, 0.0, [0.25, 1.0], 0.5, 1.0]
    whole = mean_estimate(np.array([1.0, 0, 0, 0, 1]), np.arange(5), seed=derive(4, "interval") % 2**32)
    assert found["all_read"] == {"mean": 0.4, "ci": [whole.low, whole.high], "n": 5}


def test_clients_of_enough_users_have_a_mean_with_an_interval_and_those_of_few_have_none() -> None:
    by_user = {2 * number: number / LEAST for number in range(LEAST)} | {1: 1.0, 3: 0.0}
    found = of(by_user, clients=2)["clients"]
    assert list(found) == ["client-0"]
    assert found["client-0"]["mean"] == pytest.approx(0.4)
    assert found["client-0"]["ci"][0] < 0.4 < found["client-0"]["ci"][1]
    assert found["client-0"]["n"] == LEAST


def test_no_user_is_named_even_where_a_client_is_one_user() -> None:
    found = of({104729 + number: 0.5 for number in range(9)}, clients=1_000_000)
    assert found["clients"] == {}
    assert "1047" not in json.dumps(found)


def test_a_cell_without_scores_of_users_and_a_finding_without_a_value_stay_as_they_were() -> None:
    without = {"findings": [CELL.row("item_hit@1", "failed", detail={"reason": "x"})], "per_user": {}, "roc": []}
    other = cell({1: 0.5})
    for row in other["findings"]:
        row.update(secret="label")
    assert with_spread([without, other], str, seed=0) == [without, other]

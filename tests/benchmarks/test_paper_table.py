"""The page of the paper's table says what was kept of its runs, out of small documents made by hand."""

import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplr_audit.errors import RunError
from pplr_audit.training.rounds import RoundLog
from pplr_audit.training.strategies.protocol import Mixing
from pplr_audit.training.utility.user_scores import UserScores

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("measuring", "round_logs", "paper_numbers", "paper_mixing", "paper_groups", "paper_page", "paper_table")


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Programs beside the package, which import one another by their bare names."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("paper_table")
    for name in MODULES:
        sys.modules.pop(name, None)


STRATEGIES = ("pplr", "fedavg", "local", "centralized", "pplr without speed")


def document(
    users: Mapping[str, int],
    values: Mapping[str, float],
    gain: float = 0.0,
    even: float = 0.0,
    half: float = 0.01,
    **more: Any,
) -> dict[str, Any]:
    """What is kept of a seed's run: each strategy reaches its value, at each client a hundredth of its users.

    Args:
        users: test users by client.
        values: by strategy.
        gain: of PPLR over each rival, and ``even`` of its standard deviation over clients.
        half: the half width of every interval.
    """

    def row(value: float, **fields: Any) -> dict[str, Any]:
        return {"defense": "none", **fields, "value": value, "ci": [value - half, value + half]}

    metrics = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
    total = sum(users.values())
    utility = [row(v, strategy=s, client="all", metric=m, n=total) for s, v in values.items() for m in metrics]
    utility += [
        row(n / 100, strategy=s, client=c, metric=m, n=n) for s in values for c, n in users.items() for m in metrics
    ]
    measures = ("standard_deviation", "worst_client", "jain")
    balance = [row(0.1, strategy=s, metric=m, measure=x, n=total) for s in values for m in metrics for x in measures]
    differences = [
        row(v, strategy="pplr", against=s, metric=m, measure=x, client="all", n=total)
        for s in STRATEGIES[1:]
        for m in metrics
        for x, v in (("mean", gain), ("standard_deviation", even), ("worst_client", -even), ("jain", 0.0))
    ]
    run = {
        "clients": [{"name": c, "users": n, "samples": 7} for c, n in users.items()],
        "rounds": 3,
        "data": {"items": 48},
        "seconds": {"training": 1.0, "training fedavg": 2.0, "preparing the model": 60.0},
        "hardware": {"cpu": "A processor", "cores": 2, "memory_bytes": 4e9},
        "libraries": {"torch": "2"},
        "created": "2026-11-25T00:00:00",
    }
    return {"run": run, "utility": utility, "balance": balance, "differences": differences, **more}


def values(pplr: float = 0.5, centralized: float = 0.5, untrained: float = 0.1) -> dict[str, float]:
    return {**dict.fromkeys(STRATEGIES, pplr), "centralized": centralized, "untrained": untrained, "popularity": 0.05}


def mixing(matrix: Sequence[Sequence[float]]) -> dict[str, Any]:
    similar = [[1.0, 0.9], [0.9, 1.0]]
    return {"round": 3, "clients": ["client-0", "client-1"], "losses": [2.0, 1.0], "matrix": matrix, "S": similar,
            "l": [0.7, 0.3], "w": [0.6, 0.9]}  # fmt: skip


USERS = ({"client-0": 30, "client-1": 20}, {"client-0": 15, "client-1": 40})


def rendered(paper: Any, docs: Mapping[int, Any], seeds: Sequence[int] = (0, 1), **more: Any) -> str:
    (group,) = paper.groups(True)
    return str(paper.page([group], {group.name: docs}, seeds, **more))


def test_clients_of_different_seeds_are_put_together_by_their_size(paper: Any) -> None:
    """client-0 is the larger one in seed 0 alone."""
    page = rendered(paper, {seed: document(users, values()) for seed, users in enumerate(USERS)})
    assert "largest 30, 40; 2nd 20, 15." in page
    largest, second = (
        next(line for line in page.splitlines() if line.startswith(f"| fedavg | {place} |"))
        for place in ("largest", "2nd")
    )
    assert largest.count("0.3500 ± 0.0707") == 4, "0.30 and 0.40, in all four metrics"
    assert second.count("0.1750 ± 0.0354") == 4


def test_it_says_what_the_groups_really_had(paper: Any) -> None:
    page = rendered(paper, {0: document(USERS[0], values())})
    assert "2 clients, 14 training samples, 3 rounds, 50 test users, 48 items." in page
    assert "1,024" not in page
    assert "ive clients" not in page
    assert "Seeds that have run: 0; not yet: 1." in page
    assert "No cell has run yet." in rendered(paper, {})


def test_training_time_is_that_of_the_rounds_whichever_call_ran_them(paper: Any) -> None:
    page = rendered(paper, {0: document(USERS[0], values(), training_seconds={"pplr": 600.0, "fedavg": 1200.0})})
    assert "training 30 min" in page
    assert "preparing and measuring 1 min" in page
    assert "shared with other work" in page
    assert "training 30 min" not in rendered(paper, {0: document(USERS[0], values())})


def test_what_is_kept_of_earlier_settings_is_named(paper: Any, tmp_path: Path) -> None:
    (group,) = paper.groups(True)
    paper.write(tmp_path, group, 0, document(USERS[0], values()))
    (tmp_path / "old-0-12345678.json").write_text("{}")
    assert paper.strangers(tmp_path, [group]) == ["old-0-12345678"]
    said = rendered(paper, {}, strangers=["old-0-12345678"])
    assert "Kept from earlier settings, not shown: `old-0-12345678`." in said
    assert "earlier settings" not in rendered(paper, {})


def test_a_rival_that_broke_off_in_one_seed_is_named_and_compared_in_the_others(paper: Any) -> None:
    whole, less = (document(users, values(), gain=0.05) for users in USERS)
    for part in ("utility", "balance"):
        less[part] = [row for row in less[part] if row["strategy"] != "fedavg"]
    less["differences"] = [row for row in less["differences"] if row["against"] != "fedavg"]
    less["run"]["failed_rivals"] = [{"strategy": "fedavg", "reason": "its loss is not finite"}]
    page = rendered(paper, {0: whole, 1: less})
    assert "Broke off: fedavg (seed 1)." in page
    assert "9 of 10 cells" in page
    assert "recall@10 +0.0500 [+0.0400, +0.0600], or" in page
    assert "%, beside FedAvg's 0.5000" in page, "of the seed that has both"


def test_what_is_learned_is_judged_by_both_intervals(paper: Any) -> None:
    near = rendered(paper, {0: document(USERS[0], values(centralized=0.112, untrained=0.1))})
    assert "whether FedAvg or PPLR learned anything" in near, "0.112 and 0.1, each by 0.01 either way"
    assert "learned anything" not in rendered(paper, {0: document(USERS[0], values(centralized=0.12, untrained=0.1))})


def test_every_rival_stands_beside_pplr_in_pairs(paper: Any) -> None:
    page = rendered(paper, {0: document(USERS[0], values(), gain=0.05)})
    for rival in STRATEGIES[1:]:
        for metric in ("recall@10", "ndcg@10"):
            assert f"| {rival} | {metric} | +0.0500 [+0.0400, +0.0600] | [+0.0400, +0.0600] | more |" in page


def answer(paper: Any, *docs: Mapping[str, Any]) -> str:
    page = rendered(paper, dict(enumerate(docs)))
    return page[page.index("## The answer") : page.index("## synthetic")]


def test_the_answer_tells_a_difference_from_noise(paper: Any) -> None:
    more = [document(users, values(), gain=0.05, even=-0.05, half=0.002) for users in USERS]
    said = answer(paper, *more)
    assert "Does it balance clients? Yes." in said
    assert "Does it beat FedAvg? Yes." in said
    said = answer(paper, *(document(users, values(), gain=-0.05, even=0.05, half=0.002) for users in USERS))
    assert "Does it balance clients? No, it is less even." in said
    assert "Does it beat FedAvg? No, it is worse." in said
    said = answer(paper, *(document(users, values(), gain=0.001, even=-0.001, half=0.002) for users in USERS))
    assert "No difference from FedAvg that is more than noise." in said
    assert "Does it beat FedAvg? No difference that is more than noise." in said


def test_seeds_that_disagree_are_noise_however_sure_each_is_of_its_users(paper: Any) -> None:
    said = answer(
        paper,
        document(USERS[0], values(), gain=0.10, half=0.001),
        document(USERS[1], values(), gain=0.01, half=0.001),
    )
    assert "Does it beat FedAvg? No difference that is more than noise." in said
    assert "more in each seed, but the seeds differ too much" in said


def test_the_share_of_centralized_training_has_an_interval_and_a_goal_only_where_that_says_so(paper: Any) -> None:
    assert "[99, 101] %" in (said := answer(paper, *(document(u, values(), half=0.005) for u in USERS)))
    assert "Goal 95 %: met" in said
    poor = [document(users, values(pplr=0.3), gain=-0.2, half=0.005) for users in USERS]
    assert "60 [59, 61] %" in (said := answer(paper, *poor))
    assert "Goal 95 %: not met" in said
    assert "Goal 95 %: undecided" in answer(paper, *(document(u, values(), half=0.05) for u in USERS))


def test_where_nothing_was_learned_nothing_is_claimed(paper: Any) -> None:
    said = answer(paper, document(USERS[0], values(centralized=0.1)))
    assert "models that have learned little or nothing" in said
    assert "met" not in said.replace("metric", "")
    said = answer(paper, document(USERS[0], values(centralized=0.105)))
    assert "it is undecided whether the goal is met, and whether" in said


def test_what_the_balance_did_is_told_where_it_was_kept(paper: Any) -> None:
    even = {"mixing": {"pplr": mixing([[0.5, 0.5], [0.49, 0.51]])}}
    page = rendered(paper, {0: document(USERS[0], values(), **even), 1: document(USERS[1], values())})
    assert "(1 of 2 seeds)? Clients kept 50.0 to 51.0 % of their own model" in page
    assert "nearly the same model" in page
    assert "loss 2.000, l 0.700, w 0.600, own 50.0 %" in page
    apart = {"mixing": {"pplr": mixing([[0.9, 0.1], [0.49, 0.51]])}}
    said = answer(paper, document(USERS[0], values(), **apart))
    assert "1 of 2 new models had a weight more than 2 percentage points from that average (40.0 at most)" in said
    assert "the balance do" not in rendered(paper, {0: document(USERS[0], values())})


def test_the_clients_mixing_is_told_in_the_order_of_their_size(paper: Any) -> None:
    page = rendered(paper, {1: document(USERS[1], values(), mixing={"pplr": mixing([[0.9, 0.1], [0.2, 0.8]])})})
    (line,) = (line for line in page.splitlines() if line.startswith("| pplr | 1 | 0.9000–0.9000 |"))
    assert line.index("own 80.0 %") < line.index("own 90.0 %")


def test_a_last_round_is_kept_as_json(paper: Any) -> None:
    kept = sys.modules["paper_mixing"].kept
    half = np.full((2, 2), 0.5)
    log = RoundLog(3, {"b": 2.0, "a": 1.0}, Mixing(half, half, half[0], half[1]), 1.0, {})
    again = json.loads(json.dumps(kept(log)))
    assert again["clients"] == ["a", "b"]
    assert again["losses"] == [1.0, 2.0]
    assert again["S"] == again["matrix"] == half.tolist()
    assert json.loads(json.dumps(kept(RoundLog(1, {"a": 1.0}, Mixing(np.ones((1, 1))), 1.0, {}))))["w"] is None


def test_what_an_older_version_kept_is_completed_from_the_run(
    paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = paper.groups(True)
    paper.write(tmp_path, group, 0, document(USERS[0], values()))
    even = {"training_seconds": {"pplr": 60.0}, "mixing": {"pplr": mixing([[0.5, 0.5], [0.5, 0.5]])}, "references": []}
    monkeypatch.setattr(paper, "logged", lambda directory: even)
    paper.complete(tmp_path / "runs", tmp_path, [group], (0,))
    assert "mixing" not in paper.documents(tmp_path, group, (0,))[0], "there is no run to take it from"
    (tmp_path / "runs" / paper.slug(group, 0)).mkdir(parents=True)
    paper.complete(tmp_path / "runs", tmp_path, [group], (0,))
    assert paper.documents(tmp_path, group, (0,))[0].items() >= even.items()


def test_a_strategy_is_above_a_reference_by_its_own_users_in_pairs(paper: Any) -> None:
    users = np.arange(400)
    hit = (users % 10 == 0).astype(float)
    more = (users % 10 < 2).astype(float)
    scores = {"centralized": {"recall@10": more}, "untrained": {"recall@10": hit}, "popularity": {"recall@10": more}}
    found = paper.over_references(UserScores("centralized", "digest", ("a",), users, np.zeros_like(users), scores))
    assert [(row["strategy"], row["against"]) for row in found] == [
        ("centralized", "untrained"), ("centralized", "popularity"),
    ]  # fmt: skip
    gain, none = found
    assert gain["value"] == pytest.approx(0.1)
    assert gain["ci"][0] > 0.06
    assert none["value"] == 0
    assert none["ci"][0] < 0 < none["ci"][1]


def test_what_is_learned_is_judged_in_pairs_where_they_are_kept(paper: Any) -> None:
    (group,) = paper.groups(True)
    reached = values() | {"centralized": 0.11, "untrained": 0.1, "popularity": 0.13}
    plain = document(USERS[0], reached, half=0.01)
    text = paper.page([group], {group.name: {0: plain}}, (0,), ())
    assert "no difference beyond noise. So it is undecided" in text, "unpaired, 0.01 is within its interval"
    gain = {"strategy": "pplr", "metric": "recall@10", "against": "untrained", "value": 0.01, "ci": [0.006, 0.014]}
    text = paper.page([group], {group.name: {0: {**plain, "references": [gain]}}}, (0,), ())
    assert "PPLR did learn: minus the untrained model, in pairs, +0.0100 [+0.0060, +0.0140] (more)" in text
    assert "whether FedAvg or PPLR learned" not in text
    wanted = {"strategy": "centralized", "metric": "recall@10"}
    kept = [
        {**wanted, "against": "untrained", "value": 0.01, "ci": [0.006, 0.014]},
        {**wanted, "against": "popularity", "value": -0.02, "ci": [-0.03, -0.01]},
    ]
    text = paper.page([group], {group.name: {0: {**plain, "references": kept}}}, (0,), ())
    assert "whether FedAvg or PPLR learned" not in text
    assert "centralized training reaches 0.1100, which is worse." in text
    assert "| centralized | +0.0100 [+0.0060, +0.0140] (more) | -0.0200 [-0.0300, -0.0100] (less) |" in text


def test_a_run_that_fails_stops_no_other_and_is_told(
    paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = paper.groups(True)
    first, second = group, paper.Group("second", group.data, group.model, group.training, group.rivals)

    def run(root: Path, kept: Path, group: Any, seed: int) -> None:
        if group is first:
            raise RunError("its loss has exploded")
        paper.write(kept, group, seed, document(USERS[0], values()))

    monkeypatch.setattr(paper, "groups", lambda quick: [first, second])
    monkeypatch.setattr(paper, "run", run)
    monkeypatch.setattr(paper, "SEEDS", (0,))
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["paper_table", "--kept", str(tmp_path), "--results", str(page)])
    with pytest.raises(SystemExit) as left:
        paper.main()
    assert left.value.code == f"failed:\n{first.name}, seed 0: its loss has exploded", "a text is exit code 1"
    assert "its loss has exploded" in page.read_text()
    assert "**second** (1 seed)" in page.read_text()


def test_the_share_is_as_wide_as_its_pairs_are_loose(paper: Any) -> None:
    ratios = sys.modules["paper_numbers"].ratios
    own, other = [{"value": 0.4, "ci": [0.3, 0.5]}], [{"value": 0.4, "ci": [0.3, 0.5]}]
    (tight,) = ratios(own, other, [{"value": 0.0, "ci": [-0.004, 0.004]}])
    assert tight["ci"] == pytest.approx([0.99, 1.01])
    (loose,) = ratios(own, other, [{"value": 0.0, "ci": [-0.1 * 2**0.5, 0.1 * 2**0.5]}])
    assert loose["ci"] == pytest.approx([1 - 2**0.5 / 4, 1 + 2**0.5 / 4]), "as of two independent means"
    assert ratios(own, [{"value": 0.0, "ci": [0.0, 0.1]}], own) == []

"""Scores from hand-made guesses: perfect, wrong, too short; and cells that end without a value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.plan import make_plan
from pplr_audit.audit.run_cell import _by_step, run_cell
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.audit.truth.score import Score
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.runs.store import Store
from pplr_audit.scoring.intervals import Estimate, mean_estimate
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View


@pytest.fixture(scope="module")
def prompts(small_scenario: scenario.Scenario, small_market: Dataset) -> Prompts:
    model: Recommender = build(small_scenario.model, small_market.catalogue, history=3, seed=1)
    return model.prompts


@pytest.fixture
def truth(prompts: Prompts) -> HistoryTruth:
    histories = {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]}
    built = {row: prompts.build(np.array(items), 11) for row, items in histories.items()}
    popularity = np.zeros(48)
    popularity[[9, 3]] = [5, 4]
    titles = [prompts.titles[i] for i in range(48)]
    return HistoryTruth({0: 10, 1: 11, 2: 12}, built, prompts.title_classes(), popularity, titles)


def guess_of(prompts: dict[int, Prompt], items: dict[int, list[int]]) -> Guess:
    tokens = [prompts[row].tokens for row in prompts]
    ranked = [np.pad(np.array(items[row])[:, None], ((0, 0), (0, 9)), constant_values=-1) for row in prompts]
    return Guess(
        {
            "rows": np.array(list(prompts)),
            "token_offsets": np.concatenate([[0], np.cumsum([len(t) for t in tokens])]),
            "tokens": np.concatenate(tokens),
            "claimed": np.concatenate([prompts[row].slots >= 0 for row in prompts]),
            "slot_offsets": np.concatenate([[0], np.cumsum([len(r) for r in ranked])]),
            "items": np.concatenate(ranked),
        }
    )


def values(truth: HistoryTruth, guess: Guess) -> dict[str, float]:
    return {score.metric: score.estimate.value for score in truth.score(guess, seed=0)}


def test_a_perfect_guess_scores_one_everywhere(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    assert values(truth, guess) == pytest.approx(dict.fromkeys((
        "token_accuracy", "item_hit@1", "item_hit@5", "item_hit@10", "exact_history", "rouge1", "rouge2", "rougeL",
        "history_jaccard", "kendall_tau",
    ), 1.0))  # fmt: skip


def test_hits_are_counted_by_slot_and_histories_as_wholes(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 6], 2: [9, 8]})
    got = values(truth, guess)
    assert got["item_hit@1"] == pytest.approx(5 / 8)
    assert got["exact_history"] == pytest.approx(1 / 3)


def test_order_matters(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [7, 1, 3], 1: [5, 2], 2: [4, 9, 9]})
    got = values(truth, guess)
    assert got["item_hit@1"] == pytest.approx(2 / 8)
    assert got["history_jaccard"] == 1  # whatever the place
    assert got["kendall_tau"] == pytest.approx((-1 - 1 - 1) / 3)


def test_items_that_were_never_there_are_not_for_free(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7, 20, 21, 22], 1: [2, 5], 2: [9, 9, 4]})
    got = values(truth, guess)
    assert got["exact_history"] == pytest.approx(2 / 3)
    assert got["history_jaccard"] == pytest.approx((3 / 6 + 1 + 1) / 3)
    assert got["item_hit@1"] == 1, "it is of the slots that there are"


def test_the_floor_of_a_long_history_names_as_many_popular_items(prompts: Prompts) -> None:
    usual = np.arange(14)
    popularity = np.zeros(48)
    popularity[usual] = 5
    prompt = prompts.build(usual)
    assert len(prompt.items) == 14, "all of them fit"
    long = HistoryTruth({0: 1}, {0: prompt}, np.arange(48), popularity, [prompts.titles[i] for i in range(48)])
    floors = {s.metric: s.baseline for s in long.score(guess_of({0: prompt}, {0: [40]}), seed=0)}
    assert floors["history_jaccard"] == 1
    assert floors["rouge1"] == pytest.approx(1)


def test_words_and_items_in_common_are_counted_by_history(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 8, 6], 1: [2], 2: [1, 1, 1]})
    found = {score.metric: score for score in truth.score(guess, seed=0)}
    assert found["history_jaccard"].estimate.value == pytest.approx((1 / 5 + 1 / 2 + 0) / 3)
    assert "kendall_tau" not in found, "no history has two items in common"
    prompt = truth.prompts[1]
    tokens = guess.arrays["tokens"].copy()
    offsets = guess.arrays["token_offsets"]
    own = tokens[offsets[1] : offsets[2]]
    inside = np.flatnonzero(prompt.slots >= 0)
    own[inside] = own[inside][::-1]  # the same words, the other way round
    found = {score.metric: score for score in truth.score(Guess({**guess.arrays, "tokens": tokens}), seed=0)}
    assert found["rouge1"].estimate.value == 1
    assert found["rougeL"].estimate.value < 1
    assert 0 <= found["rouge2"].baseline <= found["rouge1"].baseline < 1


def test_words_that_an_answer_claims_count_wherever_they_stand(truth: HistoryTruth) -> None:
    """It has every word of the history at its place, and wrong ones where the template is, and behind the end."""
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    tokens, f1 = [], []
    for prompt in truth.prompts.values():
        title, wrong = prompt.slots >= 0, 10_000 + np.arange(len(prompt) + 50)
        tokens.append(np.concatenate([np.where(title, prompt.tokens, wrong[: len(prompt)]), wrong[len(prompt) :]]))
        f1.append(2 * title.sum() / (title.sum() + len(wrong)))
        assert len(wrong) > 10 * title.sum(), "ten wrong words and more for each right one"
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in tokens])])
    wordy = {
        "tokens": np.concatenate(tokens), "claimed": np.ones(offsets[-1], dtype=bool), "token_offsets": offsets
    }  # fmt: skip
    found = values(truth, Guess({**guess.arrays, **wordy}))
    assert found["token_accuracy"] == 1, "every place is right"
    assert found["rouge1"] == pytest.approx(np.mean(f1))
    assert found["rougeL"] == pytest.approx(np.mean(f1))
    assert found["rouge1"] < 0.2
    unsaid = {name: array for name, array in {**guess.arrays, **wordy}.items() if name != "claimed"}
    assert values(truth, Guess(unsaid))["rouge1"] == found["rouge1"], "without a word of it all are claimed"


def test_words_that_an_answer_does_not_claim_are_not_scored_for_it(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    found = values(truth, Guess({**guess.arrays, "claimed": np.zeros(len(guess.arrays["tokens"]), dtype=bool)}))
    assert (found["rouge1"], found["rougeL"], found["token_accuracy"]) == (0, 0, 1)
    with pytest.raises(ValueError, match=r"claimed says True or False of each of \d+ tokens; got \(3,\)"):
        truth.score(Guess({**guess.arrays, "claimed": np.zeros(3, dtype=bool)}), seed=0)


def test_the_number_of_a_figure_is_that_of_the_users_who_are_drawn_for_its_interval(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    found = {score.metric: score for score in truth.score(guess, seed=0)}
    assert {found[name].estimate.n for name in ("token_accuracy", "item_hit@1", "item_hit@5", "exact_history")} == {3}
    assert found["token_accuracy"].detail["tokens"] == sum((p.slots >= 0).sum() for p in truth.prompts.values())
    assert found["item_hit@1"].detail["slots"] == 8


def test_only_title_tokens_of_the_history_count(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3], 1: [2], 2: [9]})
    tokens = guess.arrays["tokens"].copy()
    slots = np.concatenate([prompt.slots for prompt in truth.prompts.values()])
    tokens[slots < 0] = -5  # the template and the answer all wrong
    assert values(truth, Guess({**guess.arrays, "tokens": tokens}))["token_accuracy"] == 1
    tokens[slots >= 0] = -5
    assert values(truth, Guess({**guess.arrays, "tokens": tokens}))["token_accuracy"] == 0


def test_the_baseline_is_what_popularity_alone_gives(truth: HistoryTruth) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    baseline = {score.metric: score.baseline for score in truth.score(guess, seed=0)}
    assert baseline["item_hit@1"] == pytest.approx(2 / 8)  # item 9 is the most popular
    assert baseline["item_hit@5"] >= 3 / 8
    assert 0 < baseline["token_accuracy"] < 1


def test_items_as_popular_as_each_other_are_no_baseline_by_their_place_in_the_catalogue(prompts: Prompts) -> None:
    """Every user had the first items of the catalogue, and all items are equally popular: to guess is all there is."""
    first = {row: prompts.build(np.array([row % 10])) for row in range(10)}
    titles = [prompts.titles[i] for i in range(48)]
    even = HistoryTruth({row: row for row in first}, first, np.arange(48), np.ones(48), titles)
    floors = {s.metric: s.baseline for s in even.score(guess_of(first, {row: [40] for row in first}), seed=0)}
    assert floors["item_hit@10"] < 0.6, "10 of 48 are expected"
    label = LabelTruth({row: row for row in first}, {row: row for row in first}, np.arange(48), np.ones(48))
    answer = Guess({"rows": np.arange(10), "labels": np.full((10, 10), 40)})
    assert {s.metric: s.baseline for s in label.score(answer, seed=0)}["label_hit@10"] < 0.6


def test_a_history_without_an_answer_counts_as_all_wrong(truth: HistoryTruth) -> None:
    whole = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    one = guess_of({0: truth.prompts[0]}, {0: [3, 1, 7]})
    for score, of_one in zip(truth.score(whole, seed=0), truth.score(one, seed=0), strict=True):
        if score.metric == "kendall_tau":  # it is of those with an order to tell
            assert of_one.estimate.n == 1
            continue
        assert of_one.estimate.n == score.estimate.n
        assert of_one.estimate.value < 1


def test_membership_is_compared_within_clients_and_beside_a_model_free_check() -> None:
    rows = range(80)
    generator = np.random.default_rng(0)
    member = {row: row % 2 for row in rows}
    client = {row: row // 40 for row in rows}
    # The clients' scores are far apart; within each of them members stand a little higher.
    scores = np.array([10.0 * client[row] + member[row] * 3 + generator.normal() for row in rows])
    truth = MembershipTruth(
        {row: row for row in rows}, client, member, {row: generator.normal(size=3).tolist() for row in rows}
    )
    guess = Guess({"rows": np.array(rows), "threshold": scores})
    (auc, *rates) = truth.score(guess, seed=0)
    assert auc.estimate.value > 0.95
    assert auc.detail["mode"] == "threshold"
    assert auc.baseline == 0.5
    low, high = auc.detail["model_free_ci"]
    assert low < auc.detail["model_free_auc"] < high
    assert [rate.metric for rate in rates] == ["tpr@0.1"]
    assert rates[0].baseline == 0.1
    assert rates[0].estimate.value > 0.8, "one threshold for both clients, on the scale of each"
    draws = truth.score(guess, seed=None)
    assert [score.estimate.value for score in draws] == [auc.estimate.value, rates[0].estimate.value]


def test_a_row_without_an_answer_counts_as_wrong() -> None:
    rows = range(80)
    generator = np.random.default_rng(0)
    member = {row: row % 2 for row in rows}
    features = {row: generator.normal(size=3).tolist() for row in rows}
    truth = MembershipTruth({row: row for row in rows}, dict.fromkeys(rows, 0), member, features)
    sure = np.arange(1, 80, 2)[:10]  # ten members and nobody else
    (auc, *_) = truth.score(Guess({"rows": sure, "threshold": np.ones(10)}), seed=0)
    assert auc.estimate.n == 80
    assert auc.estimate.value == pytest.approx(10 / 40 + 30 / 40 / 2)


def stepped(metric: str, by_user: dict[int, float], steps: dict[int, int]) -> dict[str, Any]:
    score = Score(metric, Estimate(0.5, 0.0, 1.0, len(by_user)), 0.0, by_user)
    return _by_step(score, {row: 100 + row for row in steps}, steps, seed=3)


def test_first_and_later_steps_each_have_the_interval_of_their_own_users() -> None:
    found = stepped("item_hit@1", {100: 1.0, 101: 0.5, 102: 0.0, 103: 0.2, 104: 0.4}, {0: 0, 1: 0, 2: 1, 3: 7, 4: 2})
    assert {name: (kind["mean"], kind["n"]) for name, kind in found.items()} == {
        "first_step": (0.75, 2), "later_steps": (pytest.approx(0.2), 3),
    }  # fmt: skip
    for kind, values in ((found["first_step"], [1.0, 0.5]), (found["later_steps"], [0.0, 0.2, 0.4])):
        estimate = mean_estimate(np.array(values), np.arange(len(values)), seed=3)
        assert kind["ci"] == pytest.approx([estimate.low, estimate.high])
        assert kind["ci"][0] <= kind["mean"] <= kind["ci"][1]


def test_a_step_with_one_user_has_an_interval_also_of_what_may_be_negative() -> None:
    found = stepped("kendall_tau", {100: -0.5, 101: 1.0, 102: 0.0}, {0: 0, 1: 1, 2: 3})
    assert found["first_step"]["mean"] == pytest.approx(-0.5)
    assert -1 <= found["first_step"]["ci"][0] < -0.9
    assert found["first_step"]["ci"][1] > 0.9, "one user says little"


@pytest.mark.parametrize("steps", [{0: 0, 1: 0}, {0: 2, 1: 5}, {0: -1, 1: -1}, {}])
def test_where_all_crossed_in_one_kind_of_step_nothing_is_set_apart(steps: dict[int, int]) -> None:
    assert stepped("item_hit@1", {100: 1.0, 101: 0.5}, steps) == {}


class Answering:
    """An attack that gives the answer it was made with."""

    name = "stub"
    secret = "membership"
    channels = frozenset({Channel.MODEL_OUTPUT})
    controls = 0

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        return Guess({"rows": np.array(self.rows), "threshold": np.zeros(len(self.rows))})


@pytest.mark.parametrize("rows", [[0, 0], [0, 7]])
def test_rows_named_twice_or_not_in_the_view_are_refused(tmp_path: Path, rows: list[int]) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        document = run_cell(CELL, Answering(rows), Nothing(), store, budget=9, seed=0)
        assert document["findings"][0]["status"] == "failed"
        assert "rows" in document["findings"][0]["detail"]["reason"]


class Stub:
    """An attack that does what it is told to."""

    name = "stub"
    secret = "membership"
    channels = frozenset({Channel.MODEL_OUTPUT})
    controls = 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        budget.check()
        raise self.error


class Nothing:
    """A cell's surroundings, of which the truth must not be asked for."""

    def view(self, cell: Cell) -> View:
        return View("outsider", cell.channel, None, None, "none", (Record(0, "a", 1, 0, torch.zeros(1)),))

    def knowledge(self, cell: Cell) -> Any:
        return [None]

    def truth(self, cell: Cell) -> Any:
        raise AssertionError("the truth was opened without a sealed guess")


CELL = Cell("stub", "{}", "outsider", "base", Channel.MODEL_OUTPUT, None, None, 3, "none")


@pytest.mark.parametrize(
    ("error", "budget", "status", "reason"),
    [
        (NotApplicable("the view is empty"), 9, "not_applicable", "the view is empty"),
        (ZeroDivisionError("by zero"), 9, "failed", "ZeroDivisionError: by zero"),
        (AssertionError("never reached"), 1e-12, "budget_exhausted", "more than"),
    ],
)
def test_an_attack_that_gives_no_answer_is_reported_with_its_reason_and_never_as_zero(
    tmp_path: Path, error: Exception, budget: float, status: str, reason: str
) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        document = run_cell(CELL, Stub(error), Nothing(), store, budget=budget, seed=0)
        (row,) = document["findings"]
        assert row["status"] == status
        assert row["value"] is None
        assert row["ci"] is None
        assert reason in row["detail"]["reason"]
        again = run_cell(CELL, Stub(RuntimeError("run again")), Nothing(), store, budget=9, seed=0)
        # What is settled stays; what failed is tried again when the run is continued.
        assert (again == document) == (status != "failed")


class Controlled:
    """An attack whose first answer is fine, and that then does what it is told to."""

    name, secret, channels, controls = "stub", "history", frozenset({Channel.FRONT_ACTIVATIONS}), 1

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        self.asked += 1
        if self.asked > 1:
            raise self.error
        return Guess({"rows": np.array([0])})


class Two(Nothing):
    def view(self, cell: Cell) -> View:
        records = tuple(Record(row, "a", 1, 0, torch.ones(1, 1)) for row in range(2))
        return View("server", cell.channel, 1, None, "none", records)


@pytest.mark.parametrize(
    ("error", "status"),
    [(NotApplicable("x"), "not_applicable"), (BudgetExhausted("x"), "budget_exhausted"), (OSError("x"), "failed")],
)
def test_where_only_the_control_gives_no_answer_the_reason_says_so(
    tmp_path: Path, error: Exception, status: str
) -> None:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        document = run_cell(CELL, Controlled(error), Two(), store, budget=9, seed=0)
        assert {row["status"] for row in document["findings"]} == {status}
        assert document["findings"][0]["detail"]["reason"].startswith("its control, on what crossed of other rows: ")


def test_the_view_handed_to_an_attack_holds_no_user_and_a_shuffled_one_keeps_no_row_in_place() -> None:
    records = tuple(Record(row, f"client-{row % 2}", 1, 0, torch.full((2, 3), float(row))) for row in range(9))
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records)
    shuffled = view.shuffled(np.random.default_rng(1))
    for record in shuffled.records:
        came_from = int(record.tensor[0, 0])
        assert came_from != record.row
        assert came_from % 2 == record.row % 2  # of the same client
    assert set(Record.__dataclass_fields__) == {"row", "client", "round", "step", "tensor", "batch", "also_reads"}


@pytest.mark.parametrize("clients", ["ab", "abc", "aab", "aabbc", "abcdef"])
def test_where_a_client_has_one_record_it_is_dealt_across_clients(clients: str) -> None:
    records = tuple(Record(row, name, 1, 0, torch.full((2, 3), float(row))) for row, name in enumerate(clients))
    shuffled = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records).shuffled(np.random.default_rng(1))
    came_from = [int(record.tensor[0, 0]) for record in shuffled.records]
    assert sorted(came_from) == list(range(len(clients)))
    assert all(row != other for row, other in enumerate(came_from))
    assert [record.client for record in shuffled.records] == list(clients)


def test_every_cut_with_a_trunk_is_planned_once_a_front(small_scenario: scenario.Scenario) -> None:
    cuts = small_scenario.model_copy(
        update={"audit": small_scenario.audit.model_copy(update={"cuts": ((1, 1), (1, 0), (2, 1))})}
    )
    plan = make_plan(cuts, 3)
    fronts = [cell.front for cell in plan.cells if cell.channel == Channel.FRONT_ACTIVATIONS]
    assert fronts == [1]
    closed = {(cell.front, cell.back) for cell, why in plan.impossible if "nothing crosses" in why}
    assert closed == {(2, 1)}
    assert any("sees none of the channels" in why for _, why in plan.impossible)


def test_trunk_hosts_do_not_know_the_fronts_that_only_the_aggregator_is_sent(small_scenario: scenario.Scenario) -> None:
    both = small_scenario.model_copy(
        update={"audit": small_scenario.audit.model_copy(update={"adversaries": ("server", "trunk_host")})}
    )
    known = {cell.adversary: cell.knowledge for cell in make_plan(both, 3).cells if cell.attack == "ridge"}
    assert known == {"server": "front", "trunk_host": "base"}


def test_an_attack_with_unknown_settings_is_refused(small_scenario: scenario.Scenario) -> None:
    audit = small_scenario.audit.model_copy(update={"attacks": ({"loss": {"k": 3}},)})
    with pytest.raises(InputError, match=r"audit\.attacks: loss: unknown setting 'k'"):
        make_plan(small_scenario.model_copy(update={"audit": audit}), 3)

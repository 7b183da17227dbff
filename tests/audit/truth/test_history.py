"""Scores of histories from hand-made guesses: perfect, wrong, too short."""

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Guess


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


def test_a_token_accuracy_of_few_users_says_how_often_its_interval_holds_the_truth(
    truth: HistoryTruth, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    few = {score.metric: score for score in truth.score(guess, seed=0)}
    assert few["token_accuracy"].detail["interval_covers"] == [0.88, 0.97]
    assert "interval_covers" not in few["item_hit@1"].detail
    monkeypatch.setattr("pplr_audit.audit.truth.history.FEW_FOR_A_RATIO", 3)
    enough = {score.metric: score for score in truth.score(guess, seed=0)}
    assert "interval_covers" not in enough["token_accuracy"].detail


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


def test_a_history_without_an_answer_counts_as_all_wrong(truth: HistoryTruth) -> None:
    whole = guess_of(dict(truth.prompts), {0: [3, 1, 7], 1: [2, 5], 2: [9, 9, 4]})
    one = guess_of({0: truth.prompts[0]}, {0: [3, 1, 7]})
    for score, of_one in zip(truth.score(whole, seed=0), truth.score(one, seed=0), strict=True):
        if score.metric == "kendall_tau":  # it is of those with an order to tell
            assert of_one.estimate.n == 1
            continue
        assert of_one.estimate.n == score.estimate.n
        assert of_one.estimate.value < 1

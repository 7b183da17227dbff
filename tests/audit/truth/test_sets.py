"""Truths about sets and owners: no place counts, sequences are matched one to one, owners are tested exactly."""

from dataclasses import replace
from itertools import permutations
from typing import Any, cast

import numpy as np
import pytest

from pplr_audit.audit.truth.owner import OwnerTruth
from pplr_audit.audit.truth.score import Score
from pplr_audit.audit.truth.sets import SHOWN, SetTruth, answered_by, held_by
from pplr_audit.audit.truth.user_sets import user_sets
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prompts import Prompt
from pplr_audit.scoring.rouge import rouge_l
from pplr_audit.threat_model.attack import Guess

TITLES = [np.array([10 + item, 20 + item]) for item in range(6)]
SEQUENCES = {0: [[10, 20, 11, 21], [12, 22, 10, 20]], 1: [[13, 23, 14, 24]]}
ITEMS = {0: frozenset({0, 1, 2}), 1: frozenset({3, 4})}
POPULARITY = np.array([9.0, 1.0, 1.0, 5.0, 1.0, 0.0])


def truth(classes: list[int] | None = None) -> SetTruth:
    held = {row: (ITEMS[row], SEQUENCES[row]) for row in ITEMS}
    named = np.arange(6) if classes is None else np.array(classes)
    return SetTruth({0: 100, 1: 101}, held, named, POPULARITY, TITLES)


def ranked(name: str, offsets: str, *lists: list[int]) -> dict[str, np.ndarray]:
    bounds = np.cumsum([0, *map(len, lists)])
    return {"rows": np.arange(len(lists)), name: np.array([x for each in lists for x in each]), offsets: bounds}


def sequences(*by_row: list[list[int]]) -> dict[str, np.ndarray]:
    flat = [(place, each) for place, own in enumerate(by_row) for each in own]
    return {
        "rows": np.arange(len(by_row)), "sequence_places": np.array([place for place, _ in flat]),
        "sequence_tokens": np.array([token for _, each in flat for token in each]),
        "sequence_offsets": np.cumsum([0, *(len(each) for _, each in flat)]),
    }  # fmt: skip


def scored(guess: dict[str, np.ndarray], of: SetTruth | None = None) -> dict[str, Score]:
    return {score.metric: score for score in (of or truth()).score(Guess(guess), seed=0)}


def test_items_are_counted_among_as_many_as_there_are_whatever_their_order() -> None:
    found = scored(ranked("ranked_items", "item_offsets", [2, 0, 5, 1], [5, 4, 3]))
    assert found["item_recall"].per_user == {100: pytest.approx(2 / 3), 101: pytest.approx(1 / 2)}
    assert found["item_recall@10"].estimate.value == 1
    popular = found["item_recall"].floors["popularity"]
    assert popular[101] == pytest.approx(1 / 2), "items 0 and 3 are the most popular"
    assert set(found) == {"item_recall", "item_recall@10", "item_recall@50"}


def test_items_of_one_title_are_one_and_a_row_without_an_answer_has_nothing() -> None:
    found = scored(ranked("ranked_items", "item_offsets", [5]), truth([0, 1, 2, 3, 4, 0]))
    assert found["item_recall"].per_user == {100: pytest.approx(1 / 3), 101: 0.0}


def test_tokens_are_scored_by_their_average_precision() -> None:
    tokens = {10, 20, 11, 21, 12, 22}
    order = [10, 99, 20, 98, 11]
    found = scored(ranked("ranked_tokens", "token_offsets", order, []))["token_ap"]
    assert found.per_user[100] == pytest.approx((1 + 2 / 3 + 3 / 5) / len(tokens))
    assert found.per_user[101] == 0


def test_each_guessed_sequence_counts_for_one_true_one_and_none_is_aligned_by_place() -> None:
    """The second is read whole but given first; both truths cannot take the same guess."""
    guesses = [[12, 22, 10, 20], [10, 20]]
    found = scored(sequences(guesses, []))
    ways = [[*zip(way, SEQUENCES[0], strict=True)] for way in permutations(guesses)]
    best = max(sum(rouge_l(guess, true) for guess, true in way) for way in ways)
    assert found["rougeL"].per_user == {100: pytest.approx(best / 2), 101: 0.0}
    assert found["exact_sequences"].per_user == {100: 0.5, 101: 0.0}
    once = scored(sequences([[12, 22, 10, 20]], []))
    assert once["rougeL"].per_user[100] == pytest.approx(0.5), "one guess counts for one sequence"
    assert once["exact_sequences"].per_user[100] == 0.5


def test_order_is_scored_apart_from_what_is_there() -> None:
    backwards = [each[::-1] for each in SEQUENCES[0]]
    found = scored(sequences(backwards, SEQUENCES[1]))
    assert found["kendall_tau"].per_user == {100: pytest.approx(-1), 101: pytest.approx(1)}
    assert found["exact_sequences"].per_user == {100: 0.0, 101: 1.0}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"rows": np.arange(2)}, "there is none of ranked_items"),
        (
            {"rows": np.arange(2), "ranked_items": np.arange(4), "item_offsets": np.array([0, 4])},
            "3 bounds from 0 to",
        ),
        ({**sequences([[1]], []), "sequence_places": np.array([2])}, "places among 2 rows"),
    ],
)
def test_an_answer_of_another_form_is_refused(arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        truth().score(Guess(arrays), seed=None)


def test_answers_are_dealt_to_other_clients_with_all_that_belongs_to_them() -> None:
    whole = {**ranked("ranked_items", "item_offsets", [0, 1, 2], [3, 4]), **sequences(SEQUENCES[0], SEQUENCES[1])}
    (dealt,) = truth().redealt(Guess(whole), 1, np.random.default_rng(0))
    found = scored(dict(dealt.arrays))
    assert found["item_recall"].estimate.value == found["exact_sequences"].estimate.value == 0


NAMES = ["a", "b", "c", "d"]


def owners(*named: str) -> Guess:
    scores = np.array([[float(name == mine) for name in NAMES] for mine in named])
    return Guess({"rows": np.arange(len(named)), "owners": scores})


def owner_truth(count: int = 4) -> OwnerTruth:
    return OwnerTruth({row: 100 + row for row in range(count)}, dict(enumerate(NAMES[:count])), NAMES)


def test_owners_are_tested_by_all_ways_of_dealing_them() -> None:
    (score,) = owner_truth().score(owners("a", "b", "d", "d"), seed=0)
    assert score.per_user == {100: 1.0, 101: 1.0, 102: 0.0, 103: 1.0}
    (chance,) = score.references
    hits = [sum(x == y for x, y in zip("abdd", way, strict=True)) for way in permutations(NAMES)]
    assert (chance.value, chance.p) == (0.25, pytest.approx(np.mean(np.array(hits) >= 3)))


def test_a_row_without_an_answer_names_nobody_and_scores_of_another_shape_are_refused() -> None:
    (score,) = owner_truth().score(owners("a"), seed=0)
    assert score.estimate.value == 0.25
    with pytest.raises(ValueError, match="one number a row and client"):
        owner_truth().score(Guess({"rows": np.arange(4), "owners": np.zeros((4, 3))}), seed=0)


def test_dealt_owners_are_all_wrong() -> None:
    for dealt in owner_truth().redealt(owners(*NAMES), 5, np.random.default_rng(0)):
        (score,) = owner_truth().score(dealt, seed=None)
        assert score.estimate.value == 0


def test_answers_of_prompts_are_their_targets_and_not_what_they_hold() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    prompts = [
        Prompt(np.array([30 + target, 31, 32]), nothing, np.array([0, 5]), answer, nothing, target)
        for target, answer in ((2, 3), (4, 1), (2, 3), (-1, 3))
    ]
    items, texts = answered_by(prompts, TITLES)
    assert items == {2, 4}
    assert texts == [[12, 22], [14, 24], [12, 22]]
    assert held_by(prompts)[0] == {0, 2, 4, 5}, "what is learned is the client's, too"


def shown(guess: Guess, of: SetTruth) -> list[list[tuple[str, str, bool]]]:
    titles = type("Titles", (), {"titles": [f"title {item}" for item in range(6)]})
    found = of.examples(guess, cast(Catalogue, titles), None)
    return [[(each["truth"], each["guess"], each["hit"]) for each in example.slots] for example in found]


def test_items_ranked_first_stand_beside_themselves_or_beside_one_that_is_missed() -> None:
    first, second = shown(Guess(ranked("ranked_items", "item_offsets", [5, 1, 1, 0, 2], [4])), truth())
    assert first == [
        ("title 2", "title 5", False), ("title 1", "title 1", True), ("title 0", "title 0", True),
    ]  # fmt: skip
    assert second == [("title 4", "title 4", True), ("title 3", "", False)]


def test_an_item_of_the_same_title_is_a_hit_and_takes_one_place() -> None:
    first, _ = shown(Guess(ranked("ranked_items", "item_offsets", [5, 0, 3], [])), truth([0, 1, 2, 3, 4, 0]))
    assert first[0] == ("title 0", "title 5", True)
    assert first[1] == ("title 1", "title 3", False)
    assert first[2] == ("title 2", "", False)


def test_of_a_long_list_the_first_are_shown_and_sequences_alone_have_nothing_to_show() -> None:
    many = frozenset(range(6))
    long = replace(truth(), held={row: (many, []) for row in (0, 1)}, title_class=np.arange(6))
    assert len(shown(Guess(ranked("ranked_items", "item_offsets", [0], [1])), long)[0]) == 6 < SHOWN
    assert shown(Guess(sequences([[10, 20]], [])), truth()) == []


def places(items: list[list[list[int]]], labels: list[list[int]] | None = None) -> Guess:
    """An answer about places: row by row, slot by slot, the best first."""
    arrays = {
        "rows": np.arange(len(items)), "items": np.array([slot for row in items for slot in row]),
        "slot_offsets": np.cumsum([0, *map(len, items)]),
    }  # fmt: skip
    return Guess(arrays | ({"labels": np.array(labels)} if labels else {}))


def user_truths() -> dict[str, Any]:
    sets = {(row, "items"): (ITEMS[row], SEQUENCES[row]) for row in ITEMS}
    sets |= {(row, "targets"): (frozenset({2 + row}), []) for row in ITEMS}
    return dict(user_sets({0: 100, 1: 101}, sets, np.arange(6), POPULARITY, TITLES))


def test_places_are_read_as_a_set_first_guesses_of_all_places_before_second_ones() -> None:
    """Row 0 holds items 0, 1 and 2: two are named first, and the third is the second guess of a place."""
    guess = places([[[0, 2], [1, 5]], [[3, 0], [0, 0]]])
    (whole, *_) = user_truths()["items"].score(guess, seed=None)
    assert (whole.metric, dict(whole.per_user)) == ("item_recall", {100: 1.0, 101: 0.5})
    (wrong_first, *_) = user_truths()["items"].score(places([[[5, 0], [4, 1]], [[3, 4], [-1, -1]]]), seed=None)
    assert dict(wrong_first.per_user) == {100: pytest.approx(1 / 3), 101: 1.0}


def test_the_next_item_counts_as_one_of_the_users_items_and_alone_as_a_target() -> None:
    truths, guess = user_truths(), places([[[0, 5]], [[3, 5]]], [[2, 4], [4, 5]])
    (items, *_), (targets, *_) = truths["items"].score(guess, seed=None), truths["targets"].score(guess, seed=None)
    assert dict(items.per_user) == {100: pytest.approx(2 / 3), 101: 1.0}
    assert dict(targets.per_user) == {100: 1.0, 101: 0.0}
    assert truths["items"].answered(guess)
    assert not truths["targets"].answered(places([[[0, 5]], [[3, 5]]]))


def test_a_set_read_of_places_equals_the_same_set_ranked() -> None:
    """The score is the one that an update's answer has."""
    (one, *_) = user_truths()["items"].score(places([[[0], [5]], [[3], [4]]]), seed=3)
    (other, *_) = truth().score(Guess(ranked("ranked_items", "item_offsets", [0, 5], [3, 4])), seed=3)
    assert (one.estimate, one.floors) == (other.estimate, other.floors)


def test_probabilities_are_compared_with_what_is_found_at_half_of_the_items() -> None:
    answer = ranked("ranked_items", "item_offsets", [0, 5, 1, 2, 3, 4], [3, 4, 5, 0, 1, 2])
    answer["item_chances"] = np.array([0.9, 0.8, 0.7, 0.4, 0.0, 0.0, 0.9, 0.5, 0.0, 0.0, 0.0, 0.0])
    told = scored(answer)["item_recall"].detail["chances"]
    assert told["recall_stated"] == 0.5
    assert told["precision_stated"] == pytest.approx((0.85 + 0.9) / 2), "half of 2.8 is in the first two, of 1.4 in one"
    assert told["precision_found"] == pytest.approx((1 / 2 + 1) / 2)
    assert told["recall_found"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert told["brier"] == pytest.approx(((0.01 + 0.64 + 0.09 + 0.36) / 6 + (0.01 + 0.25) / 6) / 2)
    assert "chances" not in scored(ranked("ranked_items", "item_offsets", [0], [3]))["item_recall"].detail

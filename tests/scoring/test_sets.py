"""Scores of sets against other people's formulas and against every way of matching."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pplr_audit.scoring.permutations import named_by_chance
from pplr_audit.scoring.rouge import rouge_n
from pplr_audit.scoring.sets import average_precision, matched, recall_at, similarity


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1))
def test_average_precision_is_that_of_scikit_learn(ranked: list[int], true: set[int]) -> None:
    scores = np.empty(12)
    scores[ranked] = np.arange(12, 0, -1)
    labels = np.isin(np.arange(12), [*true])
    assert average_precision(ranked, true) == pytest.approx(average_precision_score(labels, scores))


def test_members_that_are_not_ranked_count_nothing_and_repeats_count_once() -> None:
    assert average_precision([5, 5, -1, 7], {5, 7, 9}) == pytest.approx((1 + 1) / 3)
    assert average_precision([], {1}) == 0
    assert recall_at([5, 5, 7], {5, 7}, 2) == 1
    assert recall_at([1, 2], set(), 2) == 0


texts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4)


@given(texts, texts)
def test_words_and_pairs_in_common_are_those_of_rouge(guesses: list[list[int]], truths: list[list[int]]) -> None:
    found = similarity(guesses, truths)
    for row, true in enumerate(truths):
        for column, guess in enumerate(guesses):
            ends = [[-2, *text, -3] for text in (guess, true)]
            by_hand = (rouge_n(guess, true, 1) + rouge_n(*ends, 2)) / 2
            assert found[row, column] == pytest.approx(by_hand)


@given(texts, texts)
def test_no_other_matching_is_better_and_no_guess_is_given_twice(
    guesses: list[list[int]], truths: list[list[int]]
) -> None:
    alike = similarity(guesses, truths)
    given_ = matched(alike)
    used = [int(place) for place in given_ if place >= 0]
    assert len(set(used)) == len(used)
    places = [*range(len(guesses)), *[-1] * len(truths)]
    best = max(
        sum(alike[row, place] for row, place in enumerate(way) if place >= 0)
        for way in permutations(places, len(truths))
    )
    assert sum(alike[row, place] for row, place in enumerate(given_) if place >= 0) == pytest.approx(best)


def test_a_sequence_that_was_read_whole_is_given_to_itself() -> None:
    truths = [[1, 2, 3], [3, 2, 1], [2, 1, 3]]
    assert matched(similarity([truths[2], truths[0], truths[1]], truths)).tolist() == [1, 2, 0]
    assert matched(similarity([], truths)).tolist() == [-1, -1, -1]


@given(st.lists(st.integers(0, 4), min_size=5, max_size=5), st.integers(0, 5))
def test_names_by_chance_are_counted_over_all_deals(named: list[int], hits: int) -> None:
    """Row i was named for owner named[i]; owners are dealt in all 120 ways."""
    counts = np.bincount(named, minlength=5).tolist()
    deals = [*permutations(range(5))]
    right = sum(sum(a == b for a, b in zip(named, deal, strict=True)) >= hits for deal in deals)
    assert named_by_chance(counts, hits) == pytest.approx(right / len(deals))


def test_fewer_rows_than_owners_are_dealt_without_the_others() -> None:
    deals = [*permutations(range(4), 2)]
    right = sum(deal[0] == 1 or deal[1] == 2 for deal in deals) / len(deals)
    assert named_by_chance([0, 1, 1, 0], 1) == pytest.approx(right)

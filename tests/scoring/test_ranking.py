"""Recall and NDCG of full rankings, against plain loops and against packages that work them out on their own."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from pplr_audit.scoring.ranking import best_first, ndcg_at, places_of, recall_at


def ragged(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0] + [len(row) for row in rows])
    return offsets, np.array([item for row in rows for item in row], dtype=np.int64)


def measured(scores: np.ndarray, masked: list[list[int]], targets: list[list[int]], k: int) -> tuple[list[float], ...]:
    places = places_of(scores, *ragged(masked), *ragged(targets))
    return recall_at(places, k).tolist(), ndcg_at(places, k).tolist()


def test_recall_and_ndcg_of_a_case_worked_by_hand() -> None:
    scores = np.array([[1, 3, 0, 4, 2, 0.5], [3, 2, 4, -1, -2, 1], [0, 0.1, 0.2, 0.3, -5, 1]])
    targets = [[1, 0, 5], [5], [4]]  # ranked 3 1 4 0 5 2, then 2 0 1 5, and the last one of all
    recall, ndcg = measured(scores, [[], [], []], targets, 4)
    assert recall == [2 / 3, 1, 0]
    # Hits at ranks 2 and 4 of an ideal 1, 2, 3; a hit at rank 4 of an ideal 1.
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert ndcg == pytest.approx([(1 / np.log2(3) + 1 / np.log2(5)) / ideal, 1 / np.log2(5), 0])
    assert measured(scores, [[], [], []], targets, 3)[0] == [1 / 3, 0, 0]


@pytest.mark.parametrize("levels", [3, 10_000], ids=["many ties", "no tie"])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_ndcg_is_scikit_learns(k: int, levels: int) -> None:
    """It takes the mean over ties as well."""
    generator = np.random.default_rng(0)
    scores = generator.integers(levels, size=(40, 30)).astype(float)
    relevant = [generator.choice(30, generator.integers(1, 15), replace=False).tolist() for _ in range(40)]
    gains = np.zeros((40, 30))
    for user, items in enumerate(relevant):
        gains[user, items] = 1
    theirs = [ndcg_score(gains[[u]], scores[[u]], k=k) for u in range(40)]
    assert measured(scores, [[]] * 40, relevant, k)[1] == pytest.approx(theirs)


def test_recall_and_ndcg_are_those_of_trec_eval() -> None:
    """No ties: it breaks them by the document's name. What is masked is not in its run."""
    generator = np.random.default_rng(1)
    scores = np.stack([generator.permutation(60) for _ in range(50)]).astype(np.float32)
    shuffled = [generator.permutation(60).tolist() for _ in range(50)]
    masked = [row[: generator.integers(0, 30)] for row in shuffled]
    targets = [row[-generator.integers(1, 12) :] for row in shuffled]
    asked = pytrec_eval.RelevanceEvaluator(
        {str(u): {str(item): 1 for item in row} for u, row in enumerate(targets)}, {"recall.5,20", "ndcg_cut.5,20"}
    )
    theirs = asked.evaluate(
        {str(u): {str(item): float(scores[u, item]) for item in range(60) if item not in masked[u]} for u in range(50)}
    )
    for k in (5, 20):
        recall, ndcg = measured(scores, masked, targets, k)
        assert recall == pytest.approx([theirs[str(u)][f"recall_{k}"] for u in range(50)])
        assert ndcg == pytest.approx([theirs[str(u)][f"ndcg_cut_{k}"] for u in range(50)])


def test_a_target_listed_twice_counts_once() -> None:
    scores = np.arange(8.0)[None]
    assert measured(scores, [[]], [[7, 7, 0]], 2)[0] == [0.5]
    assert measured(scores, [[]], [[7, 7]], 2)[1] == [1.0]


def plain(row: np.ndarray, masked: list[int], targets: list[int], k: int) -> tuple[float, float]:
    """The mean over all orders of the items that keep to the scores."""
    left = [item for item in range(len(row)) if item not in masked]
    orders = [order for order in permutations(left) if all(row[a] >= row[b] for a, b in pairwise(order))]
    wanted = set(targets)
    ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(wanted))))
    hits = [[place for place, item in enumerate(order[:k]) if item in wanted] for order in orders]
    recall = np.mean([len(each) / len(wanted) for each in hits])
    return float(recall), float(np.mean([sum(1 / np.log2(place + 2) for place in each) / ideal for each in hits]))


@settings(max_examples=150)
@given(data=st.data(), users=st.integers(0, 3), items=st.integers(1, 6), k=st.integers(1, 8),
       dtype=st.sampled_from([np.float32, np.float64]))  # fmt: skip
def test_ties_count_as_the_mean_over_all_their_orders(
    data: st.DataObject, users: int, items: int, k: int, dtype: type[np.floating]
) -> None:
    level = st.sampled_from([-np.inf, -0.0, 0.0, 0.5, np.inf])
    scores = np.array([data.draw(st.lists(level, min_size=items, max_size=items)) for _ in range(users)], dtype=dtype)
    scores = scores.reshape(users, items)
    some = st.lists(st.integers(0, items - 1), max_size=4)  # one item may be listed twice
    targets = [data.draw(some.filter(bool)) for _ in range(users)]
    masked = [[item for item in data.draw(some) if item not in own] for own in targets]
    before = scores.copy()
    recall, ndcg = measured(scores, masked, targets, k)
    expected = [plain(*each, k) for each in zip(scores, masked, targets, strict=True)]
    assert recall == pytest.approx([each[0] for each in expected])
    assert ndcg == pytest.approx([each[1] for each in expected])
    assert np.array_equal(scores, before)


def test_who_knows_nothing_is_right_by_chance_wherever_the_popular_items_stand() -> None:
    """All items alike, and the targets are those with the lowest numbers, as in a catalogue by first appearance."""
    recall, ndcg = measured(np.zeros((4, 200)), [[150]] * 4, [[0], [1], [2], [199]], 10)
    assert recall == pytest.approx([10 / 199] * 4)
    assert ndcg == pytest.approx([sum(1 / np.log2(place + 2) for place in range(10)) / 199] * 4)


def test_the_best_come_first_and_equals_in_the_order_given() -> None:
    generator = np.random.default_rng(2)
    scores, order = generator.integers(5, size=40).astype(float), generator.permutation(40)
    where = np.argsort(order)
    assert best_first(scores, order).tolist() == sorted(range(40), key=lambda item: (-scores[item], where[item]))


def test_what_cannot_be_ranked_is_refused() -> None:
    scores, nothing = np.array([[0.0, 1.0]]), ragged([[]])
    with pytest.raises(ValueError, match="no target"):
        places_of(scores, *nothing, *nothing)
    with pytest.raises(ValueError, match="1 of 2 targets are masked"):
        places_of(scores, *ragged([[1]]), *ragged([[0, 1]]))
    with pytest.raises(ValueError, match=r"target is an item index in 0\.\.1; got -1\.\.-1"):
        places_of(scores, *nothing, *ragged([[-1]]))
    with pytest.raises(ValueError, match="masked item is an item index"):
        places_of(scores, *ragged([[2]]), *ragged([[0]]))
    with pytest.raises(ValueError, match="offsets"):
        places_of(scores, *nothing, np.array([0, 2]), np.array([1]))
    with pytest.raises(ValueError, match="NaN"):
        places_of(np.array([[np.nan, 1.0]]), *nothing, *ragged([[1]]))
    places = places_of(scores, *nothing, *ragged([[1]]))
    for metric in (recall_at, ndcg_at):
        with pytest.raises(ValueError, match="at least 1"):
            metric(places, 0)

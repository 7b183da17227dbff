import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from pplr_audit.scoring.ranking import ndcg_at, recall_at, top_k


def ragged(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0] + [len(row) for row in rows])
    return offsets, np.array([item for row in rows for item in row], dtype=np.int64)


def test_recall_and_ndcg_of_a_case_worked_by_hand() -> None:
    ranked = np.array([[3, 1, 4, 0], [2, 0, 1, 5], [9, 8, 7, 6]])
    offsets, targets = ragged([[1, 0, 8], [5], [4]])
    assert recall_at(ranked, offsets, targets, 4).tolist() == [2 / 3, 1, 0]
    assert recall_at(ranked, offsets, targets, 3).tolist() == [1 / 3, 0, 0]
    # Hits at ranks 2 and 4 of an ideal 1, 2, 3; a hit at rank 4 of an ideal 1.
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    expected = [(1 / np.log2(3) + 1 / np.log2(5)) / ideal, 1 / np.log2(5), 0]
    assert ndcg_at(ranked, offsets, targets, 4) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_ndcg_is_scikit_learns(k: int) -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((40, 30))
    relevant = [generator.choice(30, generator.integers(1, 15), replace=False).tolist() for _ in range(40)]
    gains = np.zeros((40, 30))
    for user, items in enumerate(relevant):
        gains[user, items] = 1
    ours = ndcg_at(np.argsort(-scores, axis=1), *ragged(relevant), k)
    theirs = [ndcg_score(gains[[u]], scores[[u]], k=k) for u in range(40)]
    assert ours == pytest.approx(theirs)


def test_a_target_listed_twice_counts_once() -> None:
    ranked = np.array([[4, 2]])
    assert recall_at(ranked, *ragged([[4, 4, 7]]), 2).tolist() == [0.5]
    assert ndcg_at(ranked, *ragged([[4, 4]]), 2).tolist() == [1.0]


def test_empty_places_are_no_hits() -> None:
    # Nor are they the last item of the user before.
    assert recall_at(np.array([[3, 5], [1, -1]]), *ragged([[5], [0]]), 2).tolist() == [1.0, 0.0]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), users=st.integers(1, 4), items=st.integers(1, 9), k=st.integers(1, 10))
def test_the_best_k_are_those_of_a_plain_sort(data: st.DataObject, users: int, items: int, k: int) -> None:
    level = st.sampled_from([-np.inf, 0.0, 0.5, 1.0])
    scores = np.array(
        data.draw(st.lists(st.lists(level, min_size=items, max_size=items), min_size=users, max_size=users))
    )
    masked = [sorted(data.draw(st.sets(st.integers(0, items - 1)))) for _ in range(users)]
    expected = []
    for user in range(users):
        left = sorted((i for i in range(items) if i not in masked[user]), key=lambda i: (-scores[user, i], i))
        expected.append((left + [-1] * k)[:k])
    assert top_k(scores, *ragged(masked), k).tolist() == expected


def test_what_cannot_be_ranked_is_refused() -> None:
    ranked = np.array([[0, 1]])
    with pytest.raises(ValueError, match="no target"):
        recall_at(ranked, *ragged([[]]), 1)
    with pytest.raises(ValueError, match="depth"):
        ndcg_at(ranked, *ragged([[0]]), 3)
    with pytest.raises(ValueError, match="twice"):
        recall_at(np.array([[1, 1]]), *ragged([[0]]), 2)
    with pytest.raises(ValueError, match="negative"):
        recall_at(ranked, *ragged([[-1]]), 2)
    with pytest.raises(ValueError, match="offsets"):
        recall_at(ranked, np.array([0, 2]), np.array([1]), 1)
    with pytest.raises(ValueError, match="NaN"):
        top_k(np.array([[np.nan]]), *ragged([[]]), 1)
    with pytest.raises(ValueError, match="at least 1"):
        top_k(np.array([[1.0]]), *ragged([[]]), 0)

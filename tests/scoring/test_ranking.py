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


def plain_top_k(scores: np.ndarray, masked: list[list[int]], k: int) -> list[list[int]]:
    """Every user's items by a plain sort."""
    ranked = []
    for row, gone in zip(scores, masked, strict=True):
        left = sorted((item for item in range(len(row)) if item not in gone), key=lambda item: (-row[item], item))
        ranked.append((left + [-1] * k)[:k])
    return ranked


@settings(deadline=None, max_examples=200)
@given(
    data=st.data(), users=st.integers(0, 4), items=st.integers(0, 9), k=st.integers(1, 10),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_the_best_k_are_those_of_a_plain_sort(
    data: st.DataObject, users: int, items: int, k: int, dtype: type[np.floating]
) -> None:
    level = st.sampled_from([-np.inf, -0.0, 0.0, 0.5, 1.0, np.inf])
    row = st.lists(level, min_size=items, max_size=items)
    scores = np.array([data.draw(row) for _ in range(users)], dtype=dtype).reshape(users, items)
    some = st.lists(st.integers(0, items - 1)) if items else st.just([])  # one item may be masked twice
    masked = [data.draw(some) for _ in range(users)]
    before = scores.copy()
    assert top_k(scores, *ragged(masked), k).tolist() == plain_top_k(scores, masked, k)
    assert np.array_equal(scores, before)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 400), k=st.integers(1, 40))
def test_many_ties_in_a_long_catalogue_are_ranked_as_by_a_plain_sort(seed: int, levels: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(levels, size=(5, 300)).astype(np.float32)
    masked = [generator.choice(300, generator.integers(0, 301), replace=False).tolist() for _ in range(5)]
    assert top_k(scores, *ragged(masked), k).tolist() == plain_top_k(scores, masked, k)


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

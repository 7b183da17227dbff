import numpy as np
import pytest

from pplr_audit.scoring.reconstruction import exact, item_hits, token_accuracy


def test_only_tokens_under_the_mask_count() -> None:
    guess = np.array([[1, 2, 3], [4, 5, 6]])
    truth = np.array([[1, 0, 3], [0, 5, 6]])
    mask = np.array([[True, True, False], [False, False, False]])
    hits, counts = token_accuracy(guess, truth, mask)
    assert hits.tolist() == [1, 0]
    assert counts.tolist() == [2, 0]


def plain_item_hit(ranked: list[int], truth: int, k: int, same: list[int]) -> bool:
    answers: list[int] = []
    for item in ranked:
        if item >= 0 and same[item] not in answers:
            answers.append(same[item])
    return same[truth] in answers[:k]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_item_hits_are_those_of_a_plain_loop(k: int) -> None:
    generator = np.random.default_rng(0)
    same = generator.integers(0, 7, 12)
    ranked = np.stack([generator.permutation(12)[:6] for _ in range(200)])
    ranked[generator.random(ranked.shape) < 0.1] = -1
    truth = generator.integers(0, 12, 200)
    with_titles = [plain_item_hit(r.tolist(), int(t), k, same.tolist()) for r, t in zip(ranked, truth, strict=True)]
    without = [int(t) in r[:k].tolist() for r, t in zip(ranked, truth, strict=True)]
    assert item_hits(ranked, truth, k, same=same).tolist() == with_titles
    assert item_hits(ranked, truth, k).tolist() == without
    assert 0 < sum(with_titles) < 200


def test_items_of_one_title_take_one_place_and_answer_for_each_other() -> None:
    same = np.array([0, 0, 1, 2])
    ranked = np.array([[0, 1, 2, 3]])
    assert item_hits(ranked, np.array([1]), 1, same=same).tolist() == [True]
    assert item_hits(ranked, np.array([2]), 2, same=same).tolist() == [True]
    assert item_hits(ranked, np.array([3]), 2, same=same).tolist() == [False]


def test_a_missing_answer_is_wrong_even_for_the_last_item() -> None:
    # -1 would index the last item's title if it were taken for an item.
    ranked = np.array([[-1, -1]])
    assert item_hits(ranked, np.array([1]), 2, same=np.array([0, 1])).tolist() == [False]


def test_a_history_is_exact_only_with_every_slot_right() -> None:
    hit = np.array([True, False, True, True, True])
    assert exact(hit, np.array([1, 1, 0, 2, 0]), 3).tolist() == [True, False, True]


def test_what_cannot_be_scored_is_refused() -> None:
    ranked = np.array([[0, 1]])
    with pytest.raises(ValueError, match="depth"):
        item_hits(ranked, np.array([0]), 3)
    with pytest.raises(ValueError, match="negative"):
        item_hits(ranked, np.array([-1]), 1)
    with pytest.raises(ValueError, match="classes"):
        item_hits(ranked, np.array([0]), 1, same=np.array([0, -1]))
    with pytest.raises(ValueError, match="no slot"):
        exact(np.array([True]), np.array([0]), 2)
    with pytest.raises(ValueError, match="must lie in"):
        exact(np.array([True]), np.array([2]), 2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    # A TypeError where jaxtyping checks the annotations first.
    ranked = np.array([[0, 1]])
    with pytest.raises((ValueError, TypeError)):
        token_accuracy(ranked, ranked[:, :1], ranked > 0)
    with pytest.raises((ValueError, TypeError)):
        item_hits(ranked, np.array([0, 1]), 1)
    with pytest.raises((ValueError, TypeError)):
        exact(np.array([True]), np.array([0, 1]), 2)

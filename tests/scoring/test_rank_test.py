"""The exact test of an AUC against one half: enumeration, scipy, ties, large clients."""

import tracemalloc
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from pplr_audit.scoring import rank_test
from pplr_audit.scoring.membership import within_groups_auc
from pplr_audit.scoring.rank_test import auc_p


def enumerated(scores: np.ndarray, labels: np.ndarray, clients: np.ndarray) -> float:
    """The share of all choices of as many members in each client that reach the AUC, counted one by one."""
    inside = [np.flatnonzero(clients == client) for client in np.unique(clients)]
    choices = [combinations(rows, int(labels[rows].sum())) for rows in inside]
    reached, counted, own = 0, 0, within_groups_auc(scores, labels, clients)
    for chosen in product(*choices):
        dealt = np.zeros(len(scores), dtype=int)
        dealt[np.concatenate(chosen).astype(int)] = 1
        reached += within_groups_auc(scores, dealt, clients) >= own - 1e-12
        counted += 1
    return reached / counted


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_it_counts_what_a_full_enumeration_counts(digits: int) -> None:
    generator = np.random.default_rng(digits)
    for _ in range(5):
        clients = np.repeat([0, 1, 2], [5, 4, 3])
        labels = np.concatenate(
            [generator.permutation([1, 1, 0, 0, 0]), generator.permutation([1, 0, 0, 1]), [0, 0, 0]]
        )
        scores = np.round(generator.normal(size=12) + labels, digits)
        assert auc_p(scores, labels, clients) == pytest.approx(enumerated(scores, labels, clients), abs=1e-12)


def test_without_ties_it_is_scipys_exact_mann_whitney_test() -> None:
    generator = np.random.default_rng(0)
    for members, others in ((3, 4), (10, 25), (40, 40)):
        labels = np.repeat([1, 0], [members, others])
        scores = generator.normal(size=members + others) + 0.5 * labels
        theirs = mannwhitneyu(scores[labels == 1], scores[labels == 0], alternative="greater", method="exact")
        assert auc_p(scores, labels, np.zeros(len(labels), dtype=int)) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_scores_that_are_all_equal_are_no_evidence_and_clients_without_a_pair_do_not_count() -> None:
    labels, clients = np.repeat([0, 1], 20), np.tile([0, 1], 20)
    assert auc_p(np.full(40, 3.0), labels, clients) == pytest.approx(1.0)
    scores = np.arange(40.0)
    alone = auc_p(np.append(scores, [99.0, -99.0]), np.append(labels, [0, 1]), np.append(clients, [2, 3]))
    assert alone == auc_p(scores, labels, clients)


@pytest.fixture
def fresh():
    """Nothing kept of a test that counts in other steps."""
    rank_test._tails.cache_clear(), rank_test._won.cache_clear()
    yield
    rank_test._tails.cache_clear(), rank_test._won.cache_clear()


@pytest.mark.parametrize("finest", [7, 20, 60])
def test_counting_in_steps_never_makes_p_too_small(fresh: None, monkeypatch: pytest.MonkeyPatch, finest: int) -> None:
    monkeypatch.setattr(rank_test, "FINEST", finest)
    generator = np.random.default_rng(finest)
    clients, coarser = np.repeat([0, 1], [7, 5]), 0
    for digits in (0, 1, 8) * 5:
        labels = np.concatenate([generator.permutation([1, 1, 1, 0, 0, 0, 0]), generator.permutation([1, 0, 0, 1, 0])])
        scores = np.round(generator.normal(size=12) + labels, digits)
        exact, counted = enumerated(scores, labels, clients), auc_p(scores, labels, clients)
        assert counted >= exact - 1e-12
        coarser += counted > exact + 1e-12
    assert coarser if finest < 36 else not coarser


@pytest.mark.parametrize("tied", [0, 5990])
def test_thousands_of_users_take_little_memory(fresh: None, tied: int) -> None:
    generator = np.random.default_rng(2)
    labels, clients = np.repeat([0, 1], 3000), np.zeros(6000, dtype=int)
    scores = generator.normal(size=6000) + 0.05 * labels
    scores[: tied // 2] = scores[6000 - tied // 2 :] = 0.0
    theirs = mannwhitneyu(scores[labels == 1], scores[labels == 0], alternative="greater", method="asymptotic")
    tracemalloc.start()
    p = auc_p(scores, labels, clients)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert p == pytest.approx(theirs.pvalue, rel=0.01 if not tied else 0.5)
    assert most < 100e6


def test_a_client_too_large_for_counting_is_judged_by_the_normal_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    labels, clients = np.repeat([0, 1], 60), np.tile([0, 1], 60)
    for digits in (1, 8):
        scores = np.round(generator.normal(size=120) + 0.35 * labels, digits)
        exact = auc_p(scores, labels, clients)
        rank_test._tails.cache_clear(), rank_test._won.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(rank_test, "WORK", 0)
            curve = auc_p(scores, labels, clients)
        rank_test._tails.cache_clear(), rank_test._won.cache_clear()
        assert curve != exact
        assert curve == pytest.approx(exact, rel=0.05)

"""One threshold over personal models: what offsets between them hide, and what nothing must not show."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from pplr_audit.scoring.membership import tpr_at
from pplr_audit.scoring.standardized import standardized
from pplr_audit.scoring.verdicts import exact_tpr_p


def clients_of(sizes: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and clients, from the members and non-members of each."""
    labels = np.concatenate([np.repeat([1, 0], size) for size in sizes])
    return labels, np.repeat(np.arange(len(sizes)), [sum(size) for size in sizes])


def test_offsets_between_clients_no_longer_hide_a_rate() -> None:
    labels, clients = clients_of([(40, 40)] * 5)
    shift = norm.ppf(0.6) - norm.ppf(0.1)  # within a client .60 of the members stand beyond a tenth of the others
    generator = np.random.default_rng(0)
    raw, aligned = [], []
    for _ in range(60):
        scores = generator.normal(size=400) + shift * labels + 3 * generator.normal(size=5)[clients]
        raw.append(tpr_at(scores, labels, 0.1))
        aligned.append(tpr_at(standardized(scores, labels, clients), labels, 0.1))
    assert np.mean(raw) < 0.33
    assert np.mean(aligned) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("law", ["normal", "exponential", "lognormal", "t"])
@pytest.mark.parametrize("sizes", [[(40, 40)] * 5, [(10, 10)] * 20, [(5, 5)] * 40, [(100, 100), (40, 20), (9, 5)]])
def test_with_nothing_to_find_members_pass_the_threshold_as_non_members_do(
    law: str, sizes: list[tuple[int, int]]
) -> None:
    labels, clients = clients_of(sizes)
    generator = np.random.default_rng(0)
    scale, offset = np.exp(generator.normal(size=len(sizes))), 5 * generator.normal(size=len(sizes))
    draw = {"t": lambda size: generator.standard_t(3, size)}.get(law) or getattr(generator, law)
    others = int((labels == 0).sum())
    for fpr in (0.1, 0.03):
        rates = []
        for _ in range(120):
            scores = draw(size=len(labels)) * scale[clients] + offset[clients]
            rates.append(tpr_at(standardized(scores, labels, clients), labels, fpr))
        # Also without clients the best threshold lets (k + 1) / (n + 1) of the members pass.
        expected = (int(others * fpr + 1e-9) + 1) / (others + 1)
        assert np.mean(rates) <= expected + 4 * np.std(rates) / 120**0.5
        assert np.mean(rates) >= 0.6 * expected, "nor is it out of reach"


@pytest.mark.parametrize("kind", ["says yes to one in twelve", "probabilities over many decades"])
@pytest.mark.parametrize("sizes", [[(40, 40)] * 5, [(5, 60)] * 4, [(10, 10)] * 20])
def test_scores_that_are_mostly_alike_tell_nothing_where_there_is_nothing(
    kind: str, sizes: list[tuple[int, int]]
) -> None:
    """Most users of a client stand closely together below its mean; none of its members may pass the others there."""
    labels, clients = clients_of(sizes)
    generator = np.random.default_rng(0)
    members, others = int(labels.sum()), int((labels == 0).sum())
    rates, found = [], 0
    for _ in range(200):
        drawn = generator.normal(size=len(labels))
        scores = np.exp(8 * drawn) if kind.startswith("prob") else (drawn > 1.4).astype(float)
        rates.append(tpr_at(standardized(scores, labels, clients), labels, 0.1))
        found += exact_tpr_p(round(rates[-1] * members), members, others, 0.1) <= 0.025
    assert np.mean(rates) <= 0.115
    assert found <= binom.ppf(0.999, 200, 0.025)


def test_equal_scores_of_a_client_are_never_ordered_in_favor_of_its_members() -> None:
    labels, clients = clients_of([(2, 6), (2, 6)])
    scores = np.array([0, 0, 1, 0, 0, 0, 0, 0, 5, 9, 5, 9, 5, 7, 7, 8.0])
    z = standardized(scores, labels, clients)
    for client in (0, 1):
        for value in np.unique(scores):
            level = (clients == client) & (scores == value)
            member, other = z[level & (labels == 1)], z[level & (labels == 0)]
            assert not len(member) or not len(other) or member.max() <= other.min()


def test_a_non_member_is_no_part_of_its_own_standard() -> None:
    labels, clients = clients_of([(1, 5), (1, 5)])
    scores = np.array([3.0, 0, 1, 2, 3, 4, 30.0, 0, 10, 20, 30, 40])
    z = standardized(scores, labels, clients)
    others = np.array([0.0, 1, 2, 3])
    assert z[5] == pytest.approx((4 - 1.5) / (others.std(ddof=1) * np.sqrt(1.25)))
    every = np.arange(5.0)
    assert z[0] == pytest.approx((3 - 2) / (every.std(ddof=1) * np.sqrt(1.2)))
    assert z[6:] == pytest.approx(z[:6]), "the scale of a client's model does not matter"


def test_equal_scores_stay_equal_and_what_stands_out_of_them_is_beyond_all() -> None:
    labels, clients = clients_of([(2, 6), (2, 6)])
    scores = np.full(16, 0.1)
    assert (standardized(scores, labels, clients) == 0).all()
    scores[[0, 1]] = 0.3, 0.05
    z = standardized(scores, labels, clients)
    assert z[:2].tolist() == [np.inf, -np.inf]
    assert (z[2:] == 0).all()
    scores[2] = 0.3  # a non-member: beside the others it stands out, too
    assert standardized(scores, labels, clients)[2] == np.inf


def test_infinite_scores_are_no_part_of_a_standard() -> None:
    labels, clients = clients_of([(3, 6), (3, 6)])
    scores = np.random.default_rng(0).normal(size=18)
    plain = standardized(scores, labels, clients)
    labels, clients, scores = (np.append(a, b) for a, b in ((labels, 0), (clients, 0), (scores, -np.inf)))
    with_one = standardized(scores, labels, clients)
    assert with_one[:-1] == pytest.approx(plain)
    assert with_one[-1] == -np.inf


def test_a_client_of_few_non_members_has_no_standard_and_one_client_needs_none() -> None:
    labels, clients = clients_of([(4, 4), (4, 5)])
    scores = np.random.default_rng(0).normal(size=17)
    z = standardized(scores, labels, clients)
    assert np.isnan(z[:8]).all()
    assert np.isfinite(z[8:]).all()
    assert standardized(scores, labels, np.zeros(17, dtype=int)).tolist() == scores.tolist()

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binom, binomtest, bootstrap

from pplr_audit.scoring.intervals import (
    COVERED_BY_FEW,
    FEW_FOR_A_RATIO,
    Estimate,
    clopper_pearson,
    cluster_weights,
    mean_estimate,
    paired_difference,
    proportion_interval,
    ratio_estimate,
)


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).normal(3, 2, 300)
    ours = mean_estimate(values, np.arange(300), seed=1, draws=4000)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_many_distinct_values_and_few_give_the_same_bootstrap() -> None:
    few = np.random.default_rng(0).integers(0, 5, 400) * 2.0
    many = few + np.arange(400) * 1e-9
    one, other = (mean_estimate(v, np.arange(400), seed=0, draws=4000) for v in (few, many))
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.02)


def test_repeating_a_users_observation_adds_nothing_to_what_is_known() -> None:
    values = np.random.default_rng(0).random(60)
    once = mean_estimate(values, np.arange(60), seed=0)
    thrice = mean_estimate(np.repeat(values, 3), np.repeat(np.arange(60), 3), seed=0)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (once.n, thrice.n) == (60, 180)


def test_a_ratio_pools_observations_and_leaves_rows_without_any_out() -> None:
    hits, tokens = np.array([1, 8, 0]), np.array([2, 8, 0])
    estimate = ratio_estimate(hits, tokens, np.array([4, 9, 7]), seed=0)
    assert (estimate.value, estimate.n) == (0.9, 10)
    flat = mean_estimate(np.array([1.0, 0.0] + [1.0] * 8), np.array([4] * 2 + [9] * 8), seed=0)
    assert estimate == flat


@pytest.mark.parametrize("users", [1, 7, 50])
def test_unanimous_users_get_the_exact_binomial_interval(users: int) -> None:
    for value in (0.0, 1.0):
        estimate = mean_estimate(np.full(3 * users, value), np.repeat(np.arange(users), 3), seed=0)
        exact = binomtest(int(value) * users, users).proportion_ci(method="exact")
        assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high))


def test_users_who_agree_on_a_half_still_leave_room() -> None:
    estimate = mean_estimate(np.full(10, 0.5), np.arange(10), seed=0)
    share = 0.025**0.1
    assert (estimate.low, estimate.high) == pytest.approx((share / 2, 1 - share / 2))


@pytest.mark.parametrize(("hits", "trials"), [(0, 12), (5, 12), (12, 12)])
def test_clopper_pearson_is_scipys(hits: int, trials: int) -> None:
    exact = binomtest(hits, trials).proportion_ci(confidence_level=0.9, method="exact")
    assert clopper_pearson(hits, trials, 0.9) == pytest.approx((exact.low, exact.high))


def test_binomial_variance_makes_every_cluster_count_as_one_trial() -> None:
    # With thousands of clusters t is z, and p (1 - p) / n is the variance of n trials.
    low, high = proportion_interval(0.3, 0.3 * 0.7 / 50_000, 50_000)
    assert (low, high) == pytest.approx(clopper_pearson(15_000, 50_000), abs=1e-6)


def test_three_users_of_ten_are_widened_by_students_t() -> None:
    # Variance p (1 - p) / (G - 1), so the effective sample is G - 1 = 9 shrunk by (z / t)² = (1.95996 / 2.26216)².
    estimate = mean_estimate((np.arange(10) < 3).astype(float), np.arange(10), seed=0)
    effective = 9 * (1.959964 / 2.262157) ** 2
    assert estimate.high == pytest.approx(clopper_pearson(0.3 * effective, effective)[1], abs=1e-6)
    # Below, the bootstrap reaches further: no hit at all comes up in .7 ** 10 = 2.8 % of the draws.
    assert estimate.low == 0


@pytest.mark.parametrize(("users", "rate"), [(5, 0.5), (20, 0.95), (50, 0.02), (200, 0.9)])
def test_the_interval_of_a_hit_rate_covers_it(users: int, rate: float) -> None:
    # The bootstrap alone covers .92, .64, .64 and .95 of these.
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        estimate = mean_estimate((generator.random(users) < rate).astype(float), np.arange(users), seed=seed, draws=200)
        covered += estimate.low <= rate <= estimate.high
    assert covered / 200 >= 0.94


def test_the_interval_of_a_token_accuracy_covers_it_without_being_idle() -> None:
    generator = np.random.default_rng(1)
    covered, widths = 0, []
    for seed in range(200):
        hits = generator.binomial(30, generator.beta(9, 1, 40))
        estimate = ratio_estimate(hits, np.full(40, 30), np.arange(40), seed=seed, draws=200)
        covered += estimate.low <= 0.9 <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert 0.91 <= covered / 200 <= 0.99
    # The standard deviation of one user's share of hits is about .104.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.104 / 40**0.5, rel=0.2)


def _worlds_covered(users: int, falling: bool) -> int:
    """In how many of 300 worlds the interval holds the accuracy; histories differ in length, as titles do."""
    generator = np.random.default_rng(1)

    def world(size: int) -> tuple[np.ndarray, np.ndarray]:
        counts = np.ceil(generator.lognormal(3.5, 0.5, size)).astype(np.int64)
        rate = 1 / (1 + counts / 120) if falling else generator.beta(9, 0.5, size)
        return generator.binomial(counts, rate), counts

    hits, counts = world(400_000)
    truth, covered = hits.sum() / counts.sum(), 0
    for seed in range(300):
        estimate = ratio_estimate(*world(users), np.arange(users), seed=seed, draws=200)
        covered += estimate.low <= truth <= estimate.high
    return covered


@pytest.mark.parametrize("users", [10, 20, 50])
@pytest.mark.parametrize("falling", [False, True])
def test_the_interval_of_a_ratio_over_few_users_covers_as_often_as_is_said(users: int, falling: bool) -> None:
    assert users < FEW_FOR_A_RATIO
    low, high = (binom.ppf(tail, 300, share) for tail, share in zip((0.0005, 0.9995), COVERED_BY_FEW, strict=True))
    assert low <= _worlds_covered(users, falling) <= high


@pytest.mark.parametrize("falling", [False, True])
def test_the_interval_of_a_ratio_over_many_users_holds_its_level(falling: bool) -> None:
    low, high = (binom.ppf(tail, 300, 0.95) for tail in (0.0005, 0.9995))
    assert low <= _worlds_covered(FEW_FOR_A_RATIO, falling) <= high


def test_a_paired_difference_knows_that_both_scores_are_of_the_same_users() -> None:
    generator = np.random.default_rng(0)
    users = generator.normal(0, 5, 200)
    a, b = users + generator.normal(0.5, 0.1, 200), users + generator.normal(0, 0.1, 200)
    estimate = paired_difference(a, b, np.arange(200), seed=0)
    assert estimate.value == pytest.approx((a - b).mean())
    assert 0.45 < estimate.low < 0.5 < estimate.high < 0.55


def test_a_paired_difference_turned_round_is_its_negative() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random(50), generator.random(50)
    one = paired_difference(a, b, np.arange(50), seed=0)
    other = paired_difference(b, a, np.arange(50), seed=0)
    assert (-other.high, -other.value, -other.low) == pytest.approx((one.low, one.value, one.high))


def test_four_users_of_two_hundred_are_not_yet_a_difference() -> None:
    # McNemar's exact test of 4 against 0 has p = .125, of 40 against 0 about 1e-12; the bootstrap alone excludes 0
    # from 4 on.
    def differing(users: int) -> Estimate:
        return paired_difference((np.arange(200) < users).astype(float), np.zeros(200), np.arange(200), seed=0)

    assert differing(0).low == -differing(0).high < 0
    assert differing(4).low < 0 < differing(4).high
    assert differing(40).low > 0


def test_the_interval_of_a_difference_covers_it() -> None:
    # Users gained 5 in 100, users lost none; the bootstrap alone covers .78.
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        gained = (generator.random(30) < 0.05).astype(float)
        estimate = paired_difference(gained, np.zeros(30), np.arange(30), seed=seed, draws=200)
        covered += estimate.low <= 0.05 <= estimate.high
    assert covered / 200 >= 0.94


def test_weights_redraw_each_stratum_at_its_size() -> None:
    strata = np.array([2, 0, 2, 1, 2, 0])
    weights = np.concatenate(list(cluster_weights(strata, 4000, np.random.default_rng(0))))
    assert weights.shape == (4000, 6)
    for stratum, size in ((0, 2), (1, 1), (2, 3)):
        assert (weights[:, strata == stratum].sum(axis=1) == size).all()
    # Multinomial: mean 1, variance 1 - 1 / size.
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.05)
    assert weights.var(axis=0) == pytest.approx([2 / 3, 1 / 2, 2 / 3, 0, 2 / 3, 1 / 2], abs=0.06)


def test_a_hundred_thousand_users_come_in_chunks_of_bounded_size() -> None:
    chunk = next(cluster_weights(np.zeros(100_000, dtype=np.int64), 2000, np.random.default_rng(0)))
    assert chunk.size <= 2_000_000


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(500)
    assert mean_estimate(values, np.arange(500), seed=3) == mean_estimate(values, np.arange(500), seed=3)
    assert mean_estimate(values, np.arange(500), seed=3) != mean_estimate(values, np.arange(500), seed=4)


def test_what_cannot_be_averaged_is_refused() -> None:
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match="NaN"):
        mean_estimate(np.array([np.nan]), one, seed=0)
    with pytest.raises(ValueError, match="nothing to average"):
        mean_estimate(np.array([]), one[:0], seed=0)
    with pytest.raises(ValueError, match="two clusters"):
        mean_estimate(np.array([7.0]), one, seed=0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    # A TypeError where jaxtyping checks the annotations first.
    with pytest.raises((ValueError, TypeError)):
        mean_estimate(np.array([1.0, 2.0]), np.zeros(1, dtype=np.int64), seed=0)
    with pytest.raises((ValueError, TypeError)):
        paired_difference(np.zeros(2), np.zeros(3), np.arange(2), seed=0)


def test_scoring_stands_alone_and_starts_fast() -> None:
    code = (
        "import sys, pplr_audit; before = set(sys.modules)\n"
        "from pplr_audit.scoring import intervals, membership, ranking, reconstruction\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ours = {name for name in loaded if name.startswith("pplr_audit.") and not name.startswith("pplr_audit.scoring")}
    heavy = {name for name in loaded if name.split(".")[0] in ("sklearn", "torch") or name.startswith("scipy.stats")}
    assert not ours
    assert not heavy

import numpy as np
import pytest
from scipy.stats import bootstrap, norm
from sklearn.metrics import roc_auc_score, roc_curve

from pplr_audit.scoring.intervals import clopper_pearson, proportion_interval
from pplr_audit.scoring.membership import (
    auc,
    auc_estimate,
    model_free_scores,
    resolvable,
    roc,
    tpr_at,
    tpr_estimate,
    within_groups_auc,
)


def shifted(generator: np.random.Generator, others: int, members: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([generator.normal(size=others), generator.normal(size=members) + shift])
    return scores, np.repeat([0, 1], [others, members])


def test_auc_with_ties_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    scores, labels = shifted(generator, 70, 50, 1.0)
    for tied in (scores, np.round(scores), np.zeros(120)):
        assert auc(tied, labels) == pytest.approx(roc_auc_score(labels, tied))
    assert auc(scores, labels == 1) == auc(scores, labels)
    assert auc(np.array([-np.inf, 0.0]), np.array([0, 1])) == 1.0


def test_auc_within_groups_counts_every_pair_inside_a_group_once() -> None:
    generator = np.random.default_rng(0)
    scores = np.round(generator.normal(size=60), 1)
    labels, groups = generator.integers(0, 2, 60), generator.integers(0, 4, 60)
    groups[:3], labels[:3] = 9, 1  # a group without non-members has no pairs
    won = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero((labels == 0) & (groups == groups[i])):
            pairs += 1
            won += float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j])
    assert within_groups_auc(scores, labels, groups) == pytest.approx(won / pairs)
    assert auc_estimate(scores, labels, np.arange(60), seed=0, groups=groups).n == 57


def test_telling_clients_apart_is_no_membership_inference() -> None:
    groups, labels = np.repeat([0, 1], 40), np.repeat([0, 1, 0, 1], [30, 10, 10, 30])
    scores = groups.astype(float)
    assert auc(scores, labels) == pytest.approx(0.75)
    assert within_groups_auc(scores, labels, groups) == 0.5
    estimate = auc_estimate(scores, labels, np.arange(80), seed=0, groups=groups)
    assert estimate.low < estimate.value == 0.5 < estimate.high


def test_the_interval_of_an_auc_agrees_with_scipys_bootstrap() -> None:
    scores, labels = shifted(np.random.default_rng(0), 150, 100, 0.8)

    def area(members: np.ndarray, others: np.ndarray) -> float:
        return float((members[:, None] > others).mean())

    theirs = bootstrap(
        (scores[labels == 1], scores[labels == 0]), area, method="percentile", vectorized=False, n_resamples=1500, rng=1
    ).confidence_interval
    ours = auc_estimate(scores, labels, np.arange(250), seed=0)
    assert ours.value == auc(scores, labels)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
    assert ours.n == 250


@pytest.mark.parametrize(("users", "area"), [(10, 0.5), (10, 0.95), (30, 0.99)])
def test_the_interval_of_an_auc_covers_it(users: int, area: float) -> None:
    # The bootstrap alone covers .95, .78 and .82 of these.
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        scores, labels = shifted(generator, users, users, norm.ppf(area) * 2**0.5)
        estimate = auc_estimate(scores, labels, np.arange(2 * users), seed=seed, draws=200)
        covered += estimate.low <= area <= estimate.high
    assert covered / 200 >= 0.94


def test_the_interval_of_an_auc_covers_it_when_users_give_several_samples() -> None:
    # Taking the 180 samples for independent users covers about .75.
    generator = np.random.default_rng(1)
    user = np.repeat(np.arange(60), 3)
    area = norm.cdf(1 / (2 * 1.09) ** 0.5)
    covered = 0
    for seed in range(200):
        scores = np.repeat(generator.normal(size=60), 3) + 0.3 * generator.normal(size=180) + user % 2
        estimate = auc_estimate(scores, user % 2, user, seed=seed, draws=200)
        covered += estimate.low <= area <= estimate.high
    assert 0.91 <= covered / 200 <= 0.995


def test_few_users_widen_an_auc_by_what_redrawing_them_hides() -> None:
    generator = np.random.default_rng(0)
    scores, labels = np.array([0.0, 1, 2, 5, 7, 3, 4, 6, 8, 9]), np.repeat([0, 1], 5)
    members = scores[5:][generator.integers(0, 5, (20_000, 5))]
    others = scores[:5][generator.integers(0, 5, (20_000, 5))]
    redrawn = (members[:, :, None] > others[:, None, :]).mean(axis=(1, 2))
    wide = proportion_interval(auc(scores, labels), redrawn.var() * 5 / 4, 5)
    estimate = auc_estimate(scores, labels, np.arange(10), seed=0, draws=20_000)
    assert (estimate.low, estimate.high) == pytest.approx(wide, abs=0.004)


def test_strata_are_redrawn_at_their_size() -> None:
    # The score is the client: with every client's members and non-members at their number, no draw differs.
    groups, labels = np.repeat([0, 1], 40), np.repeat([0, 1, 0, 1], [30, 10, 10, 30])
    estimate = auc_estimate(groups.astype(float), labels, np.arange(80), seed=0, strata=groups)
    share = 0.025 ** (1 / 40)
    assert (estimate.low, estimate.high) == pytest.approx((0.75 * share, 0.75 * share + 1 - share))


def test_a_perfect_auc_is_bounded_by_its_disjoint_pairs() -> None:
    labels = np.repeat([0, 1], [30, 8])
    estimate = auc_estimate(labels.astype(float), labels, np.arange(38), seed=0)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.025 ** (1 / 8))
    reverse = auc_estimate(-labels.astype(float), labels, np.arange(38), seed=0)
    assert (reverse.low, reverse.high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 8)))


def test_one_member_says_little_about_members() -> None:
    scores, labels = shifted(np.random.default_rng(0), 500, 1, 0.0)
    estimate = auc_estimate(scores, labels, np.arange(501), seed=0)
    assert estimate.high - estimate.low > 0.9


def test_a_user_with_samples_of_both_kinds_is_redrawn_as_one() -> None:
    generator = np.random.default_rng(0)
    user, labels = np.repeat(np.arange(40), 2), np.tile([0, 1], 40)
    effect = np.repeat(5 * generator.normal(size=40), 2)
    estimate = auc_estimate(effect + labels, labels, user, seed=0)
    assert estimate.low < auc(effect + labels, labels) < estimate.high
    with pytest.raises(ValueError, match="two strata"):
        auc_estimate(effect, labels, user, seed=0, strata=labels)


def test_the_roc_is_scikit_learns() -> None:
    scores, labels = shifted(np.random.default_rng(0), 60, 40, 1.0)
    for values in (scores, np.round(scores)):
        false, true, _ = roc_curve(labels, values, drop_intermediate=False)
        ours_false, ours_true = roc(values, labels)
        assert ours_false == pytest.approx(false)
        assert ours_true == pytest.approx(true)


def test_tpr_is_the_best_threshold_that_keeps_the_false_positives() -> None:
    generator = np.random.default_rng(0)
    for decimals in (0, 1, 8):
        scores, labels = shifted(generator, 30, 25, 1.5)
        scores = np.round(scores, decimals)
        for fpr in (0.1, 0.3, 0.5):
            best = 0.0
            for threshold in np.append(scores, np.inf):
                if round((scores[labels == 0] >= threshold).mean() * 30) <= round(fpr * 30):
                    best = max(best, float((scores[labels == 1] >= threshold).mean()))
            assert tpr_at(scores, labels, fpr) == pytest.approx(best)


def test_a_tie_across_the_false_positive_rate_is_left_out() -> None:
    labels = np.repeat([0, 1], [10, 10])
    assert tpr_at(np.zeros(20), labels, 0.5) == 0.0
    assert tpr_at(np.array([1.0] * 2 + [0.0] * 8 + [1.0] * 9 + [2.0]), labels, 0.1) == pytest.approx(0.1)
    assert tpr_at(np.array([1.0] * 2 + [0.0] * 8 + [1.0] * 9 + [2.0]), labels, 0.2) == 1.0


@pytest.mark.parametrize(("fpr", "others", "shift"), [(0.1, 30, 1.0), (0.1, 100, 2.5), (0.01, 300, 2.5)])
def test_the_interval_of_a_tpr_covers_it_where_a_known_threshold_would_not(
    fpr: float, others: int, shift: float
) -> None:
    generator = np.random.default_rng(1)
    truth = norm.cdf(shift - norm.isf(fpr))
    members = 300
    ours = naive = 0
    for seed in range(150):
        scores, labels = shifted(generator, others, members, shift)
        estimate = tpr_estimate(scores, labels, np.arange(others + members), fpr, seed=seed, draws=150)
        ours += estimate.low <= truth <= estimate.high
        low, high = clopper_pearson(round(estimate.value * members), members)
        naive += low <= truth <= high
    assert ours / 150 >= 0.91
    assert naive / 150 <= 0.7


@pytest.mark.parametrize(("clients", "members", "others"), [(40, 2, 2), (80, 1, 1), (60, 2, 1), (3, 4, 4)])
def test_intervals_hold_where_clients_are_small(clients: int, members: int, others: int) -> None:
    """Redrawing inside a client of 1 + 1 shows no spread at all: such clients are redrawn whole."""
    truth, held, rate_held, runs = norm.cdf(0.5 / 2**0.5), 0, 0, 150
    rate = 1 - norm.cdf(norm.ppf(0.9) - 0.5)
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        groups = np.repeat(np.arange(clients), members + others)
        labels = np.tile(np.repeat([1, 0], [members, others]), clients)
        scores = generator.normal(size=len(groups)) + 0.5 * labels
        users = np.arange(len(groups))
        found = auc_estimate(scores, labels, users, seed=seed, groups=groups, draws=400)
        held += found.low <= truth <= found.high
        if clients > 10:
            found = tpr_estimate(scores, labels, users, 0.1, seed=seed, strata=groups, draws=400)
            rate_held += found.low <= rate <= found.high
    # 150 runs: two standard errors below .95 are .914; percentiles of a threshold found anew cover a little less.
    assert held / runs > 0.9
    assert clients <= 10 or rate_held / runs > 0.88


def test_false_positive_rates_need_three_expected_false_positives() -> None:
    assert resolvable(2999) == (0.1, 0.01)
    assert resolvable(0) == ()
    scores, labels = shifted(np.random.default_rng(0), 299, 50, 1.0)
    with pytest.raises(ValueError, match="needs 300 non-members; got 299"):
        tpr_estimate(scores, labels, np.arange(349), 0.01, seed=0)


def model_free_auc(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> float:
    return within_groups_auc(model_free_scores(features, labels, groups, seed=seed), labels, groups)


def test_a_classifier_of_features_finds_what_is_there_and_no_more() -> None:
    generator = np.random.default_rng(0)
    groups, labels = np.arange(300) % 5, generator.integers(0, 2, 300)
    client = groups[:, None] * 10.0  # a feature that differs between clients is no help within one
    noise = generator.normal(size=(300, 4))
    nothing = [model_free_auc(np.hstack([noise, client]), labels, groups, seed) for seed in range(5)]
    assert 0.4 < np.mean(nothing) < 0.55
    telling = np.hstack([noise, labels[:, None] + 0.5 * generator.normal(size=(300, 1))])
    assert model_free_auc(telling, labels, groups, 0) == pytest.approx(norm.cdf(2 / 2**0.5), abs=0.05)
    assert model_free_auc(telling, labels, groups, 0) == model_free_auc(telling, labels, groups, 0)


def test_a_feature_that_names_the_row_is_of_no_use_to_a_classifier_that_has_not_seen_it() -> None:
    # Fitted on all rows, one indicator a row would give an AUC of 1.
    labels = np.arange(60) % 2
    assert model_free_auc(np.eye(60), labels, np.zeros(60, dtype=np.int64), 0) <= 0.6


def test_what_cannot_be_compared_is_refused() -> None:
    both = np.array([0, 1])
    with pytest.raises(ValueError, match="no pair"):
        auc(np.zeros(2), np.array([1, 1]))
    with pytest.raises(ValueError, match="no pair"):
        within_groups_auc(np.zeros(2), both, both)
    with pytest.raises(ValueError, match="NaN"):
        auc(np.array([0.0, np.nan]), both)
    with pytest.raises(ValueError, match="labels are 0"):
        auc(np.zeros(2), np.array([1, 2]))
    with pytest.raises(ValueError, match="leave any out"):
        model_free_scores(np.zeros((2, 1)), both, np.zeros(2, dtype=np.int64), seed=0)

"""Balance between clients against hand-computed values, and its intervals against a federation that is known."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom

from pplr_audit.scoring.balance import MEASURES, Measure, Refusal, balance_differences, balance_estimates, jain, row
from pplr_audit.scoring.intervals import Estimate

WORLDS = 200
LEAST, MOST = 179, 198
"""99.9 % of the binomial distribution of 200 trials at .95; a test of our own (scipy) holds them to it."""

# Client 0: 1, 0 (mean .5); client 1: 1, 1, 0, 0, 0 (mean .4); client 2: .3 (mean .3).
VALUES = np.array([1, 0, 1, 1, 0, 0, 0, 0.3])
CLIENTS = np.array([0, 0, 1, 1, 1, 1, 1, 2])


def test_the_values_are_those_of_the_formulas() -> None:
    found = balance_estimates(VALUES, CLIENTS, seed=0)
    assert found["standard_deviation"].value == pytest.approx(np.sqrt((0.1**2 + 0 + 0.1**2) / 3))
    assert found["worst_client"].value == pytest.approx(0.3)
    assert found["jain"].value == pytest.approx(1.2**2 / (3 * (0.25 + 0.16 + 0.09)))
    assert all(estimate.n == 8 for estimate in found.values())


def test_differences_are_those_of_the_values_and_nothing_between_equals() -> None:
    better = np.array([1, 0, 1, 1, 0, 0, 0, 0.4])
    found = balance_differences(better, VALUES, CLIENTS, seed=0)
    one, other = (balance_estimates(v, CLIENTS, seed=0) for v in (better, VALUES))
    for measure in MEASURES:
        assert found[measure].value == pytest.approx(one[measure].value - other[measure].value)
    assert found["worst_client"].value == pytest.approx(0.1)
    for estimate in balance_differences(VALUES, VALUES, CLIENTS, seed=0).values():
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_neither_the_order_of_users_nor_the_names_of_clients_change_a_value() -> None:
    order = np.random.default_rng(0).permutation(len(VALUES))
    straight = balance_estimates(VALUES, CLIENTS, seed=0)
    turned = balance_estimates(VALUES[order], 7 - 3 * CLIENTS[order], seed=0)
    for measure in MEASURES:
        assert turned[measure].value == pytest.approx(straight[measure].value)


def test_clients_that_all_have_nothing_are_served_alike() -> None:
    found = balance_estimates(np.zeros(6), np.array([0, 0, 1, 1, 2, 2]), seed=0)
    assert [found[m].value for m in MEASURES] == [0, 0, 1]


@pytest.mark.parametrize(
    ("values", "clients", "said"),
    [
        ([0.5, 0.5], [0, 0], "two clients"), ([0.5], [0, 1], "one client per user"), ([np.nan, 1], [0, 1], r"\[0, 1\]"),
        ([2.0, 1.0], [0, 1], r"\[0, 1\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(values: list[float], clients: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        balance_estimates(np.array(values), np.array(clients), seed=0)
    with pytest.raises(ValueError, match="same users"):
        balance_differences(VALUES, VALUES[1:], CLIENTS, seed=0)


@pytest.mark.parametrize("rates", [(0.3, 0.3, 0.3, 0.3, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.08, 0.1, 0.1, 0.12)])
def test_intervals_hold_the_truth_nearly_always(rates: tuple[float, ...]) -> None:
    """Users are drawn anew a hundred times from clients whose true rates are known."""
    truth = np.array(rates)
    generator = np.random.default_rng(1)
    clients = np.repeat(np.arange(5), 120)
    expected = {
        "standard_deviation": truth.std(), "worst_client": truth.min(), "jain": truth.sum() ** 2 / 5 / (truth**2).sum()
    }  # fmt: skip
    held = dict.fromkeys(MEASURES, 0)
    for draw in range(100):
        values = (generator.random(600) < truth[clients]).astype(float)
        for measure, found in balance_estimates(values, clients, seed=draw, draws=200).items():
            held[measure] += found.low - 1e-9 <= expected[measure] <= found.high + 1e-9
    assert all(count >= 88 for count in held.values()), held  # of 95 expected; 88 is three deviations below


@pytest.mark.parametrize("rates", [(0.002, 0.006), (0.015, 0.03), (0.3, 0.35)])
def test_the_interval_of_a_difference_between_worst_clients_holds_it_where_hits_are_rare(
    rates: tuple[float, float],
) -> None:
    """A client without a hit in either strategy does not make a difference of exactly nothing."""
    generator = np.random.default_rng(3)
    clients = np.repeat(np.arange(5), [600, 500, 400, 300, 250])
    held = 0
    for draw in range(100):
        luck = generator.random(len(clients))
        a, b = ((luck < rate).astype(float) for rate in rates)
        found = balance_differences(a, b, clients, seed=draw, draws=200)["worst_client"]
        held += found.low <= rates[0] - rates[1] <= found.high
        assert found.low < found.high
    assert held >= 88, held


def test_the_interval_of_a_paired_difference_holds_it_nearly_always() -> None:
    generator = np.random.default_rng(2)
    clients = np.repeat(np.arange(4), 150)
    one, other = np.array([0.3, 0.35, 0.4, 0.45]), np.array([0.15, 0.3, 0.45, 0.6])
    expected = one.std() - other.std()
    held = 0
    for draw in range(200):
        luck = generator.random(600)  # the same users: what is easy for one is easy for the other
        a, b = (luck < one[clients]).astype(float), (luck < other[clients]).astype(float)
        found = balance_differences(a, b, clients, seed=draw, draws=300)["standard_deviation"]
        held += found.low <= expected <= found.high
    assert held >= 180, held


def test_the_bounds_of_coverage_are_those_of_the_binomial_distribution() -> None:
    assert binom.interval(0.999, WORLDS, 0.95) == (LEAST, MOST)


def held(found: Estimate | Refusal, truth: float) -> bool:
    assert isinstance(found, Estimate)
    return found.low - 1e-9 <= truth <= found.high + 1e-9


def spread_and_jain(truth: np.ndarray) -> dict[Measure, float]:
    return {"standard_deviation": float(truth.std()), "jain": float(jain(truth))}


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [
        ((100, 100, 100, 100, 20), (0.2, 0.2, 0.2, 0.2, 0.2)),
        ((100, 100, 100, 100, 20), (0.2, 0.2, 0.2, 0.2, 0.4)),
        ((100, 100, 100, 100, 20), (0.2, 0.2, 0.2, 0.2, 0.05)),
        ((100, 100, 100, 100, 100), (0.1, 0.2, 0.3, 0.4, 0.5)),
    ],
)
def test_a_small_client_beside_large_ones_leaves_the_intervals_their_level(
    sizes: tuple[int, ...], rates: tuple[float, ...]
) -> None:
    truth, clients = np.array(rates), np.repeat(np.arange(5), sizes)
    generator = np.random.default_rng(5)
    counts = dict.fromkeys(spread_and_jain(truth), 0)
    for draw in range(WORLDS):
        values = (generator.random(len(clients)) < truth[clients]).astype(float)
        found = balance_estimates(values, clients, seed=draw, draws=200)
        for measure, expected in spread_and_jain(truth).items():
            counts[measure] += held(found[measure], expected)
    assert all(count >= LEAST for count in counts.values()), counts
    if min(sizes) == max(sizes):  # else what the small client may hide makes it wider
        assert all(count <= MOST for count in counts.values()), counts


@pytest.mark.parametrize(("clients", "users", "rate"), [(10, 60, 0.01), (5, 100, 0.01), (10, 60, 0.99)])
def test_rare_hits_do_not_make_clients_differ_that_are_served_alike(clients: int, users: int, rate: float) -> None:
    """The mean of a client with a hit or none is skewed: noise that is symmetric says less of it than there is."""
    of = np.repeat(np.arange(clients), users)
    generator = np.random.default_rng(5)
    counts = dict.fromkeys(spread_and_jain(np.ones(1)), 0)
    for draw in range(WORLDS):
        values = (generator.random(len(of)) < rate).astype(float)
        found = balance_estimates(values, of, seed=draw, draws=100)
        for measure, expected in spread_and_jain(np.full(clients, rate)).items():
            counts[measure] += held(found[measure], expected)
    assert all(count >= LEAST for count in counts.values()), counts


@pytest.mark.parametrize("smallest", [1, 3, 19])
def test_with_a_client_of_few_users_nothing_is_said_about_the_spread_and_it_is_said_why(smallest: int) -> None:
    clients = np.repeat(np.arange(5), [100, 100, 100, 100, smallest])
    generator = np.random.default_rng(6)
    a, b = (generator.random((2, len(clients))) < 0.2).astype(float)
    said = f"a client has {smallest} users; below 20 nothing can be said about the spread over clients"
    for found in (balance_estimates(a, clients, seed=0), balance_differences(a, b, clients, seed=0)):
        for measure in ("standard_deviation", "jain"):
            refused = found[measure]
            assert isinstance(refused, Refusal)
            assert row(refused) == {"value": refused.value, "ci": None, "n": len(clients), "reason": said}
        assert isinstance(found["worst_client"], Estimate)


def test_the_worst_client_is_bounded_also_where_it_has_one_user() -> None:
    clients = np.repeat(np.arange(5), [100, 100, 100, 100, 1])
    generator = np.random.default_rng(7)
    count = 0
    for draw in range(WORLDS):
        values = (generator.random(len(clients)) < 0.2).astype(float)
        count += held(balance_estimates(values, clients, seed=draw, draws=20)["worst_client"], 0.2)
    assert count >= LEAST, count


FAIRER = {
    "level and rising": ((100,) * 5, (0.2,) * 5, (0.1, 0.15, 0.2, 0.25, 0.3)),
    "level and steep": ((100,) * 5, (0.3,) * 5, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "both rise": ((150,) * 4, (0.3, 0.35, 0.4, 0.45), (0.15, 0.3, 0.45, 0.6)),
    "hardly apart": ((150,) * 4, (0.3,) * 4, (0.25, 0.3, 0.3, 0.35)),
    "a small client": ((100, 100, 100, 100, 20), (0.1, 0.2, 0.3, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2, 0.2)),
}


@pytest.mark.parametrize("name", FAIRER)
def test_differences_between_strategies_of_which_one_is_fairer_keep_their_level(name: str) -> None:
    sizes, *rates = FAIRER[name]
    one, other = map(np.array, rates)
    clients = np.repeat(np.arange(len(sizes)), sizes)
    generator = np.random.default_rng(8)
    truth = {m: v - spread_and_jain(other)[m] for m, v in spread_and_jain(one).items()}
    counts = dict.fromkeys(truth, 0)
    for draw in range(WORLDS):
        luck = generator.random(len(clients))  # what is easy for a user is easy in both strategies
        a, b = (luck < one[clients]).astype(float), (luck < other[clients]).astype(float)
        found = balance_differences(a, b, clients, seed=draw, draws=150)
        for measure, expected in truth.items():
            counts[measure] += held(found[measure], expected)
    assert all(count >= LEAST for count in counts.values()), counts
    if min(sizes) == max(sizes):  # else what the small client hides is counted against both strategies: wider
        assert counts["standard_deviation"] <= MOST, counts


@pytest.mark.parametrize("kind", ["hits of .2", "hits of .1", "hits of .5", "gains", "uniform"])
def test_the_spread_over_fifty_clients_of_one_user_each_is_held(kind: str) -> None:
    def draw(generator: np.random.Generator, users: int) -> np.ndarray:
        if kind == "uniform":
            return generator.random(users)
        if kind == "gains":  # of a hit at one of ten places, as NDCG has them
            return (generator.random(users) < 0.3) / np.log2(1 + generator.integers(1, 11, users))
        return (generator.random(users) < float(kind.split()[-1])).astype(float)

    truth = spread_and_jain(draw(np.random.default_rng(9), 2_000_000))
    generator, clients = np.random.default_rng(10), np.arange(50)
    counts = dict.fromkeys(truth, 0)
    for world in range(WORLDS):
        found = balance_estimates(draw(generator, 50), clients, seed=world, draws=400)
        for measure, expected in truth.items():
            counts[measure] += held(found[measure], expected)
    assert all(count >= LEAST for count in counts.values()), counts


PAIRS = {
    "hardly apart": (0.2, 0.25), "rare": (0.05, 0.1), "apart": (0.1, 0.3), "of gains": (0.3, 0.2),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("users", [20, 50])
def test_differences_over_clients_of_one_user_each_are_held(name: str, users: int) -> None:
    def draw(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        luck = generator.random(count)  # what is easy for a user is easy in both strategies
        gain = 1 / np.log2(1 + generator.integers(1, 11, count)) if name == "of gains" else np.ones(count)
        a, b = (gain * (luck < rate) for rate in PAIRS[name])
        return a, b

    one, other = map(spread_and_jain, draw(np.random.default_rng(11), 2_000_000))
    generator, clients = np.random.default_rng(12), np.arange(users)
    counts = dict.fromkeys(one, 0)
    for world in range(WORLDS):
        found = balance_differences(*draw(generator, users), clients, seed=world, draws=200)
        for measure in counts:
            counts[measure] += held(found[measure], one[measure] - other[measure])
    assert all(count >= LEAST for count in counts.values()), counts


@pytest.mark.parametrize("users", [2, 5, 19])
def test_of_few_clients_of_one_user_each_nothing_is_said_about_the_spread(users: int) -> None:
    a = np.random.default_rng(13).random(users)
    said = f"there are {users} clients of one user each; below 20 nothing can be said about the spread over clients"
    different = np.arange(users) % 2.0
    for found in (balance_estimates(a, np.arange(users), seed=0),
                  balance_differences(different, 1 - different, np.arange(users), seed=0)):  # fmt: skip
        for measure in ("standard_deviation", "jain"):
            refused = found[measure]
            assert isinstance(refused, Refusal)
            assert refused.reason == said
        assert isinstance(found["worst_client"], Estimate)


def test_where_nobody_is_hit_clients_may_still_differ_by_what_the_smallest_hides() -> None:
    clients = np.repeat(np.arange(3), [100, 100, 20])
    found = balance_estimates(np.zeros(220), clients, seed=0)
    hidden = 1 - 0.025 ** (1 / 20)
    assert found["standard_deviation"] == Estimate(0, 0, pytest.approx(np.std([0, 0, hidden])), 220)
    assert found["jain"] == Estimate(1, pytest.approx(1 / 3), 1, 220)


def test_many_clients_take_little_memory() -> None:
    """Draws of one spread after the other, never of all of them at once."""
    of = np.repeat(np.arange(200), 20)
    generator = np.random.default_rng(14)
    a, b = ((generator.random(len(of)) < rate).astype(float) for rate in (0.2, 0.25))
    tracemalloc.start()
    balance_differences(a, b, of, seed=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100e6

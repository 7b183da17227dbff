"""The balance against its formulas, and each mistake of the reference code that it must not repeat."""

import math

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.training.strategies.balance import learning_speed, learning_status, mix, mixing_matrix, similarity
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.strategies.pplr import Pplr
from pplr_audit.training.strategies.protocol import Contribution


def clients(count: int = 4) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(5, generator=generator)} for _ in range(count)
    ]


def contributions(count: int = 4) -> list[Contribution]:
    return [
        Contribution(f"client-{i}", theta, {n: -t for n, t in theta.items()}, loss=1.0 + 0.1 * i, samples=10 * (i + 1))
        for i, theta in enumerate(clients(count))
    ]


def test_similarity_is_half_of_cosine_plus_one() -> None:
    thetas = clients()
    flat = [np.concatenate([theta[name].numpy().ravel() for name in ("a", "b")]) for theta in thetas]
    got = similarity(thetas)
    for i, x in enumerate(flat):
        for j, y in enumerate(flat):
            cosine = float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))
            assert got[i, j] == pytest.approx((cosine + 1) / 2, abs=1e-6)
    assert (np.diag(got) == 1).all()


def test_the_learning_status_is_a_softmax_of_loss_over_tau() -> None:
    losses = [0.9, 1.0, 1.2]
    powers = [math.exp(loss / 0.5) for loss in losses]
    assert learning_status(losses, 0.5) == pytest.approx([p / sum(powers) for p in powers])
    assert np.isfinite(learning_status([50.0, 90.0], 0.05)).all()


@pytest.mark.parametrize("round_", [1, 2, 7])
@pytest.mark.parametrize("beta", [1.0, 5.0])
def test_the_learning_speed_has_round_over_beta_in_the_exponent(round_: int, beta: float) -> None:
    """The reference coded ``t + 1/beta``."""
    status = np.array([0.2, 0.5, 0.3])
    expected = [math.tanh(0.7 / l ** (round_ / beta)) for l in status]  # noqa: E741
    assert learning_speed(status, round_, alpha=0.7, beta=beta) == pytest.approx(expected)


def test_a_beta_of_one_does_not_switch_the_learning_speed_off() -> None:
    speed = learning_speed(np.array([0.9, 0.1]), 1, alpha=0.7, beta=1.0)
    assert speed[0] == pytest.approx(math.tanh(0.7 / 0.9))
    assert speed[1] == pytest.approx(1.0, abs=1e-5)


def test_a_client_that_is_behind_takes_less_from_the_others_and_all_take_more_with_time() -> None:
    status = learning_status([2.0, 1.0], 1.0)
    early, late = (learning_speed(status, t, alpha=0.7, beta=5) for t in (1, 20))
    assert early[0] < early[1]
    assert (late > early).all()


def test_a_vanishing_status_gives_full_speed_instead_of_an_overflow() -> None:
    assert learning_speed(np.array([1e-300, 1.0]), 40, alpha=0.7, beta=1)[0] == 1.0


def test_each_new_model_is_the_weighted_mean_of_the_formula() -> None:
    got = contributions()
    training = scenario.Training(tau=0.5)
    mixing = Pplr(training).mixing(got, 3)
    assert mixing.speed is not None
    assert mixing.similarity is not None
    mixed = mix([c.adapter for c in got], mixing.matrix)
    for i, own in enumerate(got):
        w, s = mixing.speed[i], mixing.similarity[i]
        others = sum(w * s[j] * other.adapter["b"].double() for j, other in enumerate(got) if j != i)
        expected = (own.adapter["b"].double() + others) / (1 + w * sum(s[j] for j in range(len(got)) if j != i))
        assert torch.allclose(mixed[i]["b"].double(), expected, atol=1e-6)


@pytest.mark.parametrize("strategy", [Pplr, FedAvg])
def test_the_order_of_the_clients_does_not_matter(strategy: type[Pplr] | type[FedAvg]) -> None:
    """The reference mixed in place, so that client 1 mixed with an already mixed client 0."""
    got = contributions()
    order = [2, 0, 3, 1]
    training = scenario.Training(tau=0.5)
    straight = mix([c.adapter for c in got], strategy(training).mixing(got, 2).matrix)
    turned_round = [got[i] for i in order]
    turned = mix([c.adapter for c in turned_round], strategy(training).mixing(turned_round, 2).matrix)
    for place, i in enumerate(order):
        for name in straight[i]:
            assert torch.allclose(turned[place][name], straight[i][name], rtol=0, atol=1e-7)


def test_mixing_leaves_the_snapshot_as_it_was() -> None:
    snapshot = clients()
    before = [{name: t.clone() for name, t in theta.items()} for theta in snapshot]
    mix(snapshot, np.full((4, 4), 0.25))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(snapshot, before, strict=True) for name in a)


def test_rows_of_the_mixing_matrix_sum_to_one_and_equal_clients_stay_where_they_are() -> None:
    matrix = mixing_matrix(np.full((3, 3), 0.8), np.array([0.1, 0.5, 1.0]))
    assert matrix.sum(1) == pytest.approx([1, 1, 1])
    same = [clients(1)[0]] * 3
    assert all(torch.allclose(m["a"], same[0]["a"]) for m in mix(same, matrix))


def test_fedavg_weighs_by_samples_and_gives_all_the_same_model() -> None:
    got = contributions(2)
    mixed = mix([c.adapter for c in got], FedAvg(scenario.Training()).mixing(got, 1).matrix)
    expected = (10 * got[0].adapter["a"] + 20 * got[1].adapter["a"]) / 30
    assert torch.allclose(mixed[0]["a"], expected)
    assert torch.equal(mixed[0]["a"], mixed[1]["a"])


def test_similarity_of_updates_is_offered() -> None:
    got = contributions()
    moved = Pplr(scenario.Training(similarity="update")).mixing(got, 1).similarity
    assert moved is not None
    assert np.allclose(moved, similarity([c.update for c in got]))


def test_clients_that_have_not_moved_count_as_alike() -> None:
    zeros = [{"a": torch.zeros(3)}, {"a": torch.zeros(3)}]
    assert (similarity(zeros) == 1).all()


def test_what_the_docs_say_of_the_defaults_is_what_the_formulas_give() -> None:
    """docs/strategies.md: near an average without weights, for all but the client furthest behind."""
    losses, told = [2.0, 2.1, 2.2, 2.3, 2.5], scenario.Training()

    def speed(tau: float, round_: int, beta: float) -> np.ndarray:
        return learning_speed(learning_status(losses, tau), round_, alpha=told.alpha, beta=beta)

    assert (told.similarity, told.alpha, told.beta, told.tau) == ("parameters", 0.7, 5, 0.05)
    assert learning_status(losses, told.tau).round(2).tolist() == [0, 0, 0, 0.02, 0.98]
    w = speed(told.tau, 1, told.beta)
    assert w.round(2).tolist() == [1, 1, 0.98, 0.92, 0.61]
    assert np.diag(mixing_matrix(np.ones((5, 5)), w)).round(2).tolist() == [0.2, 0.2, 0.2, 0.21, 0.29]
    assert 1 / (1 + 4 * np.tanh(told.alpha)) == pytest.approx(0.29, abs=0.005), "the largest own share, at l = 1"
    assert learning_status(losses, 0.5).round(2).tolist() == [0.12, 0.15, 0.18, 0.22, 0.33]
    ends = [speed(0.5, round_, beta)[[0, -1]].round(2).tolist() for round_, beta in ((1, 5), (5, 5), (5, 20))]
    assert ends == [[0.79, 0.7], [1, 0.97], [0.83, 0.73]]

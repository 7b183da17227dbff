"""The rivals against what their papers say, and that none of them depends on where the cut lies."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.allocation import EVERYONE, allotted
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.recommenders.bigrec import generate_titles
from pplr_audit.scenario import plugins
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Pull, Stretch
from pplr_audit.training.rounds import Federation, RoundLog, RoundState, assemble, train
from pplr_audit.training.strategies.balance import learning_status, mixing_matrix
from pplr_audit.training.strategies.pplr import Pplr
from pplr_audit.training.strategies.protocol import Mixing
from tests.training.strategies.test_balance import contributions
from tests.training.test_rounds import same

RIVALS = ("pplr", "fedavg", "fedprox", "ditto", "local", "centralized")


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


Start = Callable[..., tuple[Recommender, Federation]]


@pytest.fixture(scope="module")
def start(small_scenario: scenario.Scenario, private: PrivateData) -> Start:
    """A federation at the start of round 1: front and back of the cut, and fields of the training section."""

    def started(front: int = 1, back: int = 1, **changes: object) -> tuple[Recommender, Federation]:
        training = small_scenario.training.model_copy(update=changes)
        lora = small_scenario.model.lora.model_copy(update={"dropout": 0.1})
        cut = scenario.Cut(front=front, back=back)
        model = build(
            small_scenario.model.model_copy(update={"cut": cut, "lora": lora}), private.dataset.catalogue,
            history=small_scenario.data.history, seed=small_scenario.seed,
        )  # fmt: skip
        strategy = plugins.load("strategies", training.strategy)(training)
        own = allotted(private, shots=training.shots, pooled=strategy.pooled, seed=1)
        return model, assemble(own.samples, model, training, strategy, seed=1)

    return started


def finish(federation: Federation, rounds: int) -> tuple[list[RoundLog], list[RoundState]]:
    logs: list[RoundLog] = []
    states = [federation.state(1)]
    train(federation, rounds, done=lambda log, state: (logs.append(log), states.append(state)))  # type: ignore[func-returns-value]
    return logs, states


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    return float(sum((a[n].double() - b[n].double()).square().sum() for n in a)) ** 0.5


@pytest.mark.parametrize("strategy", RIVALS)
def test_the_trained_models_have_the_same_bits_wherever_the_cut_lies(start: Start, strategy: str) -> None:
    settings = {"strategy": strategy, "proximal": 0.5, "averaging": "product" if strategy == "pplr" else "factors"}
    ends = []
    for front, back in ((1, 1), (3, 0), (0, 2)):
        _, federation = start(front, back, **settings)
        ends.append(finish(federation, 2)[1][-1])
    for end in ends[1:]:
        assert same(end, ends[0])
        for client, model in ends[0].personal.items():
            assert all(torch.equal(value, end.personal[client][name]) for name, value in model.items())
    assert (strategy == "ditto") == bool(ends[0].personal)


def test_the_gradient_of_the_proximal_term_is_mu_times_the_way_from_the_anchor() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    anchor = {"a": torch.tensor([0.0, 4.0])}
    training = scenario.Training(optimizer="sgd", learning_rate=0.1)
    optimizer = LocalOptimizer({"a": parameter}, training, Stretch(0, 1), OptimizerState(), Pull(0.5, anchor))
    ((parameter * torch.tensor([3.0, -1.0])).sum()).backward()
    optimizer.step()
    # gradient 3 + 0.5 (1 - 0) and -1 + 0.5 (2 - 4)
    assert torch.allclose(parameter.detach(), torch.tensor([1.0 - 0.35, 2.0 + 0.2]))


def test_fedprox_without_its_term_is_fedavg_and_with_it_stays_nearer_to_where_a_round_began(start: Start) -> None:
    plain = finish(start(strategy="fedavg")[1], 1)[1]
    nothing = finish(start(strategy="fedprox", proximal=0.0)[1], 1)[1]
    held = finish(start(strategy="fedprox", proximal=30.0)[1], 1)[1]
    assert same(plain[-1], nothing[-1])
    moved = {name: distance(s[-1].adapters["client-0"], s[0].adapters["client-0"]) for name, s in
             (("plain", plain), ("held", held))}  # fmt: skip
    assert 0 < moved["held"] < moved["plain"]


def test_ditto_shares_what_fedavg_shares_and_serves_what_each_client_trained_beside_it(start: Start) -> None:
    shared = finish(start(strategy="fedavg")[1], 2)[1]
    _, federation = start(strategy="ditto", proximal=0.1)
    states = finish(federation, 2)[1]
    for client in shared[-1].adapters:
        for name, value in shared[-1].adapters[client].items():
            assert torch.equal(value, states[-1].adapters[client][name])
    served = [states[-1].served(client.name) for client in federation.clients]
    assert all(distance(one, shared[-1].adapters["client-0"]) > 0 for one in served)
    assert distance(served[0], served[1]) > 0


def test_a_strong_pull_holds_ditto_s_own_models_at_the_shared_one_and_none_leaves_them_alone(start: Start) -> None:
    def apart(strength: float) -> float:
        end = finish(start(strategy="ditto", proximal=strength, optimizer="sgd", learning_rate=0.02)[1], 1)[1]
        return distance(end[-1].personal["client-0"], end[0].adapters["client-0"])

    assert apart(40.0) < 0.7 * apart(0.0)
    alone = finish(start(strategy="local", optimizer="sgd", learning_rate=0.02)[1], 1)[1][-1]
    free = finish(start(strategy="ditto", proximal=0.0, optimizer="sgd", learning_rate=0.02)[1], 1)[1][-1]
    # Without a pull v is trained as if alone; only its dropout is that of later steps.
    assert distance(free.personal["client-0"], alone.adapters["client-0"]) < 0.3 * distance(
        alone.adapters["client-0"], finish(start(strategy="local")[1], 0)[1][0].adapters["client-0"]
    )


def test_ditto_serves_the_personal_model_over_the_link_at_every_cut(start: Start) -> None:
    answers = []
    for front, back in ((1, 1), (3, 0)):
        model, federation = start(front, back, strategy="ditto", proximal=0.1, learning_rate=0.05)
        finish(federation, 2)
        prompts = [model.prompts.build(np.array([1, 2, 3]))]
        said = []
        for served in (
            federation.clients[0].served(federation.link),
            model.whole.served(federation.state(3).served("client-0")),
        ):
            with served.model() as network:
                said.append(generate_titles(network, prompts, model.prompts, beams=1)[0].tolist())
        assert said[0] == said[1]
        answers.append(said[0])
    assert answers[0] == answers[1]


def test_what_a_client_keeps_of_its_personal_model_never_crosses(start: Start) -> None:
    sent = {}
    for strategy in ("fedavg", "ditto"):
        _, federation = start(strategy=strategy)
        before = federation.link.sent.copy()
        finish(federation, 1)
        sent[strategy] = {str(c): n - before[c] for c, n in federation.link.sent.items()}
    assert sent["ditto"]["client_update"] == sent["fedavg"]["client_update"]
    assert sent["ditto"]["personal_model"] == sent["fedavg"]["personal_model"]
    assert sent["ditto"]["front_activations"] == 2 * sent["fedavg"]["front_activations"]


def test_a_local_client_is_not_moved_by_what_the_others_hold(start: Start, private: PrivateData) -> None:
    _, all_of_them = start(strategy="local")
    end = finish(all_of_them, 2)[1][-1]
    alone = {"client-0": private.samples["client-0"]}
    model, other = start(strategy="local")
    training = other.training
    single = assemble(
        alone, model, training, plugins.load("strategies", "local")(training),
        seed=1,
    )  # fmt: skip
    lone = finish(single, 2)[1][-1]
    for name, value in lone.adapters["client-0"].items():
        assert torch.equal(value, end.adapters["client-0"][name])


@pytest.mark.parametrize("strategy", ["local", "centralized"])
def test_where_nothing_is_mixed_averaging_by_product_changes_no_bit_and_no_moment(start: Start, strategy: str) -> None:
    ends = [finish(start(strategy=strategy, averaging=how)[1], 2)[1][-1] for how in ("factors", "product")]
    assert same(*ends)
    for client, state in ends[0].optimizers.items():
        other = ends[1].optimizers[client]
        assert state.moments.keys() == other.moments.keys() != set()
        assert all(torch.equal(value, other.moments[name]) for name, value in state.moments.items())


@pytest.mark.parametrize("strategy", ["local", "pplr"])
def test_who_sits_a_round_out_keeps_all_its_moments_on_both_sides_of_the_cut_and_who_is_mixed_keeps_none(
    start: Start, strategy: str
) -> None:
    """Wherever the cut lies: else a client's trunk would begin again and its front and back would not."""
    settings = {"strategy": strategy, "averaging": "product", "participation": 0.7}
    ends = [finish(start(front, back, **settings)[1], 3) for front, back in ((1, 1), (3, 0), (0, 0))]
    for logs, states in ends:
        assert same(states[-1], ends[0][1][-1])
        assert {len(log.clients) for log in logs} == {2}
        for log, before, after in zip(logs, states[:-1], states[1:], strict=True):
            for client, state in after.optimizers.items():
                if client not in log.clients:
                    assert state.moments.keys() == before.optimizers[client].moments.keys()
                else:
                    assert (state.moments.keys() == set()) == (strategy == "pplr")


def test_who_gets_another_client_s_model_does_not_keep_its_own_moments() -> None:
    assert Mixing(np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])).unmixed.tolist() == [False, False, True]
    assert Mixing(np.zeros((0, 0))).unmixed.tolist() == []


def test_centralized_training_has_every_sample_at_one_client_and_in_each_round_as_many_as_all_together(
    start: Start, private: PrivateData
) -> None:
    _, federated = start(strategy="fedavg")
    _, pooled = start(strategy="centralized")
    (client,) = pooled.clients
    assert client.name == EVERYONE
    for round_ in (1, 2):
        asked = sorted(np.concatenate(client.plan(round_)))
        assert len(asked) == sum(len(np.concatenate(c.plan(round_))) for c in federated.clients)
        assert asked == list(range(sum(len(s) for s in private.samples.values())))
    (mixed,) = finish(pooled, 1)[0][0].mixing.matrix
    assert mixed.tolist() == [1.0]


@pytest.mark.parametrize("strategy", ["pplr", "fedavg", "ditto"])
@pytest.mark.parametrize("averaging", ["factors", "product"])
def test_the_order_in_which_clients_join_changes_no_bit(
    start: Start, private: PrivateData, strategy: str, averaging: str
) -> None:
    model, straight = start(strategy=strategy, averaging=averaging, participation=0.7)
    turned = assemble(
        dict(reversed(private.samples.items())), model, straight.training,
        plugins.load("strategies", strategy)(straight.training), seed=1,
    )  # fmt: skip
    logs, states = finish(straight, 2)
    other_logs, others = finish(turned, 2)
    assert same(states[-1], others[-1])
    for log, other in zip(logs, other_logs, strict=True):
        assert log.clients == other.clients
        assert np.array_equal(log.mixing.matrix, other.mixing.matrix)


def test_each_term_of_the_balance_can_be_switched_off() -> None:
    got = contributions()

    def mixing(*off: str, round_: int = 3, beta: float = 5.0):  # type: ignore[no-untyped-def]
        return Pplr(scenario.Training(tau=0.5, beta=beta, ablate=off or None)).mixing(got, round_)  # type: ignore[arg-type]

    whole = mixing()
    assert whole.similarity is not None
    assert (mixing("similarity").similarity == 1).all()
    assert np.array_equal(mixing("similarity").speed, whole.speed)
    assert (mixing("speed").speed == 1).all()
    assert np.allclose(mixing("speed").matrix, mixing_matrix(whole.similarity.copy(), np.ones(4)))
    unheated = np.tanh(0.7 / learning_status([c.loss for c in got], 0.5))
    assert np.allclose(mixing("heating").speed, unheated)
    assert np.array_equal(mixing("heating", round_=9, beta=2.0).matrix, mixing("heating").matrix)
    assert not np.allclose(whole.speed, unheated)
    shares = np.array([10, 20, 30, 40]) / 100
    assert np.allclose(mixing("balance").matrix, np.tile(shares, (4, 1)))
    both = mixing("similarity", "speed").matrix
    assert np.allclose(both, 0.25)


@pytest.mark.parametrize(("similarity", "low", "high"), [("parameters", 0.97, 1.0), ("update", 0.70, 0.87)])
def test_adapters_of_one_shared_a_are_nearly_alike_and_what_a_round_changed_is_not(
    start: Start, similarity: str, low: float, high: float
) -> None:
    """What docs/strategies.md says of S at the defaults."""
    for log in finish(start(similarity=similarity, learning_rate=1e-2)[1], 3)[0]:
        assert log.mixing.similarity is not None
        apart = log.mixing.similarity[~np.eye(3, dtype=bool)]
        assert low <= apart.min() <= apart.max() <= high


def test_clients_that_are_all_equal_stay_equal_and_share_alike() -> None:
    one = contributions(1)[0]
    equal = [type(one)(f"client-{i}", one.adapter, one.update, one.loss, one.samples) for i in range(3)]
    mixing = Pplr(scenario.Training()).mixing(equal, 2)
    assert mixing.status is not None
    assert np.allclose(mixing.status, 1 / 3)
    assert mixing.similarity is not None
    assert np.allclose(mixing.similarity, 1)
    assert np.allclose(mixing.matrix, mixing.matrix.T)
    assert np.allclose(mixing.matrix.sum(axis=1), 1)

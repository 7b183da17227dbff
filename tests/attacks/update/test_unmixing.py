"""Unmixing: what peers recover of others from the models that they are sent, alone and together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.update.unmixing import Unmixing, unmixed
from pplr_audit.audit.knowledge.expected_mixing import expected_mixing
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Update, View
from pplr_audit.training.strategies.averaging import averaged
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.strategies.pplr import Pplr
from pplr_audit.training.strategies.protocol import Contribution, Strategy
from tests.attacks.update.test_lora_span import item_recall, users, wide  # noqa: F401

CLIENTS = [f"client-{place}" for place in range(5)]
WIDTH = 4000
STRATEGIES: Mapping[str, Callable[[scenario.Training], Strategy]] = {"pplr": Pplr, "fedavg": FedAvg}


def federation(strategy: str, seed: int = 0) -> tuple[list[Contribution], list[dict[str, Tensor]], scenario.Training]:
    """The first round of clients that share half of what they learn, with losses and samples of their own."""
    drawn = torch.Generator().manual_seed(seed)
    start = torch.randn(WIDTH, generator=drawn)
    shared = torch.randn(WIDTH, generator=drawn)
    given = []
    for place, client in enumerate(CLIENTS):
        update = 0.01 * (shared + torch.randn(WIDTH, generator=drawn))
        given.append(Contribution(client, {"w": start - update}, {"w": update}, 1.0 + 0.02 * place, 50 + 10 * place))
    training = scenario.Training(strategy=strategy)
    mixing = STRATEGIES[strategy](training).mixing(given, 1)
    return given, averaged([each.adapter for each in given], mixing.matrix, "factors"), training


def seen_by(
    peers: Sequence[int], given: Sequence[Contribution], new: Sequence[Mapping[str, Tensor]]
) -> dict[str, Update]:
    return {CLIENTS[peer]: Update(9 + peer, CLIENTS[peer], 1, new[peer], given[peer].adapter) for peer in peers}


def recovered(peers: Sequence[int], strategy: str) -> tuple[Any, Tensor, Tensor, list[Contribution]]:
    """What these peers unmix, the update that follows, and the true mean update of the others."""
    given, new, training = federation(strategy)
    expected = expected_mixing(training, CLIENTS, [given[peer] for peer in peers], 1)
    found = unmixed(seen_by(peers, given, new), expected)
    start = given[0].adapter["w"] + given[0].update["w"]
    others = [each.update["w"] for place, each in enumerate(given) if place not in peers]
    return found, start - found.model["w"], torch.stack(others).double().mean(0), given


def alike(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.double(), other.double(), 0))


@pytest.mark.parametrize(("strategy", "least"), [("pplr", 0.9999), ("fedavg", 0.98)])
def test_all_clients_but_one_recover_the_update_of_that_one_alone(strategy: str, least: float) -> None:
    """They know neither its loss, nor how alike it is, nor (which fedavg weighs by) its number of samples."""
    found, update, true, given = recovered([0, 1, 2, 3], strategy)
    assert alike(update, true) > least
    assert max(alike(update, each.update["w"]) for each in given[:4]) < 0.7, "and of none of their own"
    assert float(update.norm() / true.norm()) == pytest.approx(1, abs=0.001 if strategy == "pplr" else 0.2)
    assert found.disagree < 1e-4


@pytest.mark.parametrize("peers", [[2], [1, 2]])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fewer_peers_recover_the_mean_of_the_others_and_of_none_more_than_its_part(
    strategy: str, peers: list[int]
) -> None:
    _, update, true, given = recovered(peers, strategy)
    assert alike(update, true) > 0.99
    outside = [each for place, each in enumerate(given) if place not in peers]
    assert max(alike(update, each.update["w"]) for each in outside) < 0.95


def test_colluders_find_out_the_weights_that_no_peer_knows() -> None:
    """PPLR's weights follow from all losses; a peer by itself takes the others' to be as its own."""
    given, _, training = federation("pplr")
    true = Pplr(training).mixing(given, 1).matrix.diagonal()
    together, *_ = recovered([0, 1, 2], "pplr")
    assert together.own == pytest.approx(true[:3].tolist(), abs=1e-4)
    alone, *_ = recovered([0], "pplr")
    assert abs(alone.own[0] - true[0]) > 0.01


def test_where_nothing_is_mixed_in_nothing_is_unmixed() -> None:
    given, _, training = federation("pplr")
    expected = expected_mixing(training, CLIENTS, [given[1]], 1)
    unmoved = seen_by([1], given, [each.adapter for each in given])
    with pytest.raises(NotApplicable, match="nothing of other clients is mixed in"):
        unmixed(unmoved, expected)
    unknown = {name: Update(9, name, 1, each.tensors) for name, each in unmoved.items()}
    with pytest.raises(NotApplicable, match="was not recorded"):
        unmixed(unknown, expected)
    view: View[Update] = View("server", Channel.PERSONAL_MODEL, 1, 1, "none", tuple(unmoved.values()))
    with pytest.raises(NotApplicable, match="this attack is a client's"):
        Unmixing().run(view, None, Budget(9))  # type: ignore[arg-type]  # it is not looked at


def test_expected_weights_are_exact_where_the_others_are_as_the_peers_are() -> None:
    same = Contribution("", {"w": torch.ones(3)}, {"w": torch.ones(3)}, 1.0, 50)
    given = [replace(same, client=client) for client in CLIENTS]
    for strategy, kind in STRATEGIES.items():
        training = scenario.Training(strategy=strategy)
        matrix = kind(training).mixing(given, 3).matrix
        expected = expected_mixing(training, CLIENTS, given[1:3], 3)
        for row, receiver in enumerate(CLIENTS):
            for column, client in enumerate(CLIENTS):
                assert expected[receiver][client] == pytest.approx(matrix[row, column]), (strategy, receiver, client)


def audited(
    setting: scenario.Scenario, folder: Path, peer: Any, rounds: Any = "last", **changed: Any
) -> dict[str, Any]:
    """An audit by peers of a RecFormer that trains its word embeddings, whose clients have users of many tastes."""
    new = setting.model_dump()
    new["data"] |= {"partition": "kmeans", "clients": 4, "users": 40, "audit_users": 20, "reserve": 0.3}
    new["data"]["market"] |= {"users": 60, "items": 160, "tastes": 8}
    new["model"]["recformer"] |= {"train": "all", "refresh_rounds": 0}
    new["training"] |= {"learning_rate": 1e-3, "rounds": 2, **changed}
    new["audit"] |= {"attacks": ["unmixing"], "cuts": [[1, 1]], "adversaries": ["peer"], "peer": peer, "rounds": rounds}
    document = audit.run(scenario.Scenario.model_validate(new), folder).document
    return {row["metric"]: row for row in document["findings"]}


def test_colluders_read_the_words_of_the_one_client_that_is_left_and_the_report_says_what_was_let_through(
    recformer_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    found = audited(recformer_scenario, tmp_path / "run", ["client-0", "client-1", "client-2"], "all")
    tokens, items = found["token_ap"], found["item_recall"]
    assert (tokens["status"], tokens["n"]) == ("ok", 1)
    against = {each["name"]: each["value"] for each in tokens["comparisons"]}
    assert against.keys() == {"popularity", "reserve"}, "one client is asked about, so there is nobody to deal to"
    assert tokens["value"] > 0.99 > max(against.values())
    assert items["value"] > 0.05 + next(x["value"] for x in items["comparisons"] if x["name"] == "reserve")
    detail = items["detail"]
    assert detail["share_of_one"] == [1.0, 1.0]
    assert 0.15 < detail["let_through"][0] <= detail["let_through"][1] < 0.26
    assert (detail["peers"], detail["reader"]) == (3, "token_rows")


def test_one_peer_reads_what_all_others_have_together_and_cannot_tell_whose_it_is(
    recformer_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    tokens = audited(recformer_scenario, tmp_path / "run", "client-0")["token_ap"]
    against = {each["name"]: each["value"] for each in tokens["comparisons"]}
    assert tokens["n"] == 3
    assert tokens["value"] == pytest.approx(against["control"]), "the same answer for each of them"
    assert tokens["value"] > against["reserve"] + 0.03, "yet of these clients, and not of any others"
    assert tokens["detail"]["share_of_one"] == pytest.approx([1 / 3, 1 / 3], abs=0.01)


@pytest.mark.parametrize("wide", ["bigrec"], indirect=True)
def test_the_update_of_lora_that_colluders_unmix_is_read_by_its_span(wide: Recommender) -> None:  # noqa: F811
    clients = users(wide, count=4)
    names, updates = [*clients.samples], clients.updates
    given = [
        Contribution(name, {n: clients.start[n] - u for n, u in updates[name].items()}, updates[name], 1.0 + place, 9)
        for place, name in enumerate(names)
    ]
    training = scenario.Training(strategy="pplr", tau=1.0)
    new = averaged([each.adapter for each in given], Pplr(training).mixing(given, 1).matrix, "factors")
    seen = tuple(Update(9 + p, names[p], 1, new[p], given[p].adapter) for p in range(3))
    view: View[Update] = View("peer", Channel.PERSONAL_MODEL, 3, 0, "none", seen, {0: names[3]})
    knowledge = clients.knowledge(
        began={(name, 1): clients.start for name in names[:3]},
        expected_mixing={1: expected_mixing(training, names, given[:3], 1)},
    )
    guess = Unmixing().run(view, knowledge, Budget(300))
    last = replace(clients, samples={names[3]: clients.samples[names[3]]})
    others = replace(clients, samples={names[0]: clients.samples[names[0]]})
    assert guess.facts["reader"] == "lora_span"
    assert item_recall(guess, last) >= 0.75 > 0.5 > item_recall(guess, others)

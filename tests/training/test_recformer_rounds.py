"""A federated training of RecFormer: the cut changes no bit of it, and the item table is encoded when it should be."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.replay.records import query_records
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import Recommender
from pplr_audit.models.lora import Adapter
from pplr_audit.models.recommenders.recformer import ITEMS, RecFormer
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.client import Client
from pplr_audit.training.rounds import Federation, RoundState
from tests.conftest import LAYERS
from tests.training.recformers import finish, of_few_users, start
from tests.training.test_rounds import same

CUTS = [(k, m) for k in range(LAYERS + 1) for m in range(LAYERS + 1 - k)]
FEW = [(0, 0), (0, 3), (1, 1), (2, 0)]
TRAIN: dict[str, dict[str, Any]] = {
    "embeddings": {"train": "embeddings"}, "all": {"train": "all"}, "ids": {"train": "lora", "ids": True},
}  # fmt: skip
"""What is changed of ``model.recformer``."""


@pytest.fixture(scope="module")
def recformer_scenario(recformer_scenario: scenario.Scenario) -> scenario.Scenario:
    return of_few_users(recformer_scenario)


@pytest.fixture(scope="module")
def private(recformer_scenario: scenario.Scenario) -> PrivateData:
    return prepare(recformer_scenario.data, recformer_scenario.seed)


def same_encodings(a: RoundState, b: RoundState) -> bool:
    return all(
        x.keys() == y.keys() and all(torch.equal(x[client][ITEMS], y[client][ITEMS]) for client in x)
        for x, y in ((a.encodings, b.encodings), (a.personal_encodings, b.personal_encodings))
    )


def same_adapters(a: dict[str, Adapter], b: dict[str, Adapter]) -> bool:
    return a.keys() == b.keys() and all(
        a[c].keys() == b[c].keys() and all(torch.equal(a[c][n], b[c][n]) for n in a[c]) for c in a
    )


@pytest.fixture(scope="module")
def reference(recformer_scenario: scenario.Scenario, private: PrivateData) -> dict[str, list[RoundState]]:
    """Uncut, dropout on."""
    found = {}
    for train in TRAIN:
        model, federation = start(recformer_scenario, private, LAYERS, 0, **TRAIN[train])
        assert model.parts.client.config.hidden_dropout_prob == 0.1
        found[train] = finish(federation, 2)[1]
    return found


@pytest.mark.parametrize(
    ("train", "front", "back"), [(train, *place) for train in TRAIN for place in (CUTS if train == "all" else FEW)]
)
def test_a_whole_training_ends_with_the_same_bits_and_item_tables_wherever_the_cut_lies(
    recformer_scenario: scenario.Scenario, private: PrivateData, reference: dict[str, list[RoundState]], train: str,
    front: int, back: int,
) -> None:  # fmt: skip
    model, federation = start(recformer_scenario, private, front, back, **TRAIN[train])
    end, expected = finish(federation, 2)[1][-1], reference[train][-1]
    assert same(end, expected)
    assert same_encodings(end, expected)
    assert set(end.encodings) == {"client-0", "client-1"}
    for client, encoding in end.encodings.items():
        assert not torch.allclose(encoding[ITEMS], model.task.base_encoding[ITEMS], atol=1e-3), "encoded anew"
        assert any(not torch.equal(model.initial[n], v) for n, v in end.adapters[client].items())


def test_dropout_is_on_in_the_tests_above(
    recformer_scenario: scenario.Scenario, private: PrivateData, reference: dict[str, list[RoundState]]
) -> None:
    quiet = recformer_scenario.model_copy(
        update={"model": recformer_scenario.model.model_copy(update={"dropout": 0.0})}
    )
    end = finish(start(quiet, private, LAYERS, 0, train="all")[1], 2)[1][-1]
    assert not same(end, reference["all"][-1])


def continued(
    states: list[RoundState], federation: Federation, files: TrainingFiles, rounds: int, after: int
) -> RoundState:
    files.save_state(states[after])
    state = files.latest()
    assert state is not None
    assert state.round == after + 1
    assert same_encodings(state, states[after])
    federation.resume(state)
    return finish(federation, rounds, first=after + 1)[1][-1]


@pytest.fixture(scope="module")
def uninterrupted(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> Callable[[str], tuple[dict[str, Any], list[RoundState]]]:
    """By strategy, what is changed for four rounds of it, and their states."""

    @cache
    def states(strategy: str) -> tuple[dict[str, Any], list[RoundState]]:
        changes: dict[str, Any] = {"training": {"strategy": strategy, "rounds": 4}, "train": "all"}
        return changes, finish(start(recformer_scenario, private, 1, 1, **changes)[1], 4)[1]

    return states


@pytest.mark.parametrize(("strategy", "after"), [("pplr", 0), ("pplr", 2), ("ditto", 1), ("ditto", 2), ("ditto", 3)])
def test_a_training_continued_from_a_stored_round_ends_with_the_same_bits(
    recformer_scenario: scenario.Scenario, private: PrivateData, tmp_path: Path, strategy: str, after: int,
    uninterrupted: Callable[[str], tuple[dict[str, Any], list[RoundState]]],
) -> None:  # fmt: skip
    """Also after round 2, the first with a table that stays, which then is part of what is stored."""
    changes, states = uninterrupted(strategy)
    kept = {r: bool(states[r - 1].encodings) for r in range(1, 6)}
    assert kept == {1: False, 2: False, 3: True, 4: True, 5: True}
    assert same_encodings(states[2], states[4])
    for state in states[2:]:
        assert set(state.personal_encodings) == ({"client-0", "client-1"} if strategy == "ditto" else set())
        for client, encoding in state.personal_encodings.items():
            assert not torch.equal(encoding[ITEMS], state.encodings[client][ITEMS])
    federation = start(recformer_scenario, private, 2, 0, **changes)[1]
    with Store.open(tmp_path / "run", "text", "digest") as store:
        end = continued(states, federation, TrainingFiles(store), 4, after)
    assert same(end, states[-1])
    assert same_encodings(end, states[-1])
    assert same_adapters(dict(end.personal), dict(states[-1].personal))


def test_ditto_ends_with_the_same_bits_wherever_the_cut_lies(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    ends = [
        finish(start(recformer_scenario, private, *cut, training={"strategy": "ditto"})[1], 2)[1][-1]
        for cut in ((LAYERS, 0), (1, 1), (0, 2))
    ]
    for end in ends[1:]:
        assert same(end, ends[0])
        assert same_adapters(dict(end.personal), dict(ends[0].personal))
        assert same_encodings(end, ends[0])


def test_a_client_none_of_whose_layers_are_trained_is_served_by_its_personal_model(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    recommender, federation = start(recformer_scenario, private, 0, 0, train="lora", training={"strategy": "ditto"})
    state = finish(federation, 3)[1][-1]
    for client in federation.clients:
        assert client.personal is not None
        assert client.personal.adapter == {}
        assert not torch.equal(state.personal_encodings[client.name][ITEMS], state.encodings[client.name][ITEMS])
        assert torch.equal(served_table(client, federation, recommender), state.personal_encodings[client.name][ITEMS])


def test_averaged_products_leave_the_marks_averaged_as_they_are(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    changes: dict[str, Any] = {"training": {"averaging": "product"}}
    ends = [finish(start(recformer_scenario, private, *cut, **changes)[1], 2)[1][-1] for cut in ((3, 0), (1, 1))]
    assert same(*ends)
    assert same_encodings(*ends)


def table_of(recommender: Recommender, adapter: Adapter) -> torch.Tensor:
    recommender.whole.set(adapter)
    return recommender.task.encode_catalogue(recommender.whole.model)[ITEMS]


def served_table(client: Client, federation: Federation, recommender: Recommender) -> torch.Tensor:
    served = client.served(federation.link)
    if served.encoding is not None:
        return served.encoding[ITEMS]
    with served.model(catalogue=True) as model:
        return recommender.task.encode_catalogue(model)[ITEMS]


def test_a_best_model_from_before_the_table_was_settled_is_served_by_a_table_of_its_own(
    recformer_scenario: scenario.Scenario, private: PrivateData, tmp_path: Path
) -> None:
    """client-0 stops after round 3 and is best after round 1; client-1 is best after round 3, whose table stays."""
    told = {"client-0": [0.5, 0.4, 0.4], "client-1": [0.1, 0.2, 0.3, 0.1]}
    ends = []
    for front, back in ((1, 1), (LAYERS, 0)):
        values = {name: iter(metrics) for name, metrics in told.items()}
        recommender, federation = start(
            recformer_scenario, private, front, back, training={"rounds": 4, "patience": 2}, refresh_rounds=2
        )  # fmt: skip
        logs, states = finish(federation, 4, validate=lambda client, values=values: next(values[client.name]))
        assert [log.clients for log in logs[2:]] == [("client-0", "client-1"), ("client-1",)]
        ends.append((recommender, federation, states))
    assert same(ends[0][2][-1], ends[1][2][-1])
    assert same_encodings(ends[0][2][-1], ends[1][2][-1])
    recommender, federation, states = ends[0]
    with Store.open(tmp_path / "run", "text", "digest") as store:
        files = TrainingFiles(store)
        files.save_state(states[-1])
        state = files.latest()
    assert state is not None
    federation.resume(state)
    federation.deliver()
    first, second = federation.clients
    own = table_of(recommender, states[1].adapters["client-0"])
    assert torch.equal(served_table(first, federation, recommender), own)
    assert not torch.equal(own, states[-1].encodings["client-0"][ITEMS])
    assert torch.equal(served_table(second, federation, recommender), states[-1].encodings["client-1"][ITEMS])


@pytest.mark.parametrize("case", ["fixed", "frozen", "every round", "best is early"])
def test_what_a_query_is_answered_by_is_what_the_client_serves_by(
    recformer_scenario: scenario.Scenario, private: PrivateData, case: str
) -> None:
    refreshed = {"fixed": 0, "frozen": 1, "every round": 9, "best is early": 2}[case]
    patience = 2 if case == "best is early" else None
    values = {name: iter([0.5, 0.4, 0.4]) for name in ("client-0", "client-1")}
    recommender, federation = start(
        recformer_scenario, private, training={"rounds": 3, "patience": patience}, refresh_rounds=refreshed
    )  # fmt: skip
    state = finish(federation, 3, validate=lambda client: next(values[client.name]))[1][-1]
    federation.deliver()
    prompts = [recommender.prompts.build(private.samples["client-0"].history[i], i) for i in range(6)]
    records = query_records(recommender.whole, state, {"client-0": list(enumerate(prompts))})
    client = federation.clients[0]
    encoding = {ITEMS: served_table(client, federation, recommender)}
    with client.served(federation.link).model() as model:
        expected = recommender.task.log_probs(model, prompts, encoding)
    for record in records:
        assert record.tensor.tolist() == pytest.approx(expected[record.row].tolist(), abs=1e-5)


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[bool]]:
    """How often a model worked out the item table, by whether it was in training mode."""
    counts: Counter[bool] = Counter()
    original = RecFormer.encode_catalogue

    def counted(self: RecFormer, model: Any) -> dict[str, torch.Tensor]:
        counts[model.training] += 1
        return original(self, model)

    monkeypatch.setattr(RecFormer, "encode_catalogue", counted)
    yield counts
    assert not counts[True], "the table is encoded in evaluation mode"


@pytest.mark.parametrize(
    ("refresh_rounds", "refresh_steps", "epochs", "expected", "front"),
    [
        # Round 1 begins with the base model's table; the last of these rounds is followed by one encoding more.
        (0, None, 1, [0, 0, 0, 0], 1),
        (1, None, 1, [0, 1, 0, 0], 1),
        (2, None, 1, [0, 1, 1, 0], 1),
        (None, None, 1, [0, 1, 1, 0], 1),
        (9, None, 1, [0, 1, 1, 1], 1),
        (2, None, 2, [1, 2, 1, 0], 1),
        (1, 2, 1, ["steps - 1", 1, 0, 0], 1),
        (2, 2, 2, ["2 steps - 1", "2 steps", 1, 0], 1),
        (2, 2, 2, ["2 steps - 1", "2 steps", 1, 0], 2),
        (0, 2, 2, [0, 0, 0, 0], 1),
    ],
)
def test_the_table_is_encoded_at_the_start_of_an_epoch_or_every_few_steps_and_then_no_more(
    recformer_scenario: scenario.Scenario, private: PrivateData, remembered: Counter[bool],
    refresh_rounds: int | None, refresh_steps: int | None, epochs: int, expected: list[int | str], front: int,
) -> None:  # fmt: skip
    back = 1
    recommender, federation = start(
        recformer_scenario, private, front, back, training={"rounds": 4, "local_epochs": epochs},
        refresh_rounds=refresh_rounds, refresh_steps=refresh_steps,
    )  # fmt: skip
    assert remembered.total() == 1, "of the base model, once"
    hidden = 32
    once = recommender.task.catalogue_positions * (2 * hidden * 4 + 1) if front + back < LAYERS else 0
    assert federation.link.catalogue_bytes == 0
    for round_, wanted in enumerate(expected, 1):
        remembered.clear()
        before = federation.link.catalogue_bytes
        logs, _ = finish(federation, round_, first=round_)
        counts = []
        for client in federation.clients:
            steps = len(client.plan(round_)) // epochs
            if not isinstance(wanted, str):
                counts.append(wanted)
            else:
                every = epochs * -(-steps // 2)
                counts.append(every - 1 if wanted.endswith("- 1") else every)
            assert client.encodings(round_) == counts[-1]
        assert remembered.total() == sum(counts), f"round {round_}"
        assert logs[0].catalogue == federation.link.catalogue_bytes - before == sum(counts) * once
        serving = sum(logs[0].sent.get(str(c), 0) for c in (Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT))
        assert serving == logs[0].catalogue, "nothing else is served in training"


def test_a_client_that_sat_out_encodes_the_table_when_it_is_back(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    """With a model that it got in the meantime, whose table it never had."""
    training = {"strategy": "fedavg", "rounds": 6, "participation": 0.5}
    _, federation = start(recformer_scenario, private, training=training)
    logs, states = finish(federation, 6)
    first = {c.name: next(log.round for log in logs if c.name in log.clients) for c in federation.clients}
    late = max(first, key=first.__getitem__)
    assert first[late] > 1
    assert late in states[-1].encodings
    assert logs[first[late] - 1].catalogue > 0
    # As from a stored state: the same bits.
    again = start(recformer_scenario, private, 2, 0, training=training)[1]
    again.resume(states[1])
    end = finish(again, 6, first=2)[1][-1]
    assert same(end, states[-1])
    assert same_encodings(end, states[-1])


def test_the_round_begins_with_the_table_of_the_model_that_the_client_received(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    recommender, federation = start(recformer_scenario, private, 0, 1, train="all")
    states = finish(federation, 2)[1]
    for client, encoding in states[-1].encodings.items():
        assert torch.equal(encoding[ITEMS], table_of(recommender, states[1].adapters[client]))

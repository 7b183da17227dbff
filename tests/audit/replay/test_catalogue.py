"""The public catalogue is recorded as it crosses, in training and in serving: known plaintext."""

from typing import Any

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.replay.catalogue import Titles, received_titles, seen_of, served_titles
from pplr_audit.audit.replay.records import received_records
from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.view import Record
from pplr_audit.training.defending import Composed
from pplr_audit.training.rounds import Federation, RoundState, assemble
from pplr_audit.training.strategies.fedavg import FedAvg
from tests.audit.replay.test_defended import watch_all
from tests.audit.replay.watching import replayed
from tests.toys.noise import Noise
from tests.training.recformers import finish, start

REFRESHES = {"refresh_rounds": 9, "refresh_steps": 2}
Rows = dict[tuple[str, int, int], torch.Tensor]


@pytest.fixture(scope="module")
def private(recformer_scenario: scenario.Scenario) -> PrivateData:
    return prepare(recformer_scenario.data, recformer_scenario.seed)


def told(live: list[Crossing], model: Recommender, round_: int) -> Rows:
    """What a live link carried of each title, by client, step, and place in the order of the titles' lengths."""
    found: Rows = {}
    read: dict[tuple[str, int], int] = {}
    for crossing in live:
        if crossing.channel == Channel.INFERENCE_ACTIVATIONS and crossing.round == round_:
            at = (crossing.client, crossing.step)
            first = read.get(at, 0)
            read[at] = first + len(crossing.tensors["hidden"])
            for place, hidden in enumerate(crossing.tensors["hidden"], first):
                found[(*at, place)] = hidden[: len(model.task.catalogue[place])]
    assert set(read.values()) <= {len(model.task.catalogue)}
    return found


def same(records: list[Record], expected: Rows) -> None:
    assert expected
    assert {(r.client, r.step, r.row) for r in records} == expected.keys()
    assert len(records) == len(expected)
    assert all(torch.equal(r.tensor, expected[r.client, r.step, r.row]) for r in records)


def test_titles_are_in_the_order_in_which_they_are_encoded(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model, _ = start(recformer_scenario, private)
    made = dict(model.whole.states(model.task.catalogue, [1], None))
    titles = Titles(model.task.catalogue)
    lengths = [len(prompt) for prompt in model.task.catalogue]
    assert lengths == sorted(lengths)
    assert [int(prompt.items[0]) for prompt in model.task.catalogue] != list(range(48))
    for batch in (range(20), range(20, 48)):
        padded = torch.nn.utils.rnn.pad_sequence([made[place][1] for place in batch], batch_first=True)
        for place, hidden in titles.of(1, padded):
            assert place in batch
            assert torch.equal(hidden, made[place][1])
    assert seen_of([model.task.catalogue[0]] * 2000)[::511] == [0, 1999]


@pytest.mark.parametrize("front", [0, 1, 2])
def test_a_replay_yields_the_catalogue_as_a_live_link_carried_it_at_another_cut(
    recformer_scenario: scenario.Scenario, private: PrivateData, front: int
) -> None:
    live: list[Crossing] = []
    model, federation = start(recformer_scenario, private, front, 0, recorder=live.append, **REFRESHES)
    finish(federation, 2)
    expected = told(live, model, 2)
    assert len({step for _, step, _ in expected}) > 1
    model, federation = start(recformer_scenario, private, 1, 2, **REFRESHES)  # k + m = L: it has no link at all
    states = finish(federation, 2)[1]
    watched = watch_all(federation, model, private)
    wanted = {Trace("catalogue", front), Trace("activation", front)}
    records = replayed(federation, model.parts, states[1], watched, wanted)
    same(records[Trace("catalogue", front)], expected)
    bare = replayed(federation, model.parts, states[1], watched, {Trace("activation", front)})
    for one, other in zip(records[Trace("activation", front)], bare[Trace("activation", front)], strict=True):
        assert (one.row, one.step) == (other.row, other.step)
        assert torch.equal(one.tensor, other.tensor)


def defended(
    setting: scenario.Scenario, private: PrivateData, live: list[Crossing]
) -> tuple[Recommender, Federation, list[RoundState]]:  # fmt: skip
    model, plain = start(setting, private, 1, 1, **REFRESHES)
    noise = Composed("noise", (Noise(scale=0.5),), ("noise",))
    federation = assemble(
        private.samples, model, plain.training, FedAvg(plain.training), seed=1, defenses=noise
    )  # fmt: skip
    federation.link.recorder = live.append
    states = finish(federation, 1)[1]
    return model, federation, states


def test_under_a_defense_the_catalogue_is_recorded_as_it_was_received(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    live: list[Crossing] = []
    model, federation, states = defended(recformer_scenario, private, live)
    federation.link.recorder = None
    watched, trace = watch_all(federation, model, private), Trace("catalogue", 1)
    same(replayed(federation, model.parts, states[0], watched, {trace})[trace], told(live, model, 1))

    def received() -> list[Record]:
        found: list[Record] = []
        client = federation.clients[0].name
        prompt = model.prompts.build(private.samples[client].history[0])
        received_records(federation, model.parts, states[1], {client: [(0, prompt)]}, lambda *_: None)
        received_titles(federation, 1, 2, [client], lambda _, record: found.append(record))
        return found

    noisy, again, plain = received(), received(), list[Record]()
    served_titles(model.whole, states[1], [federation.clients[0].name], [1], lambda _, record: plain.append(record))
    exact = {record.row: record.tensor for record in plain}
    assert {record.row for record in noisy} == set(exact) == set(range(48))
    for record, same_again in zip(noisy, again, strict=True):
        assert torch.equal(record.tensor, same_again.tensor)
        assert 0.2 < float((record.tensor - exact[record.row]).std()) < 0.8


def test_in_serving_the_catalogue_crosses_unless_its_table_is_frozen(
    recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    def served(**changes: Any) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        model, federation = start(recformer_scenario, private, 1, 1, **changes)
        state = finish(federation, 2)[1][-1]
        found: list[Record] = []
        served_titles(model.whole, state, ["client-0"], [1], lambda _, record: found.append(record))
        made = dict(model.whole.states(model.task.catalogue, [1], state.served("client-0"), serving=True))
        return {r.row: r.tensor for r in found}, {place: states[1] for place, states in made.items()}

    crossed, made = served(refresh_rounds=9)
    assert crossed.keys() == made.keys()
    assert all(torch.equal(crossed[place], made[place]) for place in made)
    assert served(refresh_rounds=1)[0] == {}
    assert served(refresh_rounds=0)[0] == {}

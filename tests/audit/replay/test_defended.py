"""A defended round is replayed with its defense: what is recorded is what the receiver got, in the step it was in."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.replay.records import Watched, mask_records, received_masks, received_records
from pplr_audit.audit.tap_points import OF_TRAINING, Trace
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.defense import Defense, Turn
from pplr_audit.threat_model.view import Record
from pplr_audit.training.defending import Composed
from pplr_audit.training.rounds import Federation, RoundState, assemble
from pplr_audit.training.strategies.fedavg import FedAvg
from tests.audit.replay.watching import replayed, served, trace_of
from tests.toys import install_toys
from tests.training.defended.federations import finish, start


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


@pytest.fixture(autouse=True)
def toys(install: Callable[..., Path]) -> None:
    install_toys(install)


Crossed = dict[tuple[Channel, str, int], tuple[int, int, torch.Tensor]]


def live_rows(live: Sequence[Crossing], federation: Federation, round_: int) -> Crossed:
    """By channel, client and sample: the first step of the round it was in, the size of its batch, and what crossed.

    A step may cross in several messages, each with the next samples of its batch.
    """
    found: Crossed = {}
    plans = {client.name: client.plan(round_) for client in federation.clients}
    for channel in OF_TRAINING:
        for client, plan in plans.items():
            for step, rows in enumerate(plan):
                address = (channel, client, round_, step)
                own = [c for c in live if (c.channel, c.client, c.round, c.step) == address]
                own.sort(key=lambda c: c.forward)
                values = [row for c in own for (tensor,) in [c.tensors.values()] for row in tensor]
                assert len(values) == len(rows)
                for sample, value in zip(rows, values, strict=True):
                    found.setdefault((channel, client, int(sample)), (step, len(rows), value))
    return found


def watch_all(federation: Federation, model: Recommender, private: PrivateData) -> dict[str, list[Watched]]:
    watched: dict[str, list[Watched]] = {}
    row = 0
    for client in federation.clients:
        own = private.samples[client.name]
        for sample in range(len(own)):
            prompt = model.prompts.build(own.history[sample], int(own.targets[sample]))
            watched.setdefault(client.name, []).append(Watched(row, sample, len(prompt)))
            row += 1
    return watched


def same_as_live(
    expected: Crossed, federation: Federation, model: Recommender, private: PrivateData, state: RoundState
) -> None:
    watched = watch_all(federation, model, private)
    place = {w.row: (client, w) for client, own in watched.items() for w in own}
    traces = {channel: trace_of(channel, model.parts.front, model.parts.back, model.layers) for channel in OF_TRAINING}
    records = replayed(federation, model.parts, state, watched, {*traces.values(), Trace("activation", 0)})
    for channel, trace in traces.items():
        of_channel: dict[tuple[str, int], Record] = {}
        for record in records[trace]:
            client, own = place[record.row]
            of_channel[client, own.sample] = record
            step, batch, value = expected[channel, client, own.sample]
            assert (record.step, record.batch) == (step, batch)
            assert torch.equal(record.tensor, value[: own.length])
        assert of_channel.keys() == {(c, s) for (ch, c, s) in expected if ch == channel}
        assert len(records[trace]) == len(of_channel)


@pytest.mark.parametrize(
    "defenses",
    ["none", {"noise": {"scale": 0.5}}, "code", [{"noise": {"scale": 0.5}}, "code"], {"clip": {"noise": 0.3}},
     [{"clip": {"noise": 0.3}}, {"noise": {"scale": 0.5}}]],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(("front", "back"), [(1, 1), (0, 1), (1, 0)])
def test_a_replay_records_what_the_receiver_got_in_the_step_in_which_it_crossed(
    small_scenario: scenario.Scenario, private: PrivateData, defenses: object, front: int, back: int
) -> None:
    """``clip`` draws by Poisson: some steps are empty, some samples are never drawn, others twice."""
    live: list[Crossing] = []
    model, federation = start(
        small_scenario, private, defenses, live, front=front, back=back, batch_size=2, strategy="fedavg"
    )
    _, states = finish(federation, 1)
    federation.link.recorder = None
    if "clip" in str(defenses):
        assert any(not len(rows) for client in federation.clients for rows in client.plan(1))
    same_as_live(live_rows(live, federation, 1), federation, model, private, states[0])
    assert federation.link.recorder is None


class OneByOne:
    """A task whose loss takes several forward passes: one sample at a time."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, model: Any, prompts: Sequence[Prompt], encoding: Any) -> torch.Tensor:
        return torch.stack([self._task.loss(model, [prompt], encoding) for prompt in prompts]).mean()


@pytest.mark.parametrize("defenses", ["none", {"noise": {"scale": 0.5}}], ids=str)
@pytest.mark.parametrize(("front", "back"), [(1, 1), (0, 1), (1, 0)])
def test_taps_count_steps_and_not_forward_passes(
    small_scenario: scenario.Scenario, private: PrivateData, defenses: object, front: int, back: int
) -> None:
    live: list[Crossing] = []
    model, plain = start(small_scenario, private, defenses, live, front=front, back=back, strategy="fedavg")
    object.__setattr__(model, "task", OneByOne(model.task))
    training = plain.training
    federation = assemble(
        private.samples, model, training, FedAvg(training), seed=1, defenses=plain.guards.composed
    )  # fmt: skip
    federation.link.recorder = plain.link.recorder
    _, states = finish(federation, 1)
    federation.link.recorder = None
    assert max(len(client.plan(1)) for client in federation.clients) > 1
    assert max(crossing.forward for crossing in live) == max(len(r) for c in federation.clients for r in c.plan(1)) - 1
    same_as_live(live_rows(live, federation, 1), federation, model, private, states[0])


@pytest.mark.parametrize("chosen", ["small_scenario", "recformer_scenario"])
def test_requests_are_recorded_as_they_were_received_each_with_noise_of_its_own(
    request: pytest.FixtureRequest, chosen: str
) -> None:
    setting: scenario.Scenario = request.getfixturevalue(chosen)
    own = prepare(setting.data, setting.seed)
    found: dict[str, dict[Trace, list[Record]]] = {}
    for defenses in ("none", "noise", "noise again"):
        entry = defenses if defenses == "none" else {"noise": {"scale": 0.05}}
        model, federation = start(setting, own, entry, strategy="fedavg", dropout=0.0, optimizer="sgd")
        state = federation.state(1)
        history = own.samples["client-0"].history
        prompts = [model.prompts.build(history[row]) for row in (0, 1, 0)]
        records: dict[Trace, list[Record]] = defaultdict(list)
        requests = {"client-0": list(enumerate(prompts))}

        def keep(trace: Trace, record: Record, into: dict[Trace, list[Record]] = records) -> None:
            into[trace].append(record)

        received_records(federation, model.parts, state, requests, keep)
        assert federation.link.recorder is None
        found[defenses] = records
    whole = sorted(served(model, state, requests, 1), key=lambda record: record.row)
    for plain, expected in zip(found["none"][Trace("activation", 1)], whole, strict=True):
        assert (plain.row, plain.client, plain.round, plain.step) == (expected.row, "client-0", 1, -1)
        torch.testing.assert_close(plain.tensor, expected.tensor, rtol=1e-5, atol=1e-6)
    one, _, other = (record.tensor for record in found["noise"][Trace("activation", 1)])
    plain = found["none"][Trace("activation", 1)][0].tensor
    assert not torch.equal(one, other)
    for noisy in (one, other):
        assert 0.03 < float((noisy - plain).std()) < 0.07
    for trace, records in found["noise"].items():
        for record, again in zip(records, found["noise again"][trace], strict=True):
            assert torch.equal(record.tensor, again.tensor)
    assert set(found["noise"]) == {Trace("activation", 1), Trace("activation", model.layers - model.parts.back)}


def test_masks_are_recorded_as_the_server_was_told_them(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    class Longest(Defense):
        """Says of every sequence that it has no padding."""

        acts, channels = frozenset({"wire"}), frozenset({Channel.METADATA})

        def apply(self, crossing: Crossing, turn: Turn) -> dict[str, torch.Tensor]:
            return {n: torch.ones_like(t) if n == "mask" else t for n, t in crossing.tensors.items()}

    class Same(Longest):
        def apply(self, crossing: Crossing, turn: Turn) -> dict[str, torch.Tensor]:
            return dict(crossing.tensors)

    def masks(defense: Defense) -> tuple[list[Record], list[Record]]:
        model, federation = start(small_scenario, private, Composed("x", (defense,), ("x",)), batch_size=5)
        watched = watch_all(federation, model, private)
        plans = {client.name: client.plan(1) for client in federation.clients}
        plain = sorted(mask_records(plans, 1, watched), key=lambda record: record.row)
        found = received_masks(federation, federation.state(1), watched)
        return sorted(found, key=lambda record: record.row), plain

    found, plain = masks(Same())
    for one, other in zip(found, plain, strict=True):
        assert (one.row, one.client, one.round, one.step, one.batch) == (
            other.row, other.client, other.round, other.step, other.batch,
        )  # fmt: skip
        assert torch.equal(one.tensor, other.tensor)
    found, plain = masks(Longest())
    steps: dict[tuple[str, int], set[int]] = defaultdict(set)
    for one in found:
        steps[one.client, one.step].add(len(one.tensor))
    assert all(len(lengths) == 1 for lengths in steps.values())
    assert sum(len(one.tensor) for one in found) > sum(len(other.tensor) for other in plain)

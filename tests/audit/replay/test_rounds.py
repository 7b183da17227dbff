"""One training gives the views of what crosses once a round at every cut, bit for bit as a link at that cut had it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.replay.rounds import RoundViews
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.data.prepare import prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.training.crossings import RoundRecorder
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState, train
from pplr_audit.training.spec import own_training
from tests.audit.knowledge.test_build import changed, federated

PEER = "client-1"


class Reader:
    """The question of an attack, and nothing else."""

    def __init__(self, secret: Any) -> None:
        self.secret = secret


def trained(setting: scenario.Scenario, cut: tuple[int, int]) -> tuple[RoundViews, list[Crossing], list[RoundState]]:
    """Round 1 at a cut: its views, what the link recorded, and the states around it."""
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=cut[0], back=cut[1])})
    setting = changed(setting.model_copy(update={"model": chosen}), adversaries=["server", "peer"], peer=PEER)
    private = prepare(setting.data, setting.seed)
    model = build(setting.model, private.dataset.catalogue, history=3, seed=setting.seed)
    federation = federated(setting, private, model)
    recorder, states = RoundRecorder(federation.link, [1]), [federation.state(1)]
    recorder.begin(1)
    train(federation, 1, done=lambda log, state: states.append(state))
    crossed = recorder.taken()
    files: Any = SimpleNamespace(
        crossings=lambda _: crossed, has_crossings=lambda round_: round_ == 1, has_state=lambda round_: round_ <= 2
    )
    job = Job(setting, private, model, federation, own_training(setting))

    def state(round_: int) -> RoundState:
        return states[round_ - 1]

    return RoundViews(job, files, Rows(job, state), state), crossed, states


@pytest.fixture(scope="module")
def shallow(small_scenario: scenario.Scenario) -> tuple[RoundViews, list[Crossing], list[RoundState]]:
    return trained(small_scenario, (1, 1))


def cell(channel: Channel, cut: tuple[int, int], adversary: str = "server", round_: int = 1) -> Cell:
    level = {"server": "front", "aggregator": "front", "peer": "own"}.get(adversary, "base")
    return Cell("toy", "{}", adversary, level, channel, *cut, round_, "none")


@pytest.mark.parametrize("cut", [(0, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("channel", [Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.PERSONAL_MODEL])
def test_the_view_at_a_cut_is_what_a_link_at_that_cut_recorded(
    small_scenario: scenario.Scenario, shallow: tuple[RoundViews, list[Crossing], list[RoundState]],
    channel: Channel, cut: tuple[int, int],
) -> None:  # fmt: skip
    views, _, _ = shallow
    _, live, _ = trained(small_scenario, cut)
    if channel == Channel.TRUNK_UPDATE and cut == (3, 0):
        return  # there is no trunk, and the plan asks for no such cell
    seen = {each.client: each.tensors for each in views.view(cell(channel, cut), Reader("items")).records}  # type: ignore
    recorded = {each.client: each.tensors for each in live if each.channel == channel}
    assert seen.keys() == recorded.keys()
    for client, tensors in recorded.items():
        assert seen[client].keys() == tensors.keys()
        assert all(torch.equal(seen[client][name], tensor) for name, tensor in tensors.items())


def test_the_sum_is_each_update_times_its_clients_samples(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]],
) -> None:
    views, crossed, _ = shallow
    (of_all,) = views.view(cell(Channel.AGGREGATE, (1, 1)), Reader("items")).records
    samples = {name: len(own) for name, own in views._job.private.samples.items()}
    updates = {each.client: each.tensors for each in crossed if each.channel == Channel.CLIENT_UPDATE}
    for name, tensor in of_all.tensors.items():
        by_hand = sum(samples[client] * update[name].double() for client, update in updates.items())
        assert torch.allclose(tensor, by_hand, rtol=1e-12, atol=0)
    assert of_all.clients == tuple(sorted(updates))


def test_each_adversary_has_the_start_as_far_as_it_was_given_it(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]],
) -> None:
    views, crossed, states = shallow
    whole = set(states[0].adapters[PEER])
    held = next(set(each.tensors) for each in crossed if each.channel == Channel.CLIENT_UPDATE)

    def starts(channel: Channel, adversary: str, secret: str = "items") -> set[str]:
        return set(views.view(cell(channel, (1, 1), adversary), Reader(secret)).records[0].start)

    assert starts(Channel.CLIENT_UPDATE, "server") == whole
    assert starts(Channel.CLIENT_UPDATE, "aggregator") == held
    assert starts(Channel.TRUNK_UPDATE, "trunk_host") == whole - held
    assert starts(Channel.CLIENT_UPDATE, "server", "owner") == set(), "it would name the client"
    (own,) = views.view(cell(Channel.PERSONAL_MODEL, (1, 1), "peer"), Reader("items")).records
    update = next(c.tensors for c in crossed if (c.channel, c.client) == (Channel.CLIENT_UPDATE, PEER))
    assert own.client == PEER
    assert set(own.start) == held
    before_mixing = {name: states[0].adapters[PEER][name] - update[name] for name in held}
    assert all(torch.equal(own.start[name], value) for name, value in before_mixing.items())


def test_no_update_names_its_client_where_that_is_the_question(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]],
) -> None:
    view = shallow[0].view(cell(Channel.CLIENT_UPDATE, (1, 1)), Reader("owner"))
    assert {each.client for each in view.records} == set(view.asked.values()) == {""}


def test_a_round_of_which_nothing_was_stored_is_said_so(
    shallow: tuple[RoundViews, list[Crossing], list[RoundState]], tmp_path: Path
) -> None:
    with pytest.raises(NotApplicable, match=r"round 2 was not stored, as audit\.rounds did not name it"):
        shallow[0].view(cell(Channel.CLIENT_UPDATE, (1, 1), round_=2), Reader("items"))

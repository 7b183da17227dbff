"""Whoever is sent the clients' updates has their models at the end of the round, too: the start less the update."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan, make_plan
from pplr_audit.data.prepare import prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.crossings import RoundRecorder
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState, train
from pplr_audit.training.spec import own_training
from tests.audit.knowledge.test_build import changed, federated
from tests.conftest import LAYERS

Ended = dict[str, dict[str, Tensor]]


def exposed(setting: scenario.Scenario, cut: tuple[int, int], scratch: Path) -> tuple[Harness, Plan, RoundState, Ended]:
    """A round trained at a cut: who sees it, its start, and what each client held before the models were mixed."""
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=cut[0], back=cut[1])})
    setting = setting.model_copy(update={"model": chosen})
    private = prepare(setting.data, setting.seed)
    model = build(setting.model, private.dataset.catalogue, history=3, seed=setting.seed)
    federation = federated(setting, private, model)
    recorder, states, ended = RoundRecorder(federation.link, [1]), [federation.state(1)], Ended()
    recorder.begin(1)
    mix = federation.server.balance

    def mixed(*given: Any) -> Any:
        ended.update({client.name: dict(client.shared.adapter) for client in federation.clients})
        return mix(*given)

    federation.server.balance = mixed  # type: ignore[method-assign]
    train(federation, 1, done=lambda log, state: states.append(state))
    crossed = recorder.taken()
    files: Any = SimpleNamespace(
        state=lambda round_: states[round_ - 1], crossings=lambda _: crossed, has_crossings=lambda _: True
    )
    plan = make_plan(setting, LAYERS)
    job = Job(setting, private, model, federation, own_training(setting))
    return Harness(job, files, plan, scratch), plan, states[0], ended


@pytest.mark.parametrize("cut", [(0, 0), (1, 1)])
def test_the_end_of_the_round_is_the_start_less_the_update_at_every_cut_that_ran(
    small_scenario: scenario.Scenario, tmp_path: Path, cut: tuple[int, int]
) -> None:
    setting = changed(small_scenario, adversaries=["server", "trunk_host"], attacks=["ridge", "label_match"])
    harness, plan, start, _ = exposed(setting, cut, tmp_path)
    *_, ended = exposed(setting, (LAYERS, 0), tmp_path)  # where all of the adapter is the client's
    seen = set()
    for cell in plan.cells:
        (knowledge,) = harness.knowledge(cell)
        trains = cell.adversary == "server" and cell.channel != Channel.INFERENCE_ACTIVATIONS
        seen.add((cell.adversary, cell.channel))
        assert set(knowledge.ends) == ({(client, 1) for client in ended} if trains else set())
        for client, true in ended.items() if trains else ():
            copies = knowledge.copies_of(client, 1)
            assert [*copies] == ["start", "end"]
            told = copies["end"]._adapter  # type: ignore[attr-defined]
            assert told.keys() == true.keys()
            assert all(torch.allclose(told[name], value, atol=1e-6) for name, value in true.items())
            assert any(not torch.allclose(told[n], value, atol=1e-3) for n, value in start.adapters[client].items())
    assert ("server", Channel.BACK_GRADIENTS) in seen
    assert ("trunk_host", Channel.FRONT_ACTIVATIONS) in seen

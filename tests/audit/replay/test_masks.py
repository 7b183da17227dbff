"""The masks that attacks are shown are those that a live link carried, of the same rows in the same steps."""

import pytest
import torch

from pplr_audit import scenario
from pplr_audit.audit.replay.records import mask_records
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.link import Wire
from pplr_audit.training.rounds import assemble, train
from pplr_audit.training.strategies.pplr import Pplr
from tests.audit.replay.watching import recorded, same_as_recorded


@pytest.mark.parametrize("recommender", ["bigrec", "recformer"])
def test_masks_are_those_of_a_live_link(
    small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario, recommender: str
) -> None:
    setting = small_scenario if recommender == "bigrec" else recformer_scenario
    private: PrivateData = prepare(setting.data, setting.seed)
    model = build(setting.model, private.dataset.catalogue, history=setting.data.history, seed=setting.seed)
    live = []
    federation = assemble(
        private.samples, model, setting.training, Pplr(setting.training),
        seed=setting.seed, wire=Wire(recorder=live.append),
    )  # fmt: skip
    train(federation, 1, done=lambda log, state: None)
    watched, expected = recorded(live, federation, model, private.samples, Channel.METADATA, 1)
    plans = {client.name: client.plan(1) for client in federation.clients}
    records = mask_records(plans, 1, watched)
    same_as_recorded(records, {row: (step, rows, mask.float()) for row, (step, rows, mask) in expected.items()})
    assert all(bool(torch.ones_like(mask).equal(mask)) for _, _, mask in expected.values())

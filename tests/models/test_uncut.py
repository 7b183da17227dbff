"""The uncut model: of the base model no adapter is computed, and every number is the one that it had."""

from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import Recommender, build


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(small_scenario.model, small_market.catalogue, history=3, seed=small_scenario.seed)


def test_the_base_model_runs_without_lora_and_says_the_same_to_the_last_bit(
    model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [model.prompts.build(np.array(items), 9) for items in ([1, 2, 3], [4], [5, 6])]
    whole, ran = model.whole, []
    inner = Linear.forward

    def counted(layer: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append(layer.disable_adapters)
        return inner(layer, *args, **kwargs)

    monkeypatch.setattr(Linear, "forward", counted)
    base, states = whole.log_probs(prompts, None), dict(whole.states(prompts, [0, 1, 2], None))
    assert ran
    assert all(ran), "no adapter was computed"
    ran.clear()
    start = model.initial
    with_lora, as_lora = whole.log_probs(prompts, start), dict(whole.states(prompts, [0, 1, 2], start))
    assert ran
    assert not any(ran)
    for one, other in zip(base, with_lora, strict=True):
        assert np.array_equal(one, other)
    for place, layers in states.items():
        assert all(torch.equal(hidden, as_lora[place][layer]) for layer, hidden in layers.items())
    assert all(p.requires_grad for n, p in whole.model.named_parameters() if ".lora_" in n), "left as it was"

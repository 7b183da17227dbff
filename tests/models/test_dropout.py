"""The rate of dropout that a scenario states is that of every layer of every architecture."""

from typing import Any

import pytest
import torch
from transformers import AutoModel

from pplr_audit.models.architectures import architecture, blocks
from pplr_audit.models.backbones.load import set_dropout
from pplr_audit.models.cut import _draws
from pplr_audit.training.costs.formulas import attention_dropout
from tests.models.architectures import CONFIGS, VOCABULARY, WITHOUT_DROPOUT, build, config

TOKENS = torch.randint(3, VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(3))


def twice(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (model(input_ids=TOKENS).last_hidden_state.detach() for _ in range(2))
    return first, second


@pytest.mark.parametrize("name", CONFIGS)
def test_at_zero_nothing_is_random_in_training(name: str) -> None:
    model = build(AutoModel, config(name)).train()
    assert not torch.equal(*twice(model)), "as the backbone has it"
    set_dropout(model, 0.0)
    first, second = twice(model)
    assert torch.equal(first, second)
    assert torch.equal(first, model.eval()(input_ids=TOKENS).last_hidden_state)
    assert not _draws(model)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_switched_on_where_the_backbone_has_none(name: str) -> None:
    model = build(AutoModel, config(name, dropout=False)).train()
    assert torch.equal(*twice(model))
    set_dropout(model, 0.3)
    assert not torch.equal(*twice(model))
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    rates |= {module.attention_dropout for module in model.modules() if hasattr(module, "attention_dropout")}
    assert {float(getattr(rate, "p", rate)) for rate in rates} == {0.3}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_says_what_the_layers_do(name: str) -> None:
    """What is rebuilt from it, such as the model that costs are computed from, drops out alike."""
    model = build(AutoModel, config(name))
    set_dropout(model, 0.0)
    assert torch.equal(*twice(build(AutoModel, model.config).train()))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_rate_that_the_config_writes_as_a_whole_number_is_a_rate(name: str) -> None:
    whole_numbers = {field: 0 for field in WITHOUT_DROPOUT if hasattr(config(name), field)}
    model = build(AutoModel, config(name, **whole_numbers)).train()
    assert torch.equal(*twice(model))
    set_dropout(model, 0.3)
    for block in blocks(model):
        assert attention_dropout(block, architecture(model).products) == 0.3
    assert not torch.equal(*twice(model))

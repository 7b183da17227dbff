"""What a cut is said to cost, for every architecture, against a model that is really cut and run."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pplr_audit.models.architectures import architecture
from pplr_audit.models.backbones.transformers_api import from_config
from pplr_audit.models.cut import cut, positions
from pplr_audit.models.lora import add_lora
from pplr_audit.models.precision import Precision, choose_attention, compute_in
from pplr_audit.scenario.schema import Lora
from pplr_audit.training.costs.flops import counter
from pplr_audit.training.costs.formulas import Workload, all_cuts, cost_rows, meta_model, rows_of
from tests.models.architectures import CONFIGS, ENCODERS, LAYERS, VOCABULARY, config

T, BATCH = 24, 3
CUTS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (0, 3)]
TARGETS: dict[str, list[tuple[str, ...] | None]] = {
    "gpt2": [None, ("c_proj",), ("c_fc",)],
    **{name: [None, ("key",), ("dense",)] for name in ENCODERS},
}
LLAMA_TARGETS: list[tuple[str, ...] | None] = [None, ("o_proj", "up_proj"), ("down_proj",)]
CASES = [(name, targets) for name in CONFIGS for targets in TARGETS.get(name.split(",")[0], LLAMA_TARGETS)]


class Passing:
    """A far side that does no arithmetic, and whose output needs a gradient, as the real one's does."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden + torch.zeros((), requires_grad=True)


def adapted(settings: Any, lora: Lora) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = from_config(settings)
    model.requires_grad_(False)
    add_lora(model, lora, 0)
    return model


def counted(settings: Any, lora: Lora, front: int, back: int, precision: Precision = "float32") -> tuple[float, float]:
    """FLOP a token of the client of a real model, as torch counts them: of a forward pass, and of a whole step."""
    model = adapted(settings, lora)
    choose_attention(model, precision)
    parts = cut(model, front, back)
    if parts.trunk is not None:
        compute_in(parts.trunk, precision)
    compute_in(parts.client, precision)
    if parts.proxy is not None:
        parts.proxy.endpoint = Passing()  # type: ignore[assignment]
    mask = torch.ones(BATCH, T, dtype=torch.long)
    asked: dict[str, Any] = {"input_ids": torch.randint(3, VOCABULARY, (BATCH, T)), "attention_mask": mask}
    if architecture(parts.client).causal:
        asked |= {"position_ids": positions(mask), "use_cache": False}
    with counter() as counts:
        out = parts.client(**asked)[0]
        forward = counts.get_total_flops()
        out.sum().backward()
    return forward / (BATCH * T), counts.get_total_flops() / (BATCH * T)


@pytest.mark.parametrize(("name", "targets"), CASES)
def test_flops_are_those_that_torch_counts(name: str, targets: tuple[str, ...] | None) -> None:
    settings, lora = config(name, dropout=False), Lora(rank=2, targets=targets)
    rows = cost_rows(settings, lora, CUTS, Workload(samples=10, tokens_per_sample=T))
    for place, computed in zip(CUTS, rows, strict=True):
        found = computed["client_flops_per_token"], computed["training_flops_per_token"]
        assert found == counted(settings, lora, *place), place


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_in_bfloat16_are_those_of_plain_attention(name: str) -> None:
    settings, lora = config(name, dropout=False), Lora(rank=2)
    work = Workload(samples=10, tokens_per_sample=T)
    cuts = [(0, 1), (1, 1), (0, 3)]
    rows = rows_of(meta_model(settings, lora, precision="bfloat16"), cuts, work)
    for place, computed, former in zip(cuts, rows, cost_rows(settings, lora, cuts, work), strict=True):
        found = computed["client_flops_per_token"], computed["training_flops_per_token"]
        assert found == counted(settings, lora, *place, precision="bfloat16"), place
        assert computed["client_flops_per_token"] == former["client_flops_per_token"]
        # The kernel computes the scores again; where the client has no block behind the trunk it may not come to that.
        assert computed["training_flops_per_token"] <= former["training_flops_per_token"], place
    assert computed["training_flops_per_token"] < former["training_flops_per_token"]


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_with_dropout_are_those_that_torch_counts(name: str) -> None:
    settings, lora = config(name), Lora(rank=2, dropout=0.1)
    computed = cost_rows(settings, lora, [(1, 1)], Workload(samples=10, tokens_per_sample=T))[0]
    assert computed["training_flops_per_token"] == counted(settings, lora, 1, 1)[1]


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_a_model_that_is_really_cut(name: str) -> None:
    settings, lora = config(name), Lora(rank=2)
    whole = sum(p.numel() for p in adapted(settings, lora).parameters())
    for computed in cost_rows(settings, lora, all_cuts(LAYERS), Workload(samples=10, tokens_per_sample=T)):
        place = computed["cut"]["front"], computed["cut"]["back"]
        held = sum(p.numel() for p in cut(adapted(settings, lora), *place).client.parameters())
        assert computed["client_parameters"] == held, place
        assert computed["client_share"] == held / whole
        assert (computed["client_share"] == 1) == (sum(place) == LAYERS)

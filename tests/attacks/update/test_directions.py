"""Directions of updates: in the span of what entered, without what decay did, and a reason where there are none."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from pplr_audit.attacks.update.directions import Directions, descent, directions
from pplr_audit.models.uncut import UncutModel
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.recipe import LocalSteps, Recipe
from tests.models.architectures import build, config
from tests.models.test_linears import PROMPTS, Words, uncut

RECIPE = Recipe("pplr", 1, 1, 8, "sgd", 0.1, 0.0, "constant", 0.0, "factors")


def stepped(whole: UncutModel, start: dict[str, Tensor], steps: int, decay: float = 0.0) -> dict[str, Tensor]:
    def sgd(parameters: list[Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=RECIPE.learning_rate, weight_decay=decay)

    return whole.trained([PROMPTS] * steps, start, {}, sgd, [1.0] * steps)


def outside(found: Directions, whole: UncutModel, start: dict[str, Tensor]) -> float:
    """The share of the rows that lies outside of the span of what entered."""
    seen = [tensors[found.shares] for _, tensors in whole.entering(PROMPTS, [found.shares], start)]
    span = found.placed(torch.cat(seen).double())
    left = found.rows.T - span.T @ torch.linalg.lstsq(span.T, found.rows.T, driver="gelsd").solution
    return float(left.norm() / found.rows.norm())


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_layers_with_one_input_are_put_together_and_their_rows_lie_in_its_span(name: str) -> None:
    whole = uncut(name)
    found = directions(stepped(whole, whole.initial, 1), whole.linears, whole.initial)
    assert len(found) == len({linear.shares for linear in whole.linears.values()})
    for each in found:
        assert len(each.rows) == 3 * len(each.layers)
        assert float(each.rows.norm()) == pytest.approx(len(each.layers) ** 0.5)
        assert each.through is None
        assert each.block == whole.linears[each.shares].block
        if each.block == 0 and len(each.layers) > 1:  # what enters later layers changes within a round
            assert outside(each, whole, whole.initial) < 1e-4


def test_several_steps_of_sgd_stay_in_the_span_of_the_first_layers_inputs() -> None:
    whole = uncut("llama")
    first, *_ = directions(stepped(whole, whole.initial, 4), whole.linears, whole.initial)
    assert outside(first, whole, whole.initial) < 1e-4


def test_as_long_as_b_is_zero_it_speaks_alone_through_a() -> None:
    whole = uncut("llama")
    start = {name: torch.zeros_like(t) if ".lora_B." in name else t for name, t in whole.initial.items()}
    update = stepped(whole, start, 1)
    assert not any(update[linear.lora_a].any() for linear in whole.linears.values())
    found = directions(update, whole.linears, start)
    assert {len(each.layers) for each in found} == {1}
    for each in found[:3]:
        assert each.through is not None
        assert each.rows.shape[1] == 3
        assert outside(each, whole, start) < 1e-4
    with pytest.raises(NotApplicable, match="LoRA's B was zero at the start"):
        directions({name: t for name, t in update.items() if ".lora_A." in name}, whole.linears, start)


@pytest.mark.parametrize(
    ("kind", "a_speaks"), [(True, False), ("gaussian", False), (False, True), ("pissa", True), ("olora", True)]
)
def test_the_adapter_says_if_a_speaks_in_the_first_step_whatever_it_was_started_by(kind: Any, a_speaks: bool) -> None:
    """The library's own starts: B is zero in two of them, random in one, and of the weights' own directions in two."""
    model = build(AutoModelForCausalLM, config("llama"))
    targets = ["q_proj", "k_proj", "v_proj"]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        inject_adapter_in_model(LoraConfig(r=3, target_modules=targets, init_lora_weights=kind), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    whole = UncutModel(model, Words())  # type: ignore[arg-type]  # no more of a task is asked for here
    moved = stepped(whole, whole.initial, 1)
    first, *_ = directions(moved, whole.linears, whole.initial)
    assert (first.through is None) == a_speaks
    assert first.rows.shape[1] == (whole.linears[first.shares].inputs if a_speaks else 3)
    assert len(first.layers) == (3 if a_speaks else 1)
    assert outside(first, whole, whole.initial) < 1e-4
    if a_speaks:  # B's few dimensions are all in the span of as many tokens
        assert outside(replace(first, rows=first.rows.roll(1, dims=1)), whole, whole.initial) > 0.1, "not by chance"


def test_an_update_that_says_nothing_is_told_with_its_reason() -> None:
    whole = uncut("llama")
    zero = {name: torch.zeros_like(t) for name, t in whole.initial.items()}
    assert any(whole.initial[linear.lora_b].any() for linear in whole.linears.values())
    with pytest.raises(NotApplicable, match="nothing was learned from any sample"):
        directions(zero, whole.linears, whole.initial)
    with pytest.raises(NotApplicable, match="no linear layer's tensors"):
        directions({"ids.weight": torch.ones(3)}, whole.linears, whole.initial)


def test_weight_decay_is_undone() -> None:
    whole, decay = uncut("llama"), 0.3
    plain, decayed = stepped(whole, whole.initial, 1), stepped(whole, whole.initial, 1, decay)
    known: Any = SimpleNamespace(
        recipe=replace(RECIPE, weight_decay=decay), steps={("client-1", 1): LocalSteps(2, (1.0,))}
    )
    found = descent(decayed, whole.initial, known, "client-1", 1)
    moved = 0.0
    for name, value in plain.items():
        assert torch.allclose(found[name], value.double(), atol=1e-7)
        moved = max(moved, float((decayed[name] - value).abs().max()))
    assert moved > 1e-3, "without it they differ"
    assert torch.equal(descent(decayed, {}, known, "client-1", 1)[name], decayed[name].double()), "start not known"

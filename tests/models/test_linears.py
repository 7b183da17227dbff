"""The trained linear layers of every architecture: what enters them, and gradients in the span of that."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from pplr_audit import scenario
from pplr_audit.data.prompts import Prompt, collate
from pplr_audit.models.lora import adapter_parameters, add_lora
from pplr_audit.models.uncut import UncutModel
from tests.models.architectures import CONFIGS, ENCODERS, LAYERS, VOCABULARY, build, config


class Words:
    """Reads tokens and has a loss that depends on all of them."""

    fixed = True

    def __init__(self) -> None:
        self.base_encoding: dict[str, Tensor] = {}

    def inputs(self, model: Any, prompts: Sequence[Prompt], *, serving: bool) -> dict[str, Tensor]:
        del model, serving
        batch = collate(prompts, 2)
        return {"input_ids": torch.from_numpy(batch.tokens), "attention_mask": torch.from_numpy(batch.mask)}

    def loss(self, model: Any, prompts: Sequence[Prompt], encoding: Any) -> Tensor:
        del encoding
        given = self.inputs(model, prompts, serving=False)
        out = model(**given)[0]
        weights = torch.linspace(-1, 1, out.shape[-1])
        loss: Tensor = ((out * weights).sum(-1).tanh() * given["attention_mask"]).sum() / len(prompts)
        return loss

    def logits(self, model: Any, like: Tensor, encoding: Any) -> Tensor:
        del encoding
        kind = model.config.model_type in ENCODERS
        places = {} if kind else {"position_ids": torch.arange(like.shape[1])[None], "use_cache": False}
        out: Tensor = model(inputs_embeds=torch.zeros_like(like), attention_mask=torch.ones(like.shape[:2]), **places)[
            0
        ]
        return out


def prompt(tokens: Sequence[int]) -> Prompt:
    nothing = np.zeros(len(tokens), dtype=np.int64)
    return Prompt(np.array(tokens), nothing - 1, np.array([], dtype=np.int64), len(tokens), nothing)


def uncut(name: str) -> UncutModel:
    """A small model with LoRA on every linear layer, whose B is not zero any more."""
    model = build(AutoModel if name in ENCODERS else AutoModelForCausalLM, config(name))
    add_lora(model, scenario.Lora(rank=3, targets="all"), 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in adapter_parameters(model).values():
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return UncutModel(model, Words())  # type: ignore[arg-type]  # no more of a task is asked for here


PROMPTS = [prompt([5, 9, 11, 30, 7]), prompt([8, 60, 21])]


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_a_layer_lie_in_the_span_of_what_enters_it(name: str) -> None:
    whole = uncut(name)
    entered: dict[str, list[Tensor]] = {}
    for _, seen in whole.entering(PROMPTS, [*whole.linears], whole.initial):
        for module, tensor in seen.items():
            entered.setdefault(module, []).append(tensor)
    gradients = whole.gradients(PROMPTS, whole.initial, {})
    assert gradients.keys() == whole.initial.keys()
    found = 0
    for linear in whole.linears.values():
        inputs = torch.cat(entered[linear.name]).double()
        assert inputs.shape == (8, linear.inputs)
        through = inputs @ whole.initial[linear.lora_a].double().T  # A x
        for gradient, span in ((gradients[linear.lora_a], inputs), (gradients[linear.lora_b], through)):
            rows = gradient.double()
            if rows.norm() < 1e-9:
                continue  # the last block of an encoder that is read at its first token, say
            left = rows.T - span.T @ torch.linalg.lstsq(span.T, rows.T, driver="gelsd").solution
            assert left.norm() < 1e-4 * rows.norm(), linear.name
            found += 1
    assert found > 2 * len(whole.linears) - 4


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_that_read_one_tensor_are_told_and_lie_in_their_block(name: str) -> None:
    whole = uncut(name)
    groups: dict[str, list[str]] = {}
    for linear in whole.linears.values():
        assert f".{linear.block}." in linear.name
        assert whole.initial[linear.lora_a].shape == (3, linear.inputs)
        assert whole.initial[linear.lora_b].shape == (linear.outputs, 3)
        groups.setdefault(linear.shares, []).append(linear.name.rsplit(".", 1)[-1])
    assert {linear.block for linear in whole.linears.values()} == set(range(LAYERS))
    (_, seen), *_ = whole.entering(PROMPTS[:1], [*whole.linears], whole.initial)
    for linear in whole.linears.values():
        assert torch.equal(seen[linear.name], seen[linear.shares])
    together = {frozenset(group) for group in groups.values() if len(group) > 1}
    if name.startswith("gpt2"):
        assert not together, "one fused layer reads for queries, keys and values"
        assert all(linear.transposed for linear in whole.linears.values())
    elif name in ENCODERS:
        assert together == {frozenset({"query", "key", "value"})}
    else:
        assert together == {frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"})}


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("name", CONFIGS)
def test_what_enters_a_layer_follows_from_what_enters_its_block(name: str, layer: int) -> None:
    whole = uncut(name)
    names = [linear.name for linear in whole.linears.values() if linear.block == layer]
    ((_, states),) = whole.states(PROMPTS[:1], [layer], whole.initial)
    ((_, seen),) = whole.entering(PROMPTS[:1], names, whole.initial)
    again = whole.entering_from(layer, states[layer][None], names, whole.initial)
    for module in names:
        assert torch.allclose(again[module][0], seen[module], atol=1e-5), module


def test_a_pass_ends_where_the_last_layer_that_was_named_is_reached() -> None:
    whole, ran = uncut("llama"), list[int]()
    for place, block in enumerate(whole.model.model.layers):
        block.register_forward_pre_hook(lambda *_, place=place: ran.append(place))
    list(whole.entering(PROMPTS, ["model.layers.0.self_attn.q_proj"], None))
    assert ran == [0]
    assert whole.embeddings.shape[0] == VOCABULARY


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_at_embeddings_are_those_of_the_tokens_and_have_a_derivative(name: str) -> None:
    whole = uncut(name)
    plain = whole.gradients(PROMPTS, whole.initial, {})
    embedded = [whole.embeddings[torch.from_numpy(each.tokens)].clone().requires_grad_() for each in PROMPTS]
    found = whole.gradients_at(PROMPTS, embedded, whole.initial, {})
    for key, value in plain.items():
        assert torch.allclose(found[key], value, atol=1e-5 + 1e-3 * float(value.abs().max())), key
    total = sum(value.double().square().sum() for value in found.values())
    (slope, _) = torch.autograd.grad(total, embedded)
    step = 1e-3 * slope / slope.norm()
    moved = whole.gradients_at(PROMPTS, [embedded[0].detach() + step, embedded[1]], whole.initial, {})
    back = whole.gradients_at(PROMPTS, [embedded[0].detach() - step, embedded[1]], whole.initial, {})
    apart = {key: moved[key].detach().double().square() - back[key].detach().double().square() for key in moved}
    rise = sum(float(each.sum()) for each in apart.values()) / 2
    assert rise == pytest.approx(1e-3 * float(slope.norm()), rel=0.05)

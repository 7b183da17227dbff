"""What a cut is said to take of a client's memory, against tensors that a real client really holds.

Measured on the CPU, by storage: what autograd keeps by torch's saved-tensor hooks, what is alive by a dispatch mode.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import architecture, blocks
from pplr_audit.models.backbones.transformers_api import from_config
from pplr_audit.models.cut import CutModel, cut, positions
from pplr_audit.models.lora import add_lora
from pplr_audit.models.recommenders.bigrec import answer_loss, read_once
from pplr_audit.scenario.schema import Lora
from pplr_audit.training.costs.activations import Live
from pplr_audit.training.costs.formulas import all_cuts, meta_model
from pplr_audit.training.costs.memory import Held, memory_rows
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Stretch
from tests.models.architectures import CAUSAL, CONFIGS, LAYERS, VOCABULARY, WINDOW, config

BATCH, T = 3, 24
CUTS = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 1), (0, 3)]
LORA = Lora(rank=2)


class Passing:
    """A far side that does no arithmetic and keeps nothing, and whose output needs a gradient, as the real one's."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden + torch.zeros((), dtype=hidden.dtype, requires_grad=True)

    def open(self) -> "Passing":
        return self

    def reorder(self, beams: Tensor) -> None: ...


def part(settings: Any, lora: Lora, place: tuple[int, int], dtype: torch.dtype = torch.float32) -> CutModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = from_config(settings)
    model.requires_grad_(False)
    add_lora(model, lora, 0)
    parts = cut(model.to(dtype), *place)
    if parts.proxy is not None:
        parts.proxy.endpoint = Passing()
    return parts


def loss_of(parts: CutModel) -> Tensor:
    """A step's loss on a batch with padding, as `Client` computes it."""
    mask = torch.ones(BATCH, T, dtype=torch.long)
    mask[0, -3:] = 0
    asked: dict[str, Any] = {"input_ids": torch.randint(3, VOCABULARY, (BATCH, T)), "attention_mask": mask}
    if not architecture(parts.client).causal:
        total: Tensor = parts.client(**asked).last_hidden_state.sum()
        return total
    logits = parts.client(**asked, position_ids=positions(mask), use_cache=False).logits
    return answer_loss(logits, asked["input_ids"], mask)


def kept(parts: CutModel) -> int:
    """Bytes that autograd keeps of a step, each storage once, without parameters and buffers."""
    own = {t.untyped_storage()._cdata for t in (*parts.client.parameters(), *parts.client.buffers())}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage()._cdata] = tensor
        return tensor

    parts.client.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(parts)
    return sum(tensor.untyped_storage().nbytes() for number, tensor in found.items() if number not in own)


def rows(settings: Any, lora: Lora, cuts: Any, held: Held, dtype: torch.dtype = torch.float32) -> list[dict[str, int]]:
    return memory_rows(meta_model(settings, lora, dtype), cuts, held)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_those_that_autograd_keeps(name: str, dropout: bool) -> None:
    settings, lora = config(name, dropout=dropout), Lora(rank=2, dropout=0.1 * dropout)
    for place, row in zip(CUTS, rows(settings, lora, CUTS, Held(BATCH, T)), strict=True):
        assert row["activation_bytes"] == kept(part(settings, lora, place)), place


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_activations_in_bfloat16_are_those_that_autograd_keeps_within_2_percent(name: str) -> None:
    # Not exactly: of a LayerNorm's mean and deviation the CPU keeps bfloat16, GPUs and the meta device float32.
    settings = config(name, dropout=False)
    for place, row in zip(CUTS, rows(settings, LORA, CUTS, Held(BATCH, T), torch.bfloat16), strict=True):
        measured = kept(part(settings, LORA, place, torch.bfloat16))
        assert row["activation_bytes"] == pytest.approx(measured, rel=0.02), place


@pytest.mark.parametrize("targets", [("k_proj",), ("o_proj", "up_proj"), ("down_proj",), ("gate_proj", "q_proj")])
def test_activations_follow_the_targets_of_the_adapter(targets: tuple[str, ...]) -> None:
    settings, lora = config("llama", dropout=False), Lora(rank=2, targets=targets)
    for place, row in zip(CUTS, rows(settings, lora, CUTS, Held(BATCH, T)), strict=True):
        assert row["activation_bytes"] == kept(part(settings, lora, place)), place


def test_a_block_of_llama_keeps_what_the_documented_formula_says() -> None:
    settings = config("llama", dropout=False)
    one, two = (row["activation_bytes"] for row in rows(settings, LORA, [(1, 0), (2, 0)], Held(BATCH, T)))
    hidden, attention, inner, rank, heads = 32, 32, 48, 2, 4
    values = 3 * hidden + 4 * attention + 3 * inner + 2 * rank + 2 + heads + T
    assert two - one == 4 * BATCH * T * values


def test_the_matrix_of_scores_is_kept_with_dropout_alone() -> None:
    for dropout, scores in ((False, 0), (True, 1)):
        settings = config("gpt2", dropout=dropout)
        short, long = (rows(settings, LORA, [(1, 0), (2, 0)], Held(1, t)) for t in (32, 64))
        per_position = [(r[1]["activation_bytes"] - r[0]["activation_bytes"]) / t for r, t in ((short, 32), (long, 64))]
        # The mask alone is one number a pair of positions; scores are some for each of 4 heads.
        grows = (per_position[1] - per_position[0]) / 32 / 4
        assert (grows > 4) == bool(scores), grows


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_peak_of_a_step_is_the_measured_one_within_3_percent(name: str, dropout: bool) -> None:
    # Not exactly: at which moment most is alive depends on where backward steps free what they have used.
    settings, lora = config(name, dropout=dropout), Lora(rank=2, dropout=0.1 * dropout)
    cuts = [(0, 0), (0, 1), (2, 1)]
    for place, row in zip(cuts, rows(settings, lora, cuts, Held(BATCH, T)), strict=True):
        parts = part(settings, lora, place)
        parts.client.train()
        with Live() as live:
            loss = loss_of(parts)
            if loss.requires_grad:
                loss.backward()
        said = row["activation_bytes"] + row["working_bytes"]
        assert said == pytest.approx(live.peak, rel=0.03), place


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weights_adapter_gradients_and_moments_are_those_of_a_real_client(optimizer: Any) -> None:
    settings, held = config("llama, tied", dropout=False), Held(BATCH, T, optimizer)
    for place, row in zip(all_cuts(LAYERS), rows(settings, LORA, all_cuts(LAYERS), held), strict=True):
        parts = part(settings, LORA, place)
        frozen = [p for p in parts.client.parameters() if not p.requires_grad]
        trained = list(parts.client_parameters.values())
        assert row["weight_bytes"] == sum(p.nbytes for p in frozen)
        assert row["adapter_bytes"] == sum(p.nbytes for p in trained)
        if not trained:
            assert row["gradient_bytes"] == row["optimizer_bytes"] == 0
            continue
        loss_of(parts).backward()
        assert row["gradient_bytes"] == sum(p.grad.nbytes for p in trained if p.grad is not None)
        training = scenario.Training(optimizer=optimizer)
        local = LocalOptimizer(parts.client_parameters, training, Stretch(0, 1), OptimizerState())
        local.step()
        assert row["optimizer_bytes"] == sum(moment.nbytes for moment in local.state().moments.values())
        parts_of_it = ("weight", "adapter", "gradient", "optimizer", "activation", "working")
        assert row["training_memory_bytes"] == sum(row[f"{name}_bytes"] for name in parts_of_it)


def generated(parts: CutModel, prompt: int, new: int, beams: int) -> Any:
    """A request of ``prompt`` tokens, the first of them padding, as it is served."""
    parts.client.eval()
    mask = torch.ones(1, prompt, dtype=torch.long)
    mask[0, 0] = 0
    settings = GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, num_beams=beams, do_sample=False, eos_token_id=1, pad_token_id=2,
        return_dict_in_generate=True,
    )  # fmt: skip
    with torch.no_grad():
        tokens = torch.randint(3, VOCABULARY, (1, prompt))
        held = read_once(parts.client, tokens, mask, beams)
        return parts.client.generate(input_ids=tokens, attention_mask=mask, generation_config=settings, **held)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", CAUSAL)
def test_the_cache_is_the_one_that_a_generation_leaves_with_the_client(name: str, beams: int) -> None:
    settings, prompt, new = config(name, dropout=False), WINDOW + 9, 5
    held = Held(BATCH, T, prompt_tokens=prompt, generated_tokens=new, beams=beams)
    cuts = [(1, 1), (2, 0), (0, 2)]
    for place, row in zip(cuts, rows(settings, LORA, cuts, held), strict=True):
        parts = part(settings, LORA, place)
        cache = generated(parts, prompt, new, beams).past_key_values
        found = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None and layer.keys.numel()]
        assert len(found) == len(blocks(parts.client)) - 1
        assert row["cache_bytes"] == sum(layer.keys.nbytes + layer.values.nbytes for layer in found)


@pytest.mark.parametrize("name", ["llama", "mistral, sliding", "qwen3, sliding", "gemma", "gpt2"])
def test_the_peak_of_a_request_is_the_measured_one_within_10_percent(name: str) -> None:
    # Not exactly: a block's cache is there twice while it grows, and the search over beams keeps books of its own.
    settings, prompt, new, cuts = config(name, dropout=False), 40, 5, [(1, 1), (2, 0)]
    for beams in (1, 4):
        held = Held(BATCH, T, prompt_tokens=prompt, generated_tokens=new, beams=beams)
        for place, row in zip(cuts, rows(settings, LORA, cuts, held), strict=True):
            parts = part(settings, LORA, place)
            with Live() as live:
                generated(parts, prompt, new, beams)
            said = row["serving_memory_bytes"] - row["weight_bytes"] - row["adapter_bytes"]
            assert said == pytest.approx(live.peak, rel=0.1), place


def test_an_encoder_serves_without_a_cache() -> None:
    held = Held(BATCH, T, prompt_tokens=T)
    for row in rows(config("bert"), LORA, CUTS, held):
        assert row["cache_bytes"] == 0
        assert row["serving_memory_bytes"] > row["weight_bytes"] + row["adapter_bytes"]


def test_a_cut_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="front 3 \\+ back 2"):
        rows(config("llama"), LORA, [(3, 2)], Held(BATCH, T))


def test_the_model_that_is_traced_is_left_as_it_was() -> None:
    model = meta_model(config("llama"), LORA)
    names, training = [name for name, _ in model.named_modules()], model.training
    memory_rows(model, [(1, 1)], Held(BATCH, T, prompt_tokens=T, generated_tokens=2))
    assert [name for name, _ in model.named_modules()] == names
    assert model.training == training
    assert all(p.grad is None for p in model.parameters())
    assert not isinstance(torch.utils._python_dispatch._get_current_dispatch_mode(), TorchDispatchMode)


def test_live_counts_what_is_made_and_forgets_what_is_gone() -> None:
    given = torch.zeros(5)
    with Live() as live:
        first = torch.ones(100)
        view = first[10:]
        given.add_(1)
        assert live.now == 400
        second = first + view.sum()
        assert live.now == 800
        del first, view
        assert (live.now, second.shape) == (400, (100,))
    assert live.peak == 804


def test_half_the_precision_takes_half_the_weights_and_less_than_the_whole_activations() -> None:
    held = replace(Held(BATCH, T), prompt_tokens=8, generated_tokens=4)
    full, half = (rows(config("llama", dropout=False), LORA, [(1, 1)], held, d)[0] for d in (torch.float32, torch.half))
    for name in ("weight_bytes", "adapter_bytes", "gradient_bytes", "optimizer_bytes", "cache_bytes"):
        assert full[name] == 2 * half[name] > 0
    assert full["activation_bytes"] / 2 < half["activation_bytes"] < full["activation_bytes"]

"""Each number a cut is said to cost, against something that counts another way."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from pplr_audit.errors import InputError
from pplr_audit.models.cut import CutModel, cut
from pplr_audit.models.lora import add_lora
from pplr_audit.models.recommenders.bigrec import read_once
from pplr_audit.scenario.schema import Lora
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.costs.formulas import Workload, all_cuts, cost_rows
from pplr_audit.training.link import Link

LAYERS, T, BATCH = 4, 24, 3
CUTS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (1, 3), (4, 0), (0, 4)]
TARGETS = [("q_proj", "v_proj"), ("k_proj",), ("o_proj", "up_proj"), ("down_proj",)]


def forward_kernel(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def backward_kernel(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# Attention on the CPU, which the counter does not know by itself.
KERNEL = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward_kernel,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward_kernel,
}


def config(**changes: Any) -> LlamaConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 80, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    return LlamaConfig(**(sizes | changes))


def adapted(settings: LlamaConfig, lora: Lora) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(settings)
    model.requires_grad_(False)
    add_lora(model, lora, 0)
    return model


class Passing:
    """A far side that does no arithmetic, and whose output needs a gradient, as the real one's does."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden + torch.zeros((), requires_grad=True)


def counted(settings: LlamaConfig, lora: Lora, front: int, back: int, *, backward: bool) -> float:
    """FLOP a token of the client of a real model, as torch counts them."""
    parts = cut(adapted(settings, lora), front, back)
    if parts.proxy is not None:
        parts.proxy.endpoint = Passing()
    tokens = torch.randint(3, settings.vocab_size, (BATCH, T))
    with FlopCounterMode(display=False, custom_mapping=KERNEL) as counter:
        logits = parts.client(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops() / (BATCH * T)


def row(settings: LlamaConfig, lora: Lora, place: tuple[int, int]) -> dict[str, Any]:
    return cost_rows(settings, lora, [place], Workload(samples=10, tokens_per_sample=T))[0]


@pytest.mark.parametrize("place", CUTS)
@pytest.mark.parametrize("targets", TARGETS)
def test_flops_are_those_that_torch_counts(place: tuple[int, int], targets: tuple[str, ...]) -> None:
    lora = Lora(rank=2, targets=targets)
    computed = row(config(), lora, place)
    assert computed["client_flops_per_token"] == counted(config(), lora, *place, backward=False)
    assert computed["training_flops_per_token"] == counted(config(), lora, *place, backward=True)


def test_flops_hold_where_heads_are_wider_than_their_share_of_the_hidden_size() -> None:
    settings, lora = config(head_dim=16, tie_word_embeddings=True, attention_bias=True), Lora(rank=2)
    computed = row(settings, lora, (2, 1))
    assert computed["client_flops_per_token"] == counted(settings, lora, 2, 1, backward=False)
    assert computed["training_flops_per_token"] == counted(settings, lora, 2, 1, backward=True)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("place", CUTS)
def test_parameters_are_those_of_a_model_that_is_really_cut(place: tuple[int, int], tied: bool) -> None:
    settings, lora = config(tie_word_embeddings=tied, mlp_bias=True), Lora(rank=2)
    model = adapted(settings, lora)
    whole = sum(p.numel() for p in model.parameters())
    held = sum(p.numel() for p in cut(model, *place).client.parameters())
    computed = row(settings, lora, place)
    assert computed["client_parameters"] == held
    assert computed["client_bytes"] == 4 * held
    assert computed["client_share"] == held / whole
    assert (computed["client_share"] == 1) == (sum(place) == LAYERS)


def test_shares_of_a_7b_llama_are_the_known_ones() -> None:
    rows = cost_rows(LlamaConfig(), Lora(), [(k, 1) for k in (1, 5, 10, 20, 30)], Workload(1, 1))
    assert [round(100 * r["client_share"], 1) for r in rows] == [9.9, 21.9, 36.9, 67.0, 97.0]


def test_a_7b_step_of_4_times_512_in_half_precision_crosses_with_67_megabytes() -> None:
    work = Workload(samples=4, tokens_per_sample=512, bytes_per_value=2)
    computed = cost_rows(LlamaConfig(), Lora(), [(1, 1)], work)[0]
    assert 4 * computed["wire_bytes_per_sample"] == 4 * 512 * (4 * 4096 * 2 + 1)
    assert round(4 * computed["wire_bytes_per_sample"] / 1e6) == 67


class Echo:
    """A server that only answers; what it says has the right size, which is all that is counted."""

    def __init__(self, parts: CutModel) -> None:
        self._model = {name: p.detach() for name, p in parts.client_parameters.items()}

    def join(self, client: str, samples: int) -> None: ...
    def start_round(self, client: str, round_: int) -> None: ...
    def reorder(self, session: int, beams: Tensor) -> None: ...
    def forward(self, client: str, step: int, hidden: Tensor, mask: Tensor, pass_: int) -> Tensor:
        return hidden

    def backward(self, gradient: Tensor, pass_: int) -> Tensor:
        return gradient

    def finish_step(self) -> dict[str, Tensor]:
        return {}

    def finish_round(self, client: str, update: dict[str, Tensor], loss: float) -> dict[str, Tensor]:
        return {}

    def personal_model(self, client: str) -> dict[str, Tensor]:
        return self._model

    def serve(self, client: str, session: int | None, hidden: Tensor, mask: Tensor, base: bool) -> Tensor:
        return hidden

    def open_session(self) -> int:
        return 0


@pytest.mark.parametrize("place", [(1, 1), (0, 2), (2, 2)])
def test_wire_bytes_of_a_round_are_those_that_a_link_counts(place: tuple[int, int]) -> None:
    lora, steps = Lora(rank=2), 2
    parts = cut(adapted(config(), lora), *place)
    link = Link(Echo(parts))
    side = link.training("client-0", 1)
    if parts.proxy is not None:
        parts.proxy.endpoint = side
    for _ in range(steps):
        tokens = torch.randint(3, 80, (BATCH, T))
        parts.client(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits.sum().backward()
    link.upload("client-0", 1, {n: p.detach() for n, p in parts.client_parameters.items()}, 0.5)
    link.download("client-0", 1)
    work = Workload(samples=steps * BATCH, tokens_per_sample=T)
    computed = cost_rows(config(), lora, [place], work)[0]
    assert computed["wire_bytes_per_round"] == link.sent.total()
    once = (Channel.CLIENT_UPDATE, Channel.PERSONAL_MODEL, Channel.STATUS)
    assert computed["wire_bytes_per_sample"] * work.samples == link.sent.total() - sum(link.sent[c] for c in once)


@pytest.mark.parametrize("beams", [1, 3])
def test_wire_bytes_of_a_request_are_those_that_a_link_counts(beams: int) -> None:
    parts = cut(adapted(config(), Lora(rank=2)), 1, 1)
    parts.client.eval()
    link = Link(Echo(parts))
    assert parts.proxy is not None
    parts.proxy.endpoint = link.serving("client-0")
    tokens, new = torch.randint(3, 80, (1, 9)), 5
    settings = GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, num_beams=beams, do_sample=False, eos_token_id=1, pad_token_id=2
    )
    mask = torch.ones_like(tokens)
    with torch.no_grad():
        held = read_once(parts.client, tokens, mask, beams)
        parts.client.generate(input_ids=tokens, attention_mask=mask, generation_config=settings, **held)
    work = Workload(1, 1, prompt_tokens=9, generated_tokens=new, beams=beams)
    assert cost_rows(config(), Lora(rank=2), [(1, 1)], work)[0]["serving_wire_bytes_per_request"] == link.sent.total()


def test_without_a_trunk_only_updates_cross() -> None:
    work = Workload(10, T, prompt_tokens=9, generated_tokens=5)
    for computed in cost_rows(config(), Lora(rank=2), [(2, 2), (4, 0)], work):
        assert computed["wire_bytes_per_sample"] == computed["serving_wire_bytes_per_request"] == 0
        adapter = LAYERS * 2 * ((32 + 32) + (32 + 16))  # A and B of q_proj and v_proj, rank 2
        assert computed["wire_bytes_per_round"] == 2 * 4 * adapter + 8


def test_every_cut_is_listed_once() -> None:
    assert len(all_cuts(LAYERS)) == len(set(all_cuts(LAYERS))) == 15
    rows = cost_rows(config(), Lora(rank=2), all_cuts(LAYERS), Workload(1, T))
    assert [(r["cut"]["front"], r["cut"]["back"]) for r in rows] == all_cuts(LAYERS)


def test_random_state_and_config_are_left_as_they_were() -> None:
    settings = config()
    before, described = torch.get_rng_state(), settings.to_dict()
    row(settings, Lora(rank=2), (1, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert settings.to_dict() == described


def test_a_cut_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="front 3 \\+ back 2"):
        row(config(), Lora(), (3, 2))

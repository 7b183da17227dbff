"""The generic cut is the uncut model: same loss, same gradients, same generated text, at every (k, m)."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.models.cut import CutModel, cut, positions
from pplr_audit.models.lora import adapter_parameters, add_lora, read_adapter
from pplr_audit.models.recommenders.bigrec import answer_loss
from pplr_audit.models.taps import tap, tappable
from pplr_audit.training.link import Link
from pplr_audit.training.server import Server
from tests.conftest import LAYERS
from tests.models import wire
from tests.models.wire import adapted, connected

CUTS = [(k, m) for k in range(LAYERS + 1) for m in range(LAYERS + 1 - k)]
TOKENS = torch.randint(5, 300, (3, 17), generator=torch.Generator().manual_seed(3))
MASK = torch.tensor([[1] * 17, [1] * 12 + [0] * 5, [1] * 9 + [0] * 8])
LEARNED = MASK * (torch.arange(17) >= 5)


def tuned(folder: Path, dropout: float = 0.1) -> LlamaForCausalLM:
    """With an adapter that is not zero and dropout that is on."""
    lora = scenario.Lora(targets=("q_proj", "v_proj", "up_proj"), dropout=dropout)
    return adapted(AutoModelForCausalLM.from_pretrained(folder), lora)


def loss_of(model: Any) -> torch.Tensor:
    logits = model(input_ids=TOKENS, attention_mask=MASK, position_ids=positions(MASK), use_cache=False).logits
    return answer_loss(logits, TOKENS, LEARNED)


def one_step(parts: CutModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return wire.one_step(parts, loss_of)


@pytest.fixture(scope="module")
def uncut(llama_folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Transformers' own forward pass, its dropout drawn block by block as in the cut."""
    model = tuned(llama_folder)
    return one_step(cut(model, LAYERS, 0))


@pytest.mark.parametrize(("front", "back"), CUTS)
def test_loss_and_gradients_are_those_of_the_uncut_model_bit_for_bit(
    llama_folder: Path, uncut: tuple[torch.Tensor, dict[str, torch.Tensor]], front: int, back: int
) -> None:
    loss, gradients = one_step(cut(tuned(llama_folder), front, back))
    assert torch.equal(loss, uncut[0])
    assert gradients.keys() == uncut[1].keys()
    assert all(torch.equal(gradients[name], uncut[1][name]) for name in gradients)
    assert sum(float(g.abs().sum()) for g in gradients.values()) > 0


def test_without_dropout_the_cut_is_the_library_s_own_model_bit_for_bit(llama_folder: Path) -> None:
    plain = tuned(llama_folder, dropout=0.0).train()
    loss = loss_of(plain)
    loss.backward()
    cut_loss, gradients = one_step(cut(tuned(llama_folder, dropout=0.0), 1, 1))
    assert torch.equal(loss.detach(), cut_loss)
    assert all(torch.equal(p.grad, gradients[name]) for name, p in adapter_parameters(plain).items())


@pytest.mark.parametrize(("front", "back"), CUTS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_over_the_link_is_that_of_the_uncut_model(
    llama_folder: Path, front: int, back: int, beams: int
) -> None:
    settings = GenerationConfig(max_new_tokens=6, num_beams=beams, do_sample=False, eos_token_id=1, pad_token_id=1)
    asked: dict[str, Any] = {"input_ids": TOKENS.flip(1), "attention_mask": MASK.flip(1), "generation_config": settings}
    expected = tuned(llama_folder).eval().generate(**asked)
    parts = cut(tuned(llama_folder), front, back)
    link = connected(parts)
    if parts.proxy is not None:
        parts.proxy.endpoint = link.serving("a")
    assert torch.equal(parts.client.eval().generate(**asked), expected)


def test_the_two_parts_have_no_module_and_no_parameter_in_common(llama_folder: Path) -> None:
    parts = cut(tuned(llama_folder), 1, 1)
    assert not {id(m) for m in parts.client.modules()} & {id(m) for m in parts.trunk.modules()}
    assert not {id(p) for p in parts.client.parameters()} & {id(p) for p in parts.trunk.parameters()}
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in parts.client_parameters} == {0, 2}
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in parts.trunk_parameters} == {1}


def test_client_and_server_objects_reach_each_other_over_the_link_alone(llama_folder: Path) -> None:
    parts = cut(tuned(llama_folder), 1, 1)
    link = connected(parts)
    assert parts.proxy is not None
    parts.proxy.endpoint = link.training("a", 1)
    reached = reachable(parts.client, stop=(Link,))
    assert not any(isinstance(thing, Server) for thing in reached)
    trunk = {id(block) for block in parts.trunk.layers}
    assert not any(id(thing) in trunk for thing in reached)


def reachable(start: object, stop: tuple[type, ...]) -> list[object]:
    """Everything that hangs on ``start``, modules, tensors and containers, not going through ``stop``."""
    seen: dict[int, object] = {}
    todo = [start]
    while todo:
        thing = todo.pop()
        if (
            id(thing) in seen
            or isinstance(thing, (type, *stop))
            or type(thing).__name__ in ("module", "builtin_function")
        ):
            continue
        if callable(thing) and hasattr(thing, "__globals__"):
            closure = getattr(thing, "__closure__", None) or ()
            seen[id(thing)] = thing
            todo += [cell.cell_contents for cell in closure]
            continue
        seen[id(thing)] = thing
        todo += gc.get_referents(thing)
    return list(seen.values())


def test_a_tap_hands_on_what_enters_every_block(llama_folder: Path) -> None:
    whole = tuned(llama_folder, dropout=0.0).eval()
    with torch.no_grad():
        expected = whole(
            input_ids=TOKENS, attention_mask=MASK, position_ids=positions(MASK), output_hidden_states=True
        ).hidden_states
    parts = cut(tuned(llama_folder, dropout=0.0), 1, 1)
    link = connected(parts)
    assert parts.proxy is not None
    parts.proxy.endpoint = link.serving("a")
    seen: dict[int, torch.Tensor] = {}
    with torch.no_grad(), tap(tappable(parts), seen.__setitem__):
        parts.client.eval()(input_ids=TOKENS, attention_mask=MASK, position_ids=positions(MASK), use_cache=False)
    assert sorted(seen) == list(range(LAYERS + 1))
    assert all(torch.equal(seen[layer], expected[layer]) for layer in range(LAYERS))
    # What the library calls the last of them has been through the final norm.
    assert torch.equal(whole.base_model.norm(seen[LAYERS]), expected[LAYERS])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize(("front", "back"), [(2, 2), (4, 0), (-1, 1)])
def test_a_cut_with_more_blocks_than_there_are_is_refused(llama_folder: Path, front: int, back: int) -> None:
    with pytest.raises(InputError, match=r"model\.cut: front .* \(accepted: front \+ back <= 3"):
        cut(tuned(llama_folder), front, back)


def test_a_lora_target_that_is_no_layer_is_refused_with_what_there_is(llama_folder: Path) -> None:
    with pytest.raises(InputError, match=r"model\.lora\.targets: no layer 'qproj'.*q_proj"):
        add_lora(AutoModelForCausalLM.from_pretrained(llama_folder), scenario.Lora(targets=("qproj",)), 0)


def test_all_clients_start_from_one_a_and_no_global_seed_is_touched(llama_folder: Path) -> None:
    before = torch.get_rng_state()
    adapters = []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(llama_folder)
        state = torch.get_rng_state()
        add_lora(model, scenario.Lora(), 11)
        assert torch.equal(torch.get_rng_state(), state)
        adapters.append(read_adapter(adapter_parameters(model)))
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    assert all(float(a.abs().sum()) > 0 for name, a in adapters[0].items() if "lora_A" in name)
    assert all(float(b.abs().sum()) == 0 for name, b in adapters[0].items() if "lora_B" in name)
    torch.set_rng_state(before)

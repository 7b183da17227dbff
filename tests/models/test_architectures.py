"""One cut for every architecture: loss, gradients and generated text are those of the uncut model at every (k, m)."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, GenerationConfig
from transformers.pytorch_utils import Conv1D

from pplr_audit import scenario
from pplr_audit.data.prompts import Prompt, collate
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import ARCHITECTURES, architecture, blocks, body, outer_modules
from pplr_audit.models.cut import Randomness, cut, positions
from pplr_audit.models.lora import adapter_parameters, add_lora
from pplr_audit.models.recommenders.bigrec import answer_loss
from pplr_audit.models.recommenders.task import tensors
from pplr_audit.models.taps import Tapped, tap, tappable
from pplr_audit.models.uncut import UncutModel
from tests.models.architectures import CAUSAL, CONFIGS, ENCODERS, LAYERS, VOCABULARY, build, config
from tests.models.wire import Gradients, adapted, connected, gradients, one_step

CUTS = [(k, m) for k in range(LAYERS + 1) for m in range(LAYERS + 1 - k)]
TOKENS = torch.randint(3, VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(3))
MASK = torch.tensor([[1] * 17, [1] * 12 + [0] * 5, [1] * 9 + [0] * 8])
LEARNED = MASK * (torch.arange(17) >= 5)
PADDED = TOKENS.masked_fill(MASK == 0, 2)


def causal_loss(model: Any) -> torch.Tensor:
    logits = model(input_ids=PADDED, attention_mask=MASK, position_ids=positions(MASK), use_cache=False).logits
    return answer_loss(logits, PADDED, LEARNED)


def masked_loss(model: Any) -> torch.Tensor:
    hidden = (torch.arange(17) % 4 == 0) & MASK.bool()
    labels = PADDED.masked_fill(~hidden, -100)
    return model(input_ids=PADDED.masked_fill(hidden, 3), attention_mask=MASK, labels=labels).loss


def body_loss(model: Any) -> torch.Tensor:
    states = model(input_ids=PADDED, attention_mask=MASK).last_hidden_state
    pooled = (states * MASK[..., None]).sum(1) / MASK.sum(1, keepdim=True)
    return (pooled * torch.linspace(-1, 1, pooled.shape[1])).sum(1).square().mean()


KINDS: dict[str, tuple[str, Any, Callable[[Any], torch.Tensor]]] = {
    **{name: (name, AutoModelForCausalLM, causal_loss) for name in CAUSAL},
    **{name: (name, AutoModel, body_loss) for name in ENCODERS},
    **{f"{name}, masked": (name, AutoModelForMaskedLM, masked_loss) for name in ENCODERS},
}


def made(kind: str, *, dropout: bool = True) -> Any:
    name, library, _ = KINDS[kind]
    lora = scenario.Lora(dropout=0.1 if dropout else 0.0)
    return adapted(build(library, config(name, dropout=dropout)), lora)


@cache
def uncut(kind: str) -> tuple[torch.Tensor, Gradients]:
    """The library's own forward pass, each part's dropout drawn as in the cut."""
    model, randomness = made(kind), Randomness(0)
    for layer, block in enumerate(blocks(model)):
        randomness.govern(block, layer)
    for path, part in outer_modules(model).items():
        randomness.govern(part, path)
    model.train()
    with randomness.step(1, "a", 0):
        loss = KINDS[kind][2](model)
        loss.backward()
    return loss.detach(), gradients(adapter_parameters(model))


def assert_same(got: tuple[torch.Tensor, Gradients], expected: tuple[torch.Tensor, Gradients]) -> None:
    assert torch.equal(got[0], expected[0])
    assert got[1].keys() == expected[1].keys()
    assert all(torch.equal(got[1][name], expected[1][name]) for name in expected[1])
    assert sum(float(g.abs().sum()) for g in expected[1].values()) > 0


def test_every_family_is_tested() -> None:
    assert {config(name).model_type for name in CONFIGS} == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("front", "back"), CUTS)
def test_loss_and_gradients_with_dropout_are_those_of_the_uncut_model_bit_for_bit(
    kind: str, front: int, back: int
) -> None:
    torch.manual_seed(front)  # what is not drawn from the step's own seed would differ from cut to cut
    assert_same(one_step(cut(made(kind), front, back), KINDS[kind][2]), uncut(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_the_cut_is_the_library_s_own_model_bit_for_bit(kind: str) -> None:
    plain = made(kind, dropout=False).train()
    loss = KINDS[kind][2](plain)
    loss.backward()
    expected = loss.detach(), gradients(adapter_parameters(plain))
    assert not torch.equal(expected[0], uncut(kind)[0]), "dropout is on in the other test"
    for front, back in ((0, 0), (1, 1), (0, 2)):
        assert_same(one_step(cut(made(kind, dropout=False), front, back), KINDS[kind][2]), expected)


def generated(model: Any, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The text, and what the model said of every token on the way there (steps, rows, words)."""
    settings = GenerationConfig(
        max_new_tokens=8, num_beams=beams, do_sample=False, eos_token_id=1, pad_token_id=2, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    out = model.eval().generate(
        input_ids=PADDED.flip(1), attention_mask=MASK.flip(1), generation_config=settings, use_cache=True
    )
    return out.sequences, torch.stack(out.logits)


@cache
def uncut_text(kind: str, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
    return generated(made(kind), beams)


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize(("front", "back", "beams"), [*((k, m, 3) for k, m in CUTS), (0, 0, 1), (1, 1, 1)])
def test_generation_with_a_cache_over_the_link_is_that_of_the_uncut_model(
    kind: str, front: int, back: int, beams: int
) -> None:
    parts = cut(made(kind), front, back)
    link = connected(parts)
    if parts.proxy is not None:
        parts.proxy.endpoint = link.serving("a")
    text, logits = generated(parts.client, beams)
    assert torch.equal(text, uncut_text(kind, beams)[0])
    assert torch.equal(logits, uncut_text(kind, beams)[1])


@pytest.mark.parametrize("kind", [name for name in CAUSAL if "sliding" in name or name == "gemma3_text"])
def test_a_sliding_window_is_one_that_matters(kind: str) -> None:
    """Else the tests above would not see a block that lost its window."""
    model = build(AutoModelForCausalLM, config(KINDS[kind][0], sliding_window=None if "mistral" in kind else 512))
    assert not torch.equal(generated(adapted(model, scenario.Lora()), 3)[0], uncut_text(kind, 3)[0])


def meetings(model: Any) -> list[Tapped]:
    whole = list(blocks(model))
    return [*(Tapped(i, block) for i, block in enumerate(whole)), Tapped(LAYERS, whole[-1], leaves=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tap_hands_on_what_enters_every_block(kind: str) -> None:
    plain, loss = made(kind, dropout=False).eval(), KINDS[kind][2]
    expected: dict[int, torch.Tensor] = {}
    with torch.no_grad(), tap(meetings(plain), expected.__setitem__):
        loss(plain)
    parts = cut(made(kind, dropout=False), 1, 1)
    link = connected(parts)
    assert parts.proxy is not None
    parts.proxy.endpoint = link.serving("a")
    seen: dict[int, torch.Tensor] = {}
    with torch.no_grad(), tap(tappable(parts), seen.__setitem__):
        loss(parts.client.eval())
    assert sorted(seen) == list(range(LAYERS + 1))
    # Bytes, not values: 0.0 and -0.0 are equal.
    assert all(seen[layer].numpy().tobytes() == expected[layer].numpy().tobytes() for layer in seen)
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trunk_leaves_every_bit_of_what_passes_beside_its_blocks(kind: str) -> None:
    trunk = cut(made(kind), 1, 1).trunk
    trunk.set_submodule(architecture(trunk).blocks, torch.nn.ModuleList())
    trunk.config.num_hidden_layers = 0
    hidden = torch.randn(3, 17, 32, generator=torch.Generator().manual_seed(1))
    hidden[0, :, :3] = torch.tensor([0.0, -0.0, 1e-45])
    left = trunk(inputs_embeds=hidden, attention_mask=MASK, position_ids=positions(MASK), use_cache=False)
    assert left.last_hidden_state.detach().numpy().tobytes() == hidden.numpy().tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_parts_have_no_module_and_no_parameter_in_common(kind: str) -> None:
    parts = cut(made(kind), 1, 1)
    assert not {id(m) for m in parts.client.modules()} & {id(m) for m in parts.trunk.modules()}
    assert not {id(p) for p in parts.client.parameters()} & {id(p) for p in parts.trunk.parameters()}
    held = {id(p) for block in blocks(parts.trunk) for p in block.parameters()}
    assert {id(p) for p in parts.trunk.parameters()} == held, "the trunk holds blocks and nothing else"


class Plain:
    """A task that reads tokens as they are."""

    def inputs(self, model: Any, prompts: list[Any], *, serving: bool) -> dict[str, torch.Tensor]:
        del serving
        tokens, mask, _ = tensors(collate(prompts, 2))
        return {"input_ids": tokens, "attention_mask": mask} | (
            {"position_ids": positions(mask)} if architecture(model).causal else {}
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_that_attacks_know_are_those_that_the_model_reads(kind: str) -> None:
    """In Gemma the module scales its weight: what enters in place of the words has to be scaled alike."""
    model = made(kind, dropout=False).eval()
    whole = UncutModel(model, Plain())
    row = PADDED[0, : int(MASK[0].sum())]
    prompt = Prompt(row.numpy(), row.numpy(), row.numpy(), len(row), row.numpy())
    assert whole.embeddings.shape == (VOCABULARY, 32)
    assert torch.equal(whole.embeddings[row], body(model).get_input_embeddings()(row))
    ((_, states),) = whole.states([prompt], [0, 1], None)
    for layer, read in states.items():
        with torch.no_grad():
            made_of_words = whole.enter(
                layer, whole.embeddings[row][None], torch.ones(1, len(row), dtype=torch.long), None
            )
        assert torch.allclose(made_of_words[0], read, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_goes_where_the_family_has_it_and_says_nothing(kind: str) -> None:
    model = build(KINDS[kind][1], config(KINDS[kind][0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_lora(model, scenario.Lora(rank=2), 0)
    expected = {"gpt2": {"c_attn"}}.get(model.config.model_type, {"q_proj", "v_proj"})
    expected = expected if architecture(model).causal else {"query", "value"}
    names = list(adapter_parameters(model))
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names} == expected
    assert len(names) == 2 * LAYERS * len(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_on_all_is_every_linear_layer_of_a_block_and_none_of_the_head(kind: str) -> None:
    model = build(KINDS[kind][1], config(KINDS[kind][0]))
    block = blocks(model)[0]
    linear = [name for name, part in block.named_modules() if isinstance(part, torch.nn.Linear | Conv1D)]
    products = architecture(model).products
    paths = {*products.attention_in, products.attention_out, *products.mlp_in, products.mlp_out}
    assert set(linear) == paths
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_lora(model, scenario.Lora(rank=2, targets="all"), 0)
    path = next(name for name, module in model.named_modules() if module is blocks(model))
    expected = {f"{path}.{layer}.{name}" for layer in range(LAYERS) for name in paths}
    assert {name.split(".lora_")[0] for name in adapter_parameters(model)} == expected


def test_lora_on_all_of_a_llama_begins_as_on_its_layers_by_name() -> None:
    """So that what shipped with the names trains to the same weights."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    told = []
    for targets in ("all", names):
        model = build(AutoModelForCausalLM, config("llama"))
        add_lora(model, scenario.Lora.model_validate({"targets": targets}), 5)
        told.append({name: value.detach() for name, value in adapter_parameters(model).items()})
    assert told[0].keys() == told[1].keys()
    assert all(torch.equal(told[0][name], told[1][name]) for name in told[0])


def test_lora_on_dense_leaves_the_head_alone() -> None:
    model = build(AutoModelForMaskedLM, config("bert"))
    add_lora(model, scenario.Lora(targets=("dense",)), 0)
    names = list(adapter_parameters(model))
    assert all(name.startswith("bert.encoder.layer.") for name in names)
    assert len(names) == 2 * LAYERS * 3


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "gemma3_text"])
def test_the_states_of_a_whole_model_are_those_of_the_library_whatever_the_deepest_layer(kind: str) -> None:
    model = made(kind, dropout=False).eval()
    rows = [PADDED[row, : int(MASK[row].sum())] for row in range(3)]
    prompts = [Prompt(row.numpy(), row.numpy(), row.numpy(), len(row), row.numpy()) for row in rows]
    whole = UncutModel(model, Plain())
    runs = {d: dict(whole.states(prompts, range(d + 1), dict(adapter_parameters(model)))) for d in range(LAYERS)}
    for place, row in enumerate(rows):
        hidden = model(input_ids=row[None], output_hidden_states=True).hidden_states
        for deepest, found in runs.items():
            for layer in range(deepest + 1):
                assert torch.allclose(found[place][layer], hidden[layer][0], atol=1e-5)
    assert len(blocks(whole.model)) == LAYERS


def test_a_reader_that_stops_between_two_batches_leaves_the_model_whole() -> None:
    """As where a budget ends: its frames, and the generator in them, may live as long as the error is kept."""
    row = PADDED[0, : int(MASK[0].sum())].numpy()
    whole = UncutModel(made("gpt2", dropout=False), Plain())
    states = whole.states([Prompt(row, row, row, len(row), row)] * 3, [1], None, positions=1)
    next(states)
    assert torch.is_grad_enabled()
    assert len(blocks(whole.model)) == LAYERS
    assert len(list(states)) == 2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (transformers.T5Config(), r"'t5' is not supported: an encoder-decoder .* \(accepted: llama, .*gpt2, bert"),
        (transformers.Gemma2Config(), r"'gemma2' is not supported: it caps its attention scores"),
        (transformers.GPTNeoXConfig(), r"'gpt_neox' is not supported \(accepted: llama"),
    ],
)
def test_an_architecture_that_cannot_be_cut_is_refused_with_the_reason(settings: Any, reason: str) -> None:
    class Model:
        config = settings

    with pytest.raises(InputError, match=r"^model\.backbone: model_type " + reason):
        architecture(Model())

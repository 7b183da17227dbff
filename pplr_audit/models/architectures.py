"""Places of the parts of each supported architecture, so that all else can speak of layers by number.

One table, `ARCHITECTURES`, is all that is known of an architecture; nothing of its forward pass is copied. It imports
no torch, so that what is supported can be listed at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pplr_audit.errors import InputError

Use = Literal["applied", "added", "called"]
"""Use that the library's forward pass makes of a part outside the blocks, given ``inputs_embeds``: it is applied
to what passes (or not used at all), its output is added to what passes, or it is called with ``inputs_embeds``."""


@dataclass(frozen=True)
class Products:
    """The linear layers of a block in the order in which they run, by their paths in the block."""

    attention_in: tuple[str, ...]
    """They read what enters the block and give queries, keys and values, one each or one layer all three."""
    attention_out: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    attention_dropout: str
    """Path of attention's own dropout: a rate, or a module with one."""


@dataclass(frozen=True)
class Architecture:
    """Facts about an architecture that the cut needs. Paths are attribute names from the body, parted by dots."""

    says: str
    """One line for a user who asks what is supported."""
    causal: bool
    """True if it predicts the next token (a decoder); if not, every position sees every other (an encoder)."""
    blocks: str
    outer_modules: Mapping[str, Use]
    """Parts of the body besides blocks and rotary tables: the client's at every cut."""
    products: Products
    targets: tuple[str, ...]
    """Modules that LoRA goes to when the scenario names nothing."""
    fields: tuple[str, ...]
    """Fields of config.json that make the model: nothing else of it is taken over."""
    heads: tuple[str, ...] = ()
    """Parts that a folder may hold on top of the body, and that an encoder's backbone does without."""
    constants: tuple[str, ...] = ()
    """Ends of the names of what older versions of the library stored though it follows from the config."""


RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    "attention_dropout",
)  # fmt: skip
"""Names of the rates of dropout in the configs of the supported families."""

_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip
_ROTARY = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "original_max_position_embeddings")
_SLIDING = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
_LLAMA_FIELDS = (
    *_SIZES, *_ROTARY, "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "attention_bias",
    "attention_dropout",
)  # fmt: skip

_LLAMA = Architecture(
    says="Llama and what is built like it",
    causal=True,
    blocks="layers",
    outer_modules={"embed_tokens": "applied", "norm": "applied"},
    products=Products(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj",
        ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "self_attn.attention_dropout",
    ),
    targets=("q_proj", "v_proj"),
    fields=(*_LLAMA_FIELDS, "mlp_bias"),
    constants=(".rotary_emb.inv_freq",),
)  # fmt: skip

_GPT2 = Architecture(
    says="GPT-2 and what is built like it",
    causal=True,
    blocks="h",
    # Positions are added and dropped out in the body, between the word embeddings and the first block.
    outer_modules={"wte": "applied", "wpe": "added", "drop": "applied", "ln_f": "applied"},
    products=Products(("attn.c_attn",), "attn.c_proj", ("mlp.c_fc",), "mlp.c_proj", "attn.attn_dropout"),
    targets=("c_attn",),
    fields=(
        *_SIZES, "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "resid_pdrop",
        "embd_pdrop", "attn_pdrop", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn",
    ),
    constants=(".attn.bias", ".attn.masked_bias"),
)  # fmt: skip

_BERT = Architecture(
    says="BERT",
    causal=False,
    blocks="encoder.layer",
    outer_modules={"embeddings": "called", "pooler": "applied"},
    products=Products(
        ("attention.self.query", "attention.self.key", "attention.self.value"), "attention.output.dense",
        ("intermediate.dense",), "output.dense", "attention.self.dropout",
    ),
    targets=("query", "value"),
    fields=(
        *_SIZES, "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size",
        "layer_norm_eps",
    ),
    constants=("embeddings.position_ids", "embeddings.token_type_ids"),
    heads=("pooler", "cls", "lm_head", "classifier", "qa_outputs"),
)  # fmt: skip

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": replace(
        _LLAMA, says="Mistral, with or without a sliding window", fields=(*_LLAMA_FIELDS, "sliding_window")
    ),
    "qwen2": replace(_LLAMA, says="Qwen2 and Qwen2.5", fields=(*_LLAMA_FIELDS, *_SLIDING)),
    "qwen3": replace(_LLAMA, says="Qwen3, without experts", fields=(*_LLAMA_FIELDS, *_SLIDING)),
    "gemma": replace(_LLAMA, says="Gemma, the first", fields=_LLAMA_FIELDS),
    "gemma3_text": replace(
        _LLAMA,
        says="Gemma 3 for text",
        fields=(
            *_LLAMA_FIELDS,
            "hidden_activation",
            "query_pre_attn_scalar",
            "sliding_window",
            "sliding_window_pattern",
            "layer_types",
            "rope_local_base_freq",
            "final_logit_softcapping",
        ),
    ),
    "gpt2": _GPT2,
    "bert": _BERT,
    "roberta": replace(_BERT, says="RoBERTa"),
    "xlm-roberta": replace(_BERT, says="XLM-RoBERTa"),
}
"""Architectures by ``model_type`` in config.json."""

_ENCODER_DECODER = (
    "an encoder-decoder passes a position bias from block to block, and its decoder sees the encoder, so more would"
    " cross than the activations at the cut"
)
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5", "bart", "mbart", "pegasus"), _ENCODER_DECODER),
    "gemma2": "it caps its attention scores, which the attention used here (sdpa) does not",
    "gemma3": "it reads pictures too; its part for text alone is gemma3_text",
}
"""Why not, for those that are asked for."""


def architecture_of(model_type: object, place: str) -> Architecture:
    """The family of a ``model_type``. Raises InputError for one that cannot be cut, with ``place`` in front."""
    found = ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if found is None:
        reason = REFUSED.get(model_type) if isinstance(model_type, str) else None
        raise InputError(
            f"{place}: model_type {repr(model_type)[:60]} is not supported{f': {reason}' if reason else ''}"
            f" (accepted: {', '.join(ARCHITECTURES)})"
        )
    return found


def architecture(model: Any) -> Architecture:
    """The family of a transformers model, by its config. Raises InputError for one that cannot be cut."""
    return architecture_of(model.config.model_type, "model.backbone")


def body(model: Any) -> Any:
    """The stack of blocks with its embeddings and final norm: the model without its head, or all of it."""
    return model.base_model


def heads(model: Any) -> list[Any]:
    """The modules on top of the body; none where the model is its body."""
    inner = body(model)
    return [] if inner is model else [child for child in model.children() if child is not inner]


def blocks(model: Any) -> Any:
    """The blocks of a model in order, an ``nn.ModuleList``."""
    return body(model).get_submodule(architecture(model).blocks)


def outer_modules(model: Any) -> dict[str, Any]:
    """Path to module of the body's parts outside the blocks, of those that this model has."""
    kind, parts = architecture(model), dict(body(model).named_modules())
    return {path: parts[path] for path in kind.outer_modules if path in parts}

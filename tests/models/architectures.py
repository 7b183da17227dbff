"""Every supported architecture as a small model: 3 blocks, hidden 32, 64 words, weights drawn at random."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

LAYERS, VOCABULARY, WINDOW = 3, 64, 8

_LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "attention_dropout": 0.1,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 2, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.1,
    "embd_pdrop": 0.1, "attn_pdrop": 0.1, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
_SLIDING: dict[str, Any] = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}

CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **s: transformers.LlamaConfig(**_LLAMA | s),
    "llama, tied": lambda **s: transformers.LlamaConfig(**_LLAMA | {"tie_word_embeddings": True} | s),
    "mistral": lambda **s: transformers.MistralConfig(**_LLAMA | {"sliding_window": None} | s),
    "mistral, sliding": lambda **s: transformers.MistralConfig(**_LLAMA | {"sliding_window": WINDOW} | s),
    "qwen2": lambda **s: transformers.Qwen2Config(**_LLAMA | s),
    "qwen2, sliding": lambda **s: transformers.Qwen2Config(**_LLAMA | _SLIDING | s),
    "qwen3": lambda **s: transformers.Qwen3Config(**_LLAMA | {"head_dim": 16} | s),
    "qwen3, sliding": lambda **s: transformers.Qwen3Config(**_LLAMA | _SLIDING | {"head_dim": 16} | s),
    "gemma": lambda **s: transformers.GemmaConfig(**_LLAMA | {"head_dim": 16} | s),
    "gemma3_text": lambda **s: transformers.Gemma3TextConfig(
        **_LLAMA
        | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
        | s
    ),
    "gpt2": lambda **s: transformers.GPT2Config(**_GPT2 | s),
    "gpt2, scaled by layer": lambda **s: transformers.GPT2Config(
        **_GPT2 | {"scale_attn_by_inverse_layer_idx": True} | s
    ),
    "bert": lambda **s: transformers.BertConfig(**_BERT | s),
    "roberta": lambda **s: transformers.RobertaConfig(**_BERT | s),
    "xlm-roberta": lambda **s: transformers.XLMRobertaConfig(**_BERT | s),
}
ENCODERS = ("bert", "roberta", "xlm-roberta")
CAUSAL = tuple(name for name in CONFIGS if name not in ENCODERS)

WITHOUT_DROPOUT: dict[str, Any] = {
    "attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def config(name: str, *, dropout: bool = True, **changes: Any) -> Any:
    """The small config called ``name``, without any dropout of its own where asked."""
    made = CONFIGS[name](**changes)
    for field, value in {} if dropout else WITHOUT_DROPOUT.items():
        if hasattr(made, field):
            setattr(made, field, value)
    return made


def build(library: Any, settings: Any) -> Any:
    """A model of class ``library``, or of the one that an Auto class chooses.

    Biases and norms are drawn too, so that none of them is 0 or 1 by default.
    """
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = getattr(library, "from_config", library)(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)

"""The shapes of well-known models, so that what a cut costs can be told without any file of theirs.

Facts from each model's public config.json at huggingface.co under ``source``; ``parameters`` is the published number of
weights, which the shapes have to add up to. It imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Named:
    """One model: what its config says, in the library's own words."""

    model_type: str
    parameters: int
    """All weights once, tied ones too; an encoder is its body, without pooler and head."""
    source: str
    config: Mapping[str, Any]


def _llama_like(
    model_type: str, parameters: int, source: str, hidden: int, layers: int, heads: int, kv_heads: int, inner: int,
    vocabulary: int, positions: int, *, tied: bool = False, **more: Any,
) -> Named:  # fmt: skip
    sizes = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocabulary,
        "max_position_embeddings": positions, "tie_word_embeddings": tied,
    }  # fmt: skip
    return Named(model_type, parameters, source, {**sizes, **more})


def _gpt2(parameters: int, source: str, hidden: int, layers: int, heads: int) -> Named:
    sizes = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "vocab_size": 50257, "n_positions": 1024}
    return Named("gpt2", parameters, source, sizes)


def _bert(parameters: int, source: str, hidden: int, layers: int, heads: int, inner: int) -> Named:
    sizes = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
        "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
    }  # fmt: skip
    return Named("bert", parameters, source, sizes)


NAMED: Mapping[str, Named] = {
    "llama-7b": _llama_like(
        "llama", 6_738_415_616, "meta-llama/Llama-2-7b-hf", 4096, 32, 32, 32, 11008, 32000, 4096),
    "llama-13b": _llama_like(
        "llama", 13_015_864_320, "meta-llama/Llama-2-13b-hf", 5120, 40, 40, 40, 13824, 32000, 4096),
    "llama-70b": _llama_like(
        "llama", 68_976_648_192, "meta-llama/Llama-2-70b-hf", 8192, 80, 64, 8, 28672, 32000, 4096),
    "llama3-8b": _llama_like(
        "llama", 8_030_261_248, "meta-llama/Meta-Llama-3-8B", 4096, 32, 32, 8, 14336, 128256, 8192),
    "llama3-70b": _llama_like(
        "llama", 70_553_706_496, "meta-llama/Meta-Llama-3-70B", 8192, 80, 64, 8, 28672, 128256, 8192),
    "llama3.2-1b": _llama_like(
        "llama", 1_235_814_400, "meta-llama/Llama-3.2-1B", 2048, 16, 32, 8, 8192, 128256, 131072, tied=True),
    "tinyllama-1.1b": _llama_like(
        "llama", 1_100_048_384, "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 2048, 22, 32, 4, 5632, 32000, 2048),
    "mistral-7b": _llama_like(
        "mistral", 7_241_732_096, "mistralai/Mistral-7B-v0.1", 4096, 32, 32, 8, 14336, 32000, 32768,
        sliding_window=4096),
    "qwen2-0.5b": _llama_like(
        "qwen2", 494_032_768, "Qwen/Qwen2-0.5B", 896, 24, 14, 2, 4864, 151936, 131072, tied=True),
    "qwen2-7b": _llama_like(
        "qwen2", 7_615_616_512, "Qwen/Qwen2-7B", 3584, 28, 28, 4, 18944, 152064, 131072),
    "qwen2-72b": _llama_like(
        "qwen2", 72_706_203_648, "Qwen/Qwen2-72B", 8192, 80, 64, 8, 29568, 152064, 131072),
    "qwen3-8b": _llama_like(
        "qwen3", 8_190_735_360, "Qwen/Qwen3-8B", 4096, 36, 32, 8, 12288, 151936, 40960, head_dim=128),
    "gemma-2b": _llama_like(
        "gemma", 2_506_172_416, "google/gemma-2b", 2048, 18, 8, 1, 16384, 256000, 8192, tied=True, head_dim=256),
    "gemma-7b": _llama_like(
        "gemma", 8_537_680_896, "google/gemma-7b", 3072, 28, 16, 16, 24576, 256000, 8192, tied=True, head_dim=256),
    "gpt2": _gpt2(124_439_808, "openai-community/gpt2", 768, 12, 12),
    "gpt2-xl": _gpt2(1_557_611_200, "openai-community/gpt2-xl", 1600, 48, 25),
    "bert-base": _bert(108_891_648, "google-bert/bert-base-uncased", 768, 12, 12, 3072),
    "minilm": _bert(22_565_376, "sentence-transformers/all-MiniLM-L6-v2", 384, 6, 12, 1536),
}  # fmt: skip
"""Models by the name that `pplr-audit costs` takes. ``llama-7b``, ``-13b``, ``-70b`` are Llama 2's; 7b and 13b have the
shapes of the first Llama (Touvron et al. 2023, arXiv 2302.13971, table 2), which PPLR used."""

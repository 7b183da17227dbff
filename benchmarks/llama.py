"""A Llama built from a config, with a tokenizer of the market's titles, in a folder as transformers writes it."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pplr_audit.data.dataset import Catalogue
from pplr_audit.models.backbones.tiny_llama import Recipe, train_tokenizer


def save(folder: Path, catalogue: Catalogue, *, layers: int, hidden: int) -> None:
    """Weights drawn at random: what an audit costs does not depend on what they know."""
    tokenizer = train_tokenizer(catalogue, Recipe())
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Parameters as transformers and peft count them."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pplr_audit.scenario.schema import Lora
from pplr_audit.training.costs.formulas import backbone_parameters, meta_model, parameters_of

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 80
}  # fmt: skip
MODELS: dict[str, tuple[Any, Any, list[str]]] = {
    "llama": (LlamaConfig(**SIZES, num_key_value_heads=2), LlamaForCausalLM, ["q_proj", "down_proj"]),
    "llama, tied": (LlamaConfig(**SIZES, tie_word_embeddings=True), LlamaForCausalLM, ["v_proj"]),
    "gpt2": (GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=80), GPT2LMHeadModel, ["c_attn"]),
    "bert": (BertConfig(**SIZES), lambda config: BertModel(config, add_pooling_layer=False), ["query", "value"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_models_parameters_are_as_transformers_counts_them(name: str) -> None:
    config, kind, _ = MODELS[name]
    with torch.device("meta"):
        assert backbone_parameters(config) == kind(config).num_parameters()


@pytest.mark.parametrize("name", MODELS)
def test_what_an_adapter_trains_is_as_peft_counts_it(name: str) -> None:
    config, kind, targets = MODELS[name]
    with torch.device("meta"):
        lora = LoraConfig(r=5, target_modules=targets, fan_in_fan_out=name == "gpt2")
        trained, _ = get_peft_model(kind(config), lora).get_nb_trainable_parameters()
    assert parameters_of([meta_model(config, Lora(rank=5, targets=targets))], trainable=True) == trained

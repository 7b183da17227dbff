"""A model folder that a stranger made is data: what is not the model is not read, and what is not whole is refused."""

import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM

from pplr_audit import scenario
from pplr_audit.data.bigrec_prompts import title_prompts
from pplr_audit.data.dataset import Catalogue
from pplr_audit.errors import InputError
from pplr_audit.models import build as recommender
from pplr_audit.models.architectures import ARCHITECTURES, architecture, blocks
from pplr_audit.models.backbones import config as reading
from pplr_audit.models.backbones.config import read_config
from pplr_audit.models.backbones.folder import ModelFolder
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.models.backbones.load import Backbone, load_backbone, set_dropout
from pplr_audit.models.backbones.tokenizer import BY_CLASS, BY_TYPE
from pplr_audit.models.recommenders.bigrec import generate_titles
from pplr_audit.training.costs.formulas import attention_dropout
from tests.models.architectures import CONFIGS, LAYERS, VOCABULARY, build, config

CATALOGUE = Catalogue(("1", "2"), ("Amber Road", "Birch Garden"), ("A", "B"))
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>"]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}


def load(folder: Path | str) -> Backbone:
    return load_backbone(str(folder), CATALOGUE, seed=0)


def words(folder: Path, names: dict[str, Any] = NAMES) -> None:
    """A tokenizer of 64 words at most."""
    inner = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate([*SPECIAL, "Amber", "Road"])}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(SPECIAL)
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | names))


def save(folder: Path, name: str, **changes: Any) -> Path:
    """A small model of an architecture, with a tokenizer; ``changes`` are written over its config.json."""
    kind = ARCHITECTURES[name.split(",")[0]]
    build(AutoModelForCausalLM if kind.causal else AutoModel, config(name)).save_pretrained(folder)
    words(folder)
    change(folder / "config.json", **changes)
    return folder


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder: Path, mend: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    mend(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_loads_as_the_library_loads_it(name: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    found = load(tmp_path).model
    library = AutoModelForCausalLM if found.config.model_type not in ("bert", "roberta", "xlm-roberta") else AutoModel
    settings = {} if library is AutoModelForCausalLM else {"add_pooling_layer": False}
    expected = library.from_pretrained(tmp_path, attn_implementation="sdpa", **settings).eval()
    tokens = torch.randint(4, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found(input_ids=tokens)[0], expected(input_ids=tokens)[0])
    ours, theirs = found.config.to_dict(), expected.config.to_dict()
    beside = {"_name_or_path", "architectures", "transformers_version", "dtype", "initializer_range", "use_cache"}
    assert {k: v for k, v in ours.items() if k not in beside} == {k: v for k, v in theirs.items() if k not in beside}


def test_a_rate_that_a_config_leaves_open_is_the_librarys_and_can_be_set(tmp_path: Path) -> None:
    for name, field, usual in (("llama", "attention_dropout", 0.0), ("bert", "attention_probs_dropout_prob", 0.1)):
        model = load(save(tmp_path / name, name, **{field: None})).model
        assert attention_dropout(blocks(model)[0], architecture(model).products) == usual
        set_dropout(model, 0.25)
        assert attention_dropout(blocks(model)[0], architecture(model).products) == 0.25


def test_every_family_has_the_tokenizer_class_of_folders_that_name_none() -> None:
    assert BY_TYPE.keys() == ARCHITECTURES.keys()
    assert set(BY_TYPE.values()) <= BY_CLASS.keys()


HARMLESS = {
    "transformers_version", "architectures", "output_hidden_states", "return_dict", "dtype", "id2label", "label2id",
    "problem_type", "chunk_size_feed_forward", "initializer_range", "use_cache", "pretraining_tp",
    "classifier_dropout", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
    "summary_first_dropout",
}  # fmt: skip
"""Of the library's configs: how it was drawn, what it hands out, and heads that are not built here."""


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_each_field_of_the_librarys_config_is_taken_over_refused_or_known_to_do_nothing(kind: str) -> None:
    known = {field.name for field in fields(CONFIG_MAPPING[kind])}
    assert known <= {*ARCHITECTURES[kind].fields, *reading.REFUSED, *HARMLESS}


@pytest.mark.parametrize("name", NAMED)
def test_the_configs_of_well_known_models_are_read_as_the_library_reads_them(name: str, tmp_path: Path) -> None:
    said = {"model_type": NAMED[name].model_type, **NAMED[name].config, "auto_map": None, "use_cache": False}
    (tmp_path / "config.json").write_text(json.dumps(said))
    _, found = read_config(ModelFolder(tmp_path))
    expected = CONFIG_MAPPING[NAMED[name].model_type](**NAMED[name].config)
    assert found.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    "said",
    [
        {"attn_implementation": "somebody/kernel", "_attn_implementation": "flex_attention"},
        {"transformers_weights": "other.safetensors"},
        {"fusion_config": {"anything": True}, "distributed_config": {"tp_size": 2}, "dtype": "float16"},
        {"output_attentions": True, "tokenizer_class": "GPT2Tokenizer", "_name_or_path": "owner/model"},
    ],
)
def test_what_a_config_says_beside_the_architecture_changes_nothing(said: dict[str, Any], tmp_path: Path) -> None:
    plain = load(save(tmp_path / "plain", "llama"))
    found = load(save(tmp_path / "model", "llama", **said))
    assert found.digest == plain.digest
    assert found.model.config._attn_implementation == "sdpa"
    assert found.model.config.to_dict() == plain.model.config.to_dict()
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}


def test_a_file_that_tells_how_to_generate_changes_no_title(tmp_path: Path) -> None:
    folder = save(tmp_path, "llama", max_position_embeddings=128)
    found = []
    for said in ({}, {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "suppress_tokens": [4, 5]}):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1} | said))
        backbone = load(folder)
        prompts = title_prompts(backbone.tokenizer, CATALOGUE.titles, max_tokens=100, history=2)
        asked = [prompts.build(np.array([0])), prompts.build(np.array([1, 0]))]
        found.append([title.tolist() for title in generate_titles(backbone.model, asked, prompts, beams=2)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        (
            "llama",
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "is bitsandbytes: quant",
        ),
        (
            "llama",
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "is gptq: quantized weights are not read",
        ),
        ("llama", {"quantization_config": {"quant_method": "awq"}}, "is awq: quantized weights are not read; give the"),
        (
            "bert",
            {"compression_config": {"quant_method": "compressed-tensors"}},
            "compression_config is compressed-ten",
        ),
        ("qwen3", {"auto_map": {"AutoModel": "modeling_own.Own"}}, "auto_map is .*code of its own, which is never run"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "is true: this model is not causal"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "caps its attention scores"),
        ("gemma", {"use_bidirectional_attention": True}, "is true: this model is not causal"),
        ("qwen3", {"is_causal": False}, "is_causal is false: this model is not causal"),
        ("llama", {"is_causal": 0}, "is_causal is 0: this model is not causal"),
        ("gpt2", {"add_cross_attention": True}, "attends to the states of another model"),
        ("bert", {"is_decoder": True}, "is_decoder is true"),
        ("bert", {"position_embedding_type": "relative_key"}, "only absolute positions"),
        ("llama", {"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000 \(accepted: up to 1024\)"),
        ("gpt2", {"n_layer": 10**6}, r"n_layer is 1000000 \(accepted: up to 1024\)"),
        ("llama", {"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0] * 5000}}, "holds 5000 values"),
        ("llama", {"model_type": "x" * 10**6}, "model_type 'xxx.{0,60} is not supported .accepted: llama"),
        ("llama", {"model_type": ["llama"]}, r"model_type \['llama'\] is not supported"),
        ("llama", {"rope_parameters": json.loads("[" * 900 + "]" * 900)}, "rope_parameters is nested too deep"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": float("inf")}}, "rope_parameters is inf"),
        ("llama", {"attention_dropout": 1}, r"attention_dropout is 1 \(accepted: from 0 up to"),
        ("bert", {"hidden_dropout_prob": True}, "hidden_dropout_prob is True"),
        ("gpt2", {"attn_pdrop": -0.1}, "attn_pdrop is -0.1"),
        ("llama", {"num_hidden_layers": "3"}, r"config\.json: "),
        ("llama", {"hidden_act": "no_such"}, "no model can be built"),
        ("llama", {"hidden_size": 10**6}, r"(misshapen|no model|config\.json)"),
        ("gpt2", {"n_positions": 2**21}, "misshapen|bytes beside its weights"),
    ],
)
def test_what_would_be_another_model_or_none_is_refused_at_once(
    name: str, said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save(tmp_path, name, **said)
    start = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path)
    assert time.process_time() - start < 5
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, False, [], {}])
def test_a_field_that_is_switched_off_refuses_nothing(value: Any, tmp_path: Path) -> None:
    off = {"quantization_config": None, "auto_map": value, "use_bidirectional_attention": value, "is_causal": True}
    load(save(tmp_path, "gemma3_text", **off))


def test_a_model_that_sees_what_comes_is_refused_though_its_config_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "qwen3")
    chosen = scenario.Model(backbone=str(tmp_path), max_tokens=60)
    recommender._require_kind("bigrec", load(tmp_path))
    whole = load(tmp_path)
    whole.model.config.is_causal = False
    monkeypatch.setattr(recommender, "load_backbone", lambda *_, **__: whole)
    with pytest.raises(InputError, match="this model is not causal"):
        recommender.build(chosen, CATALOGUE, history=1, seed=0)


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("llama", {"rms_norm_eps": -0.5}, "what the model computes is not finite"),
        ("gpt2", {"layer_norm_epsilon": -9.5}, "what the model computes is not finite"),
        ("bert", {"layer_norm_eps": -9.5}, "what the model computes is not finite"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0], "long_factor": []}},
            "the model cannot be run: ",
        ),
    ],
)
def test_a_config_with_which_nothing_can_be_computed_is_refused(
    name: str, said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save(tmp_path, name, **said)
    chosen = scenario.Model(
        backbone=str(tmp_path), max_tokens=60, recommender="recformer" if name == "bert" else "bigrec"
    )
    with pytest.raises(InputError, match=rf"model\.backbone: .*{message}"):
        recommender.build(chosen, CATALOGUE, history=1, seed=0)


def test_sizes_that_load_and_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    change(tmp_path / "config.json", num_key_value_heads=3, head_dim=8)
    weights(
        tmp_path,
        lambda tensors: tensors.update(
            {name: torch.zeros(24, 32) for name in tensors if name.endswith(("k_proj.weight", "v_proj.weight"))}
        ),
    )
    with pytest.raises(InputError, match="the model cannot be run"):
        recommender.build(scenario.Model(backbone=str(tmp_path), max_tokens=60), CATALOGUE, history=1, seed=0)


def test_constants_that_older_versions_stored_are_passed_over(tmp_path: Path) -> None:
    def gpt2(tensors: dict[str, torch.Tensor]) -> None:
        for layer in range(LAYERS):
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
            tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()

    def llama(tensors: dict[str, torch.Tensor]) -> None:
        for layer in range(LAYERS):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    def bert(tensors: dict[str, torch.Tensor]) -> None:
        tensors["embeddings.position_ids"] = torch.arange(64)[None]

    for name, mend in (("gpt2", gpt2), ("llama", llama), ("bert", bert)):
        before = load(save(tmp_path / name, name)).digest
        weights(tmp_path / name, mend)
        assert load(tmp_path / name).digest == before

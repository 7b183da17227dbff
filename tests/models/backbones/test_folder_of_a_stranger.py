"""A model folder that a stranger made is data: what is not the model is not read, and what is not whole is refused."""

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
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


# The architecture


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
        ("gemma3_text", {"use_bidirectional_attention": True}, "is true: this is no causal model"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "caps its attention scores"),
        ("gemma", {"use_bidirectional_attention": True}, "is true: this is no causal model"),
        ("qwen3", {"is_causal": False}, "is_causal is false: this is no causal model"),
        ("llama", {"is_causal": 0}, "is_causal is 0: this is no causal model"),
        ("gpt2", {"add_cross_attention": True}, "reads another one's states"),
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
    with pytest.raises(InputError, match="this is no causal model"):
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


# The weights


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


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("gpt2", "transformer.h.0.attn.c_attn.more"),
        ("gpt2", "transformer.h.0.masked_bias"),
        ("llama", "model.layers.0.attn.bias"),
        ("llama", "model.layers.1.self_attn.q_proj.bias"),
        ("bert", "encoder.layer.0.position_ids"),
    ],
)
def test_other_tensors_that_the_model_does_not_have_are_refused(name: str, extra: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    weights(tmp_path, lambda tensors: tensors.update({extra: torch.zeros(2)}))
    with pytest.raises(InputError, match=f"1 tensors are unexpected .*{extra}"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta", "llama, tied"])
def test_a_body_without_its_prefix_and_norms_by_their_old_names_are_the_same_model(name: str, tmp_path: Path) -> None:
    before = load(save(tmp_path, name))
    prefix = before.model.base_model_prefix + "."

    def renamed(tensors: dict[str, torch.Tensor]) -> None:
        for old in list(tensors):
            new = old.removeprefix(prefix) if old.startswith(prefix) else prefix + old
            new = new.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            if old != "lm_head.weight":
                tensors[new] = tensors.pop(old)

    weights(tmp_path, renamed)
    assert load(tmp_path).digest == before.digest


def test_headers_are_compared_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file is as long as its header says: it is full of holes, and takes no room."""
    save(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    header = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    header.pop("__metadata__", None)
    for tensor in header.values():
        if tensor["shape"] == [VOCABULARY, 32]:
            tensor["shape"] = [VOCABULARY * 1024, 32 * 16]
    end = 0
    for tensor in header.values():
        size = 4 * int(torch.tensor(tensor["shape"]).prod())
        tensor["data_offsets"], end = [end, end + size], end + size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    monkeypatch.setattr(reading, "MOST_LAYERS", 4)
    monkeypatch.setattr(
        "pplr_audit.models.backbones.transformers_api.of_tensors", lambda *_: pytest.fail("it was built")
    )
    with pytest.raises(InputError, match=r"2 tensors are misshapen .* \[65536, 512\], expected \[64, 32\]"):
        load(tmp_path)


def test_weights_in_a_format_of_quantization_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    name = "model.layers.0.mlp.up_proj.weight"
    weights(tmp_path, lambda tensors: tensors.update({name: torch.zeros(48, 32, dtype=torch.int8)}))
    with pytest.raises(InputError, match=rf"{name} is of type I8 .*quantized weights are not read"):
        load(tmp_path)


def test_a_loaded_model_does_not_follow_its_file(tmp_path: Path) -> None:
    found = load(save(tmp_path, "llama"))
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    path = tmp_path / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 4096)
        file.write(b"\x00" * 4096)
    assert all(torch.equal(value, before[name]) for name, value in found.model.state_dict().items())


# The files


def test_a_file_that_leads_out_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        folder = save(tmp_path / name, "llama")
        (folder / name).rename(tmp_path / f"outside-{name}")
        (folder / name).symlink_to(tmp_path / f"outside-{name}")
        with pytest.raises(InputError, match=f"{name}: is a link that leads out of the folder"):
            load(folder)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "llama")
    before = load(folder).digest
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert load(folder).digest == before


def test_a_snapshot_of_the_hubs_cache_is_links_to_its_blobs(tmp_path: Path) -> None:
    plain = save(tmp_path / "plain", "llama")
    repository = tmp_path / "models--owner--model"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in plain.iterdir():
        shutil.copy(path, blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"blob-{path.name}")
    assert load(snapshot).digest == load(plain).digest
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(plain / "config.json")
    with pytest.raises(InputError, match="leads out"):
        load(snapshot)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "special_tokens_map.json", "model.safetensors"])
def test_a_pipe_and_a_folder_are_no_files(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "llama")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: is no regular file"):
        load(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: is no regular file"):
        load(folder)


def test_a_file_is_no_larger_than_such_files_are(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        folder = save(tmp_path / name, "llama")
        with (folder / name).open("r+b") as file:
            file.truncate(1 << 30)
        with pytest.raises(InputError, match=f"{name}: is larger than "):
            load(folder)
    deep = save(tmp_path / "deep", "llama")
    (deep / "config.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"config\.json: cannot be read as JSON"):
        load(deep)


def test_a_folder_of_another_kind_says_what_it_is(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole", "llama")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base\x1b[2J"}))
    with pytest.raises(InputError, match=r"this is an adapter of 'owner/base.*merge it into its base model") as caught:
        load(adapter)
    assert "\x1b" not in str(caught.value)
    shutil.copy(adapter / "adapter_config.json", whole)
    with pytest.raises(InputError, match=r"adapter_config\.json: there is an adapter beside the model.*merge it"):
        load(whole)
    (whole / "adapter_config.json").unlink()
    load(whole)
    outer = tmp_path / "outer"
    shutil.copytree(whole, outer / "0_Transformer")
    (outer / "modules.json").write_text("[]")
    with pytest.raises(InputError, match=r"this is a sentence-transformers folder, .*outer/0_Transformer$"):
        load(outer)
    (whole / "model.safetensors").rename(whole / "model-q4.gguf")
    with pytest.raises(InputError, match=r"only weights in another format \(model-q4\.gguf\)"):
        load(whole)


# The tokenizer


def bytes_of(texts: list[str]) -> Tokenizer:
    """Byte-level without the library's own split of numbers."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return inner


def pieces_of(texts: list[str]) -> Tokenizer:
    """SentencePiece's way: a blank is a letter of its own, and there is no split before the merges."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL))
    return inner


def unigrams_of(texts: list[str]) -> Tokenizer:
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>"))
    return inner


@pytest.mark.parametrize(
    "named", [None, "PreTrainedTokenizerFast", "XLMRobertaTokenizer", "Qwen2TokenizerFast", "Bert"]
)
@pytest.mark.parametrize("made", [bytes_of, pieces_of, unigrams_of])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "bert", "xlm-roberta"])
def test_the_ids_are_those_of_tokenizer_json_whatever_class_is_named(
    name: str, made: Callable[[list[str]], Tokenizer], named: str | None, tmp_path: Path
) -> None:
    texts = ["Amber Road of Avalon", "Star Rider (1999)", "FIFA 2007", "Robot in the Moonbase 2"] * 5
    right = made(texts)
    kind = ARCHITECTURES[name]
    settings = config(name, vocab_size=512)
    build(AutoModelForCausalLM if kind.causal else AutoModel, settings).save_pretrained(tmp_path)
    right.save(str(tmp_path / "tokenizer.json"))
    said = NAMES | {"unk_token": "<unk>"} | ({"tokenizer_class": named} if named else {})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    found = load(tmp_path).tokenizer
    for text in [*texts, "Zürich & ÄRGER 123456"]:
        assert found.encode(text, add_special_tokens=False) == right.encode(text, add_special_tokens=False).ids
    assert found.backend_tokenizer.get_vocab() == right.get_vocab()
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (0, 1, 2)


def test_control_tokens_are_those_of_the_files_or_of_the_class_that_they_name(tmp_path: Path) -> None:
    folder = save(tmp_path, "llama")
    path, beside = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    path.write_text(json.dumps({"tokenizer_class": "LlamaTokenizerFast", "pad_token": {"content": "<pad>", "x": 1}}))
    found = load(folder).tokenizer
    assert (found.bos_token, found.eos_token, found.pad_token) == ("<s>", "</s>", "<pad>")
    path.unlink()
    assert load(folder).tokenizer.pad_token == "</s>", "a llama's own: begin and end, and the end pads"
    beside.write_text(json.dumps({"eos_token": "<pad>", "bos_token": None}))
    found = load(folder).tokenizer
    assert (found.bos_token, found.eos_token, found.pad_token) == (None, "<pad>", "<pad>")
    path.write_text(json.dumps({"eos_token": "</s>", "mask_token": "<none>"}))
    found = load(folder).tokenizer
    assert (found.bos_token, found.eos_token, found.mask_token) == (None, "</s>", None)
    path.write_text(json.dumps({"pad_token": "[PAD]"}))
    with pytest.raises(
        InputError, match=r"tokenizer_config\.json: pad_token is '\[PAD\]', which tokenizer\.json does not"
    ):
        load(folder)
    path.write_text(json.dumps({"eos_token": 5}))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: eos_token is 5"):
        load(folder)


def test_no_other_file_makes_a_tokenizer(tmp_path: Path) -> None:
    folder = save(tmp_path, "gpt2")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "<|endoftext|>": 1}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match=r"there is no tokenizer\.json.*save_pretrained"):
        load(folder)


def test_numbers_of_tokens_that_the_embedding_does_not_have_are_refused(tmp_path: Path) -> None:
    """Also where the tokens are few, and their numbers are not."""
    folder = save(tmp_path, "llama")
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["vocab"]["Amber"] = VOCABULARY
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=f"numbers its tokens up to {VOCABULARY}, .* has {VOCABULARY} rows"):
        load(folder)


def test_a_tokenizer_that_makes_the_library_panic_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, "llama")
    for model in (
        {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]},
        {"type": "Unigram", "vocab": [], "unk_id": 7},
        [],
    ):
        described = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(described | {"model": model}))
        with pytest.raises(InputError, match="tokenizer"):
            load(folder)

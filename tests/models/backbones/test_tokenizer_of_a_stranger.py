"""The tokenizer of a model folder is that of tokenizer.json, whatever else the folder says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModel, AutoModelForCausalLM

from pplr_audit.errors import InputError
from pplr_audit.models.architectures import ARCHITECTURES
from tests.models.architectures import VOCABULARY, build, config
from tests.models.backbones.test_folder_of_a_stranger import NAMES, SPECIAL, load, save


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


def test_a_tokenizer_that_fails_at_a_word_it_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, "llama")
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["unk_token"] = "gone"
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"tokenizer\.json: the tokenizer fails at a word that it does not have: "):
        load(folder)

"""The tokenizer of a model folder: the one that tokenizer.json describes, and no other.

The library would choose a class by name and rebuild the pipeline as that class has it, with other ids wherever the file
says something else. Here the file is taken as it is; from tokenizer_config.json and special_tokens_map.json come only
the names of the control tokens.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from pplr_audit.errors import InputError, visible
from pplr_audit.models.backbones.config import one_line
from pplr_audit.models.backbones.folder import ModelFolder

ROLES = ("bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
OPTIONAL = ("unk_token", "mask_token")
"""Nothing here puts them into a sequence, so it does no harm where the vocabulary lacks them."""

_ENDOFTEXT = "<|endoftext|>"
_ROBERTA = {
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>",
    "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
_BERT = {
    "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip
_GPT2 = {"bos_token": _ENDOFTEXT, "eos_token": _ENDOFTEXT, "unk_token": _ENDOFTEXT}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_QWEN2 = {"eos_token": _ENDOFTEXT, "pad_token": _ENDOFTEXT, "unk_token": _ENDOFTEXT}
_GEMMA = {
    "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
UNHEARD = "\ue000"
"""A letter for private use, which no vocabulary has."""
BY_CLASS: Mapping[str, Mapping[str, str]] = {
    "BertTokenizer": _BERT, "GPT2Tokenizer": _GPT2, "RobertaTokenizer": _ROBERTA, "XLMRobertaTokenizer": _ROBERTA,
    "LlamaTokenizer": _LLAMA, "CodeLlamaTokenizer": _LLAMA, "Qwen2Tokenizer": _QWEN2, "GemmaTokenizer": _GEMMA,
}  # fmt: skip
"""The control tokens that a class of the library has of its own, so that folders which name it need not name them."""
BY_TYPE: Mapping[str, str] = {
    "bert": "BertTokenizer", "gpt2": "GPT2Tokenizer", "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer", "llama": "LlamaTokenizer", "mistral": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "gemma": "GemmaTokenizer", "gemma3_text": "GemmaTokenizer",
}  # fmt: skip
"""The class of a folder that names none, by its config's model_type."""


def load_tokenizer(folder: ModelFolder, model_type: str, *, causal: bool) -> PreTrainedTokenizerFast:
    """The tokenizer with a padding token, and with an end token where the model is causal.

    Raises:
        InputError: there is no tokenizer.json, it cannot be read, or a control token is missing.
    """
    inner = _inner(folder)
    names = _names(folder, model_type, inner)
    if causal and "eos_token" not in names:
        raise InputError(f"{folder.path}: the tokenizer has no end token (eos_token in tokenizer_config.json)")
    if "pad_token" not in names and "eos_token" in names:
        names["pad_token"] = names["eos_token"]
    if "pad_token" not in names:
        raise InputError(f"{folder.path}: the tokenizer has no padding token (pad_token in tokenizer_config.json)")
    library: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = library(tokenizer_object=inner, clean_up_tokenization_spaces=False, **names)
    if len(wrapped) != inner.get_vocab_size():
        raise InputError(f"{folder.path / 'tokenizer.json'}: the library adds tokens to it that it does not have")
    return wrapped


def _inner(folder: ModelFolder) -> Tokenizer:
    path = folder.path / "tokenizer.json"
    found = folder.read("tokenizer.json")
    if found is None:
        raise InputError(
            f"{folder.path}: there is no tokenizer.json, and a tokenizer is not made of other files; write it with"
            " transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    try:
        inner = Tokenizer.from_buffer(found)
    except BaseException as error:
        # A description that contradicts itself ends in a panic of the library, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{path}: the tokenizer cannot be read: {one_line(error)}") from None
    try:
        inner.encode(UNHEARD)
    except Exception as error:  # of a kind of the library's own
        raise InputError(f"{path}: the tokenizer fails at a word that it does not have: {one_line(error)}") from None
    return inner


def _names(folder: ModelFolder, model_type: str, inner: Tokenizer) -> dict[str, str]:
    """The control tokens by role: as the files name them, else as the class that they name has them.

    Raises InputError for one that tokenizer.json does not have.
    """
    settings = folder.read_json("tokenizer_config.json") or {}
    listed = folder.read_json("special_tokens_map.json") or {}
    own = settings.get("tokenizer_class") or BY_TYPE[model_type]
    usual = BY_CLASS.get(str(own).removesuffix("Fast"), {})
    names: dict[str, str] = {}
    for role in ROLES:
        place = "tokenizer_config.json" if role in settings or role not in listed else "special_tokens_map.json"
        named = role in settings or role in listed
        said = {**listed, **settings}.get(role) if named else usual.get(role)
        word = said.get("content") if isinstance(said, dict) else said
        if word is None:
            continue
        if not isinstance(word, str):
            raise InputError(f"{folder.path / place}: {role} is {visible(json.dumps(said)[:60])} (accepted: a token)")
        if inner.token_to_id(word) is not None:
            names[role] = word
        elif named and role not in OPTIONAL:
            raise InputError(
                f"{folder.path / place}: {role} is {visible(word[:60])!r}, which tokenizer.json does not have"
            )
    return names

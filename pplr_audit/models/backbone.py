"""The language model a recommender is built on: trained here, installed, read from a folder, or fetched from a hub.

Whatever its source, it passes the same checks, because a model that is silently half random or reads a tokenizer not
its own gives an audit that looks fine and means nothing.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from pplr_audit.data.dataset import Catalogue
from pplr_audit.errors import InputError
from pplr_audit.models import library, minilm, tiny_llama
from pplr_audit.models.family import Family, family, family_of
from pplr_audit.paths import expanded

ACCEPTED = (
    "accepted: tiny-llama, minilm, a folder with config.json, *.safetensors and a tokenizer, or a Hugging Face hub name"
)

DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    "attention_dropout",
)  # fmt: skip
"""What the rates are called in the configs of the supported families."""


@dataclass(frozen=True)
class Backbone:
    """A causal language model, or the body of an encoder, with its tokenizer."""

    name: str
    """As the scenario states it."""
    model: PreTrainedModel
    """Float32, eval mode, no parameter requires grad."""
    tokenizer: PreTrainedTokenizerFast
    """Has a padding token; with a causal model an end token too, which pads where it brought none."""
    digest: str
    """SHA-256 in hex over the names, shapes and bytes of all weights and over the tokenizer."""

    @property
    def causal(self) -> bool:
        """Whether the model predicts the next token, so that it can generate."""
        return family(self.model).causal

    @property
    def positions(self) -> int | None:
        """The most tokens in a sequence, where the config says."""
        said: int | None = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa counts positions from behind the padding token's number on.
        tables = [m for name, m in self.model.named_modules() if name.endswith("position_embeddings")]
        unused = max((table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0)
        return None if said is None else said - unused


def load_backbone(name: str, catalogue: Catalogue, *, seed: int, cache: Path | None = None) -> Backbone:
    """The backbone called ``name``: ``tiny-llama``, ``minilm``, a folder, or a name on the Hugging Face hub.

    They are tried in this order. An encoder is its body: poolers and heads in its folder are passed over.

    ``catalogue``, ``seed`` and ``cache`` matter to ``tiny-llama`` alone, which is trained on the catalogue and kept
    under ``cache``. Raises InputError, naming the folder and the file, where the model cannot be had or is not whole.
    """
    model: PreTrainedModel
    if name == "tiny-llama":
        model, tokenizer = tiny_llama.train(catalogue, seed=seed, cache=cache)
    elif name == "minilm":
        model, tokenizer = _load_folder(minilm.folder())
    else:
        folder = expanded(name, "model.backbone")
        model, tokenizer = _load_folder(folder if folder.is_dir() else _fetch(name))
    return Backbone(name, model, tokenizer, digest(model, tokenizer))


def set_dropout(model: PreTrainedModel, rate: float) -> None:
    """Let the model's own layers drop out at ``rate`` in training, in place. Call it before an adapter is added."""
    config: Any = model.config
    for name in DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "attention_dropout", None), int | float):  # a rate, or a module that has one
            module.attention_dropout = rate  # type: ignore[assignment]


def digest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 over the names, shapes, types and bytes of all weights and over the tokenizer, in hex.

    The tokenizer's padding and truncation are left out: they are switched by use, not part of what it is.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        sha.update(memoryview(values.view(torch.uint8).numpy() if values.dim() else values.reshape(1).numpy()))
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description |= {"padding": None, "truncation": None}
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token]
    sha.update(json.dumps([description, special], sort_keys=True).encode())
    return sha.hexdigest()


def _fetch(name: str) -> Path:
    """Download (or find in the hub's own cache) the safetensors, configs and tokenizer of ``name``."""
    try:
        with _quiet():
            # Weights in pickle files are never fetched; nor is anything in subfolders, where repositories keep copies.
            return Path(
                snapshot_download(
                    name, allow_patterns=["*.json", "*.safetensors", "*.model"], ignore_patterns=["*/*"], etag_timeout=5
                )
            )
    except HFValidationError:
        tried = "it is no folder here and cannot be a hub name"
    except LocalEntryNotFoundError:
        tried = "it is no folder here, and the hub cannot be reached, nor is it in the hub's cache"
    except (HfHubHTTPError, OSError) as error:
        tried = f"it is no folder here, and the hub answered: {_one_line(error)}"
    raise InputError(f"model.backbone: {name!r}: {tried}; {ACCEPTED}")


def _load_folder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    kind, _ = read_config(folder)
    _check_weight_files(folder)
    with _quiet(), torch.random.fork_rng(devices=[]):
        tokenizer = _load_tokenizer(folder, kind)
        model = _load_model(folder, kind)
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        raise InputError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the embedding in *.safetensors has"
            f" {embeddings.num_embeddings} rows"
        )
    model.requires_grad_(False).train(False)
    return model, tokenizer


def read_config(folder: Path) -> tuple[Family, PreTrainedConfig]:
    """What ``config.json`` in the folder says, checked; nothing else of the folder is looked at.

    Raises:
        InputError: there is none, it cannot be read, or the architecture cannot be cut.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: there is no config.json; {ACCEPTED}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    kind = family_of(config.get("model_type") if isinstance(config, dict) else None, str(path))
    if not kind.causal and config.get("is_decoder"):
        raise InputError(f"{path}: is_decoder is true; an encoder turned into a decoder is not supported")
    try:
        read: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library validates with exceptions of its own
        raise InputError(f"{path}: {_one_line(error)}") from None
    return kind, read


def _check_weight_files(folder: Path) -> None:
    """Every weight file is there and whole. Opening one checks its header against its length."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        paths = [folder / "model.safetensors"]
    elif index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            outside = [name for name in names if Path(name).name != name]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: no weight_map can be read: {error!r}") from None
        if outside:
            raise InputError(f"{index}: {outside[0]!r} is no file of this folder")
        paths = [folder / name for name in names]
    else:
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"only pickled weights ({pickled[0]}), which are never read" if pickled else "no weights"
        raise InputError(f"{folder}: there are {found}; expected model.safetensors")
    for path in paths:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read as safetensors: {error}") from None


def _load_tokenizer(folder: Path, kind: Family) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise bare Exceptions for a tokenizer they cannot read
        raise InputError(f"{folder}: the tokenizer cannot be read (tokenizer.json): {_one_line(error)}") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{folder}: the tokenizer is a {type(tokenizer).__name__}; expected one with a tokenizer.json")
    if kind.causal and tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: the tokenizer has no end token (eos_token in tokenizer_config.json)")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InputError(f"{folder}: the tokenizer has no padding token (pad_token in tokenizer_config.json)")
    return tokenizer


def _load_model(folder: Path, kind: Family) -> PreTrainedModel:
    try:
        model, info = library.from_folder(folder, kind)
    except Exception as error:  # a config with impossible sizes ends in whatever the layer built first raises
        raise InputError(f"{folder}: no model can be built from config.json: {_one_line(error)}") from None
    prefix = model.base_model_prefix + "."
    info["unexpected_keys"] = {
        key for key in info["unexpected_keys"] if key.removeprefix(prefix).split(".")[0] not in kind.heads
    }
    # transformers fills what is missing with random values and goes on.
    words = {"missing_keys": "missing", "mismatched_keys": "misshapen", "unexpected_keys": "unexpected"}
    for what, word in words.items():
        keys = sorted(key if isinstance(key, str) else key[0] for key in info[what])
        if keys:
            raise InputError(f"{folder}: {len(keys)} tensors are {word} in *.safetensors, the first: {keys[0]}")
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{folder}: values that are not finite in *.safetensors, tensor {name}")
    return model


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and progress bars of transformers and the hub inside; as before outside."""
    library: Any = transformers_logging
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()

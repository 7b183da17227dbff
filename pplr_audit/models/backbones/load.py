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
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from pplr_audit.data.dataset import Catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import RATES, architecture
from pplr_audit.models.backbones import minilm, tiny_llama
from pplr_audit.models.backbones.config import ACCEPTED, one_line, read_config
from pplr_audit.models.backbones.folder import ModelFolder
from pplr_audit.models.backbones.tokenizer import load_tokenizer
from pplr_audit.models.backbones.weights import load_model
from pplr_audit.scenario.paths import expanded


@dataclass(frozen=True)
class Backbone:
    """A causal language model, or the body of an encoder, with its tokenizer."""

    name: str
    """Name as the scenario states it."""
    model: PreTrainedModel
    """Float32, eval mode, no parameter requires grad."""
    tokenizer: PreTrainedTokenizerFast
    """Has a padding token; with a causal model an end token too, which pads where it brought none."""
    digest: str
    """SHA-256 in hex over the names, shapes and bytes of all weights and over the tokenizer."""

    @property
    def causal(self) -> bool:
        """True if the model predicts the next token, so that it can generate."""
        return architecture(self.model).causal

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
    else:
        folder = _named(name)
        model, tokenizer = _load_folder(folder if folder.path.is_dir() else ModelFolder(_fetch(name)))
    return Backbone(name, model, tokenizer, digest(model, tokenizer))


def hidden_size(name: str) -> int | None:
    """The hidden size of the backbone called ``name``, told without loading it.

    None where that is not known yet (a name on the hub), or where `load_backbone` will refuse it.
    """
    if name == "tiny-llama":
        return tiny_llama.Recipe().hidden
    try:
        size = getattr(read_config(_named(name))[1], "hidden_size", None)
    except InputError:
        return None
    return size if isinstance(size, int) else None


def set_dropout(model: PreTrainedModel, rate: float) -> None:
    """Let the model's own layers drop out at ``rate`` in training, in place. Call it before an adapter is added."""
    config: Any = model.config
    for name in RATES:
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
                    name, allow_patterns=["*.json", "*.safetensors"], ignore_patterns=["*/*"], etag_timeout=5
                )
            )
    except HFValidationError:
        tried = "it is no folder here and cannot be a hub name"
    except LocalEntryNotFoundError:
        tried = "it is no folder here, and the hub cannot be reached, nor is it in the hub's cache"
    except (HfHubHTTPError, OSError) as error:
        tried = f"it is no folder here, and the hub answered: {one_line(error)}"
    raise InputError(f"model.backbone: {name!r}: {tried}; {ACCEPTED}")


def _named(name: str) -> ModelFolder:
    """The installed folder of ``minilm``, or the one whose path ``name`` is; there may be none there."""
    if name == "minilm":
        installed = minilm.folder()  # byte for byte the published one, wherever an installer links to
        return ModelFolder(installed, Path(installed.anchor))
    return ModelFolder(expanded(name, "model.backbone"))


def _load_folder(folder: ModelFolder) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    folder.require_no_adapter()
    kind, config = read_config(folder)
    with _quiet(), torch.random.fork_rng(devices=[]):
        tokenizer = load_tokenizer(folder, config.model_type, causal=kind.causal)
        model = load_model(folder, kind, config)
    embeddings: Any = model.get_input_embeddings()
    numbers = max(tokenizer.get_vocab().values(), default=-1) + 1
    if numbers > embeddings.num_embeddings:
        raise InputError(
            f"{folder.path}: the tokenizer numbers its tokens up to {numbers - 1}, but the embedding in *.safetensors"
            f" has {embeddings.num_embeddings} rows"
        )
    model.requires_grad_(False).train(False)
    return model, tokenizer


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

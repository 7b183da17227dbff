"""Which of the library's own classes a backbone is, a causal language model with its head or an encoder's body, and how
it is handed what it remembers."""

from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from pplr_audit.models.family import Family, family_of

_CACHE = "cache" if Version(transformers.__version__) >= Version("5.24") else "past_key_values"
"""The library's name for the keys and values of earlier positions; the older one goes with its version 5.40."""


def remembering(cache: Cache | None) -> dict[str, Cache | None]:
    """What a forward pass is called with so that it goes on from ``cache``, and adds to it."""
    return {_CACHE: cache}


def from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with weights drawn at random. Raises InputError for an architecture that cannot be cut."""
    library, settings = _class_of(family_of(config.model_type, "model.backbone"))
    model: PreTrainedModel = library.from_config(config, **settings)
    return model


def from_folder(folder: Path, kind: Family) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model in ``folder`` in float32, and what the library says of tensors that did not fit.

    Nothing is downloaded, no code of the folder is run, no pickle is read. Raises whatever the library raises.
    """
    library, settings = _class_of(kind)
    model: PreTrainedModel
    info: dict[str, Any]
    model, info = library.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # the caller reports them by name
        **settings,
    )
    return model, info


def _class_of(kind: Family) -> tuple[Any, dict[str, Any]]:
    # A recommender pools an encoder's states itself; a pooler that no loss reaches would only be a part to hold.
    return (AutoModelForCausalLM, {}) if kind.causal else (AutoModel, {"add_pooling_layer": False})

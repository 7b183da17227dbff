"""The library's own class for a backbone, a causal language model with its head or an encoder's body, and the way
its cache is passed."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from pplr_audit.models.architectures import Architecture, architecture_of

_CACHE = "cache" if Version(transformers.__version__) >= Version("5.24") else "past_key_values"
"""The library's name for the keys and values of earlier positions; the older one goes with its version 5.40."""


def remembering(cache: Cache | None) -> dict[str, Cache | None]:
    """Return the arguments by which a forward pass goes on from ``cache`` and adds to it."""
    return {_CACHE: cache}


def from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with weights drawn at random. Raises InputError for an architecture that cannot be cut."""
    library, settings = _class_of(architecture_of(config.model_type, "model.backbone"))
    model: PreTrainedModel = library.from_config(config, **settings)
    return model


def of_tensors(config: PreTrainedConfig, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
    """The model that ``config`` describes with these values, in float32 and in evaluation mode.

    No file is opened, and nothing that ``config`` names is fetched or run. Raises whatever the library raises.

    Args:
        tensors: by the model's own names, of each that it has; of tied ones, one is enough.
    """
    auto, settings = _class_of(architecture_of(config.model_type, "model.backbone"))
    library: Any = auto._model_mapping[type(config)]
    model: PreTrainedModel = library.from_pretrained(
        None, config=config, state_dict=dict(tensors), dtype=torch.float32, attn_implementation="sdpa", **settings
    )
    return model


def _class_of(kind: Architecture) -> tuple[Any, dict[str, Any]]:
    # A recommender pools an encoder's states itself; a pooler that no loss reaches would only be a part to hold.
    return (AutoModelForCausalLM, {}) if kind.causal else (AutoModel, {"add_pooling_layer": False})

"""Where each supported architecture keeps its blocks, so that all else can speak of layers by number."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from pplr_audit.errors import InputError


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps the parts that the cut needs, as attribute names."""

    body: str
    blocks: str
    norm: str
    embeddings: str


FAMILIES = {"llama": Family(body="model", blocks="layers", norm="norm", embeddings="embed_tokens")}


def family(model: Any) -> Family:
    """The family of a causal language model, by its config. Raises InputError for one that cannot be cut yet."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise InputError(f"model.backbone: architecture {kind!r} cannot be cut (accepted: {', '.join(FAMILIES)})")
    return FAMILIES[kind]


def body(model: Any) -> Any:
    """The stack of blocks with its embeddings and final norm: the causal model without its head."""
    return getattr(model, family(model).body)


def blocks(model: Any) -> nn.ModuleList:
    """The blocks of a causal language model, in order."""
    return getattr(body(model), family(model).blocks)  # type: ignore[no-any-return]

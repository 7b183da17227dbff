"""Lists of what there is to choose from, one line each, read without importing any of it."""

from typing import Literal, get_args

from pplr_audit import scenarios
from pplr_audit.models.architectures import ARCHITECTURES, REFUSED
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.scenario import plugins

Kind = Literal["attacks", "defenses", "scenarios", "models", "readers", "strategies"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BACKBONES = {
    "tiny-llama": "a Llama of a few hundred thousand weights, trained on the catalogue's titles on first use",
    "minilm": "all-MiniLM-L6-v2, a BERT encoder, for recformer; comes with the extra minilm",
    "FOLDER": "a folder with config.json, *.safetensors and a tokenizer, of one of the types below",
    "ORG/NAME": "a model of one of the types below on the Hugging Face hub, downloaded on first use",
}
_USE = {True: "decoder, for bigrec", False: "encoder, for recformer"}


def _models() -> dict[str, str]:
    """List what ``model.backbone`` takes, the families by ``model_type`` in config.json, and shapes known by name."""
    types = {
        f"type {name}": f"{kind.says}; {_USE[kind.causal]}, LoRA on {', '.join(kind.targets)}"
        for name, kind in ARCHITECTURES.items()
    }
    refused: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        refused.setdefault(reason, []).append(name)
    others = {f"not {names[0]}": f"{_nor(names[1:])}{reason}" for reason, names in refused.items()}
    shapes = {
        f"shape {name}": f"{model.parameters / 1e9:.3g} billion weights ({model.source}), for pplr-audit costs"
        for name, model in NAMED.items()
    }
    return {**_BACKBONES, **types, **others, **shapes}


def _nor(names: list[str]) -> str:
    return f"nor {', '.join(names)}: " if names else ""


def listing(kind: Kind) -> dict[str, str]:
    """Name to a one-line description, for one of ``KINDS``."""
    if kind == "scenarios":
        return scenarios.shipped()
    if kind == "models":
        return _models()
    return plugins.describe(kind)

"""What there is to choose from, one line each, read without importing any of it."""

from typing import Literal, get_args

from pplr_audit import plugins, scenarios

Kind = Literal["attacks", "defenses", "scenarios", "models", "readers", "strategies"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MODELS = {
    "tiny-llama": "a Llama of a few hundred thousand weights, trained on the catalogue's titles on first use",
    "FOLDER": "a folder with config.json, *.safetensors and a tokenizer (Llama family)",
    "ORG/NAME": "a model of the Llama family on the Hugging Face hub, downloaded on first use",
}


def listing(kind: Kind) -> dict[str, str]:
    """Name to a one-line description, for one of ``KINDS``."""
    if kind == "scenarios":
        return scenarios.shipped()
    if kind == "models":
        return _MODELS
    return plugins.describe(kind)

"""The trained parameters of a model, which make up its adapter: LoRA, new embeddings, or all."""

from torch import nn

from pplr_audit import scenario
from pplr_audit.models.lora import add_lora
from pplr_audit.models.recommenders.recformer import IDS, MARKS, add_ids, add_marks


def make_trainable(model: nn.Module, settings: scenario.Model, *, history: int, items: int, seed: int) -> None:
    """Add to ``model`` what its recommender trains besides, and let exactly that require a gradient, in place.

    Args:
        history: the most items in a sequence.
        items: of the catalogue.
        seed: of the LoRA factors that are drawn.

    Raises:
        InputError: a LoRA target is missing.
    """
    if settings.recommender == "bigrec":
        add_lora(model, settings.lora, seed)
        return
    if settings.recformer.train != "all":
        add_lora(model, settings.lora, seed)
    add_marks(model, history)
    if settings.recformer.ids:
        add_ids(model, items)
    for name, parameter in model.named_parameters():
        if settings.recformer.train == "all" or f".{IDS}." in name:
            parameter.requires_grad_(True)
        elif f".{MARKS}." in name:
            parameter.requires_grad_(settings.recformer.train == "embeddings")

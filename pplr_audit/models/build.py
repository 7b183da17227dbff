"""The scenario's model, put together once: backbone, task, adapter, and the cut."""

from dataclasses import dataclass
from typing import Any

import torch

from pplr_audit import scenario
from pplr_audit.data.bigrec_prompts import title_prompts
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prompts import Prompts
from pplr_audit.data.recformer_prompts import item_prompts
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import ARCHITECTURES, blocks
from pplr_audit.models.backbones.config import one_line
from pplr_audit.models.backbones.load import Backbone, load_backbone, set_dropout
from pplr_audit.models.cut import CutModel, check_cut, cut
from pplr_audit.models.lora import Adapter, adapter_parameters, read_adapter
from pplr_audit.models.precision import Precision, choose_attention, compute_in, resolved
from pplr_audit.models.recommenders.bigrec import BigRec, require_causal
from pplr_audit.models.recommenders.recformer import RecFormer
from pplr_audit.models.recommenders.task import Task
from pplr_audit.models.trainable import make_trainable
from pplr_audit.models.uncut import UncutModel
from pplr_audit.scenario.seeds import derive


@dataclass(frozen=True)
class Recommender:
    """A recommender on one backbone."""

    backbone: str
    digest: str
    """SHA-256 of the base weights and the tokenizer."""
    task: Task
    initial: Adapter
    """Start of every client's adapter."""
    parts: CutModel
    whole: UncutModel
    tokenizer: Any
    precision: Precision

    @property
    def prompts(self) -> Prompts:
        return self.task.prompts

    @property
    def layers(self) -> int:
        return self.parts.layers


def build(
    model: scenario.Model, catalogue: Catalogue, *, history: int, seed: int,
    training: scenario.Training | None = None,
) -> Recommender:  # fmt: skip
    """Load, adapt and cut.

    Args:
        history: the most items in a sequence.
        training: how it will be trained; none stands for the defaults.

    Raises:
        InputError: the backbone, the recommender, the targets, ``max_tokens`` or the cut do not fit.
    """
    backbone = load_backbone(model.backbone, catalogue, seed=derive(seed, "backbone") % 2**32)
    if model.dropout is not None:
        set_dropout(backbone.model, model.dropout)
    _require_able(backbone)
    _require_kind(model.recommender, backbone)
    check_cut(model.cut.front, model.cut.back, len(blocks(backbone.model)))
    longest = backbone.positions
    if longest is not None and model.max_tokens > longest:
        raise InputError(
            f"model.max_tokens: {model.max_tokens} exceeds the positions of {backbone.name} (accepted: up to {longest})"
        )
    prompts = prompts_over(model, backbone.tokenizer, catalogue, history)
    make_trainable(
        backbone.model, model, history=history, items=len(catalogue), seed=derive(seed, "lora") % 2**63
    )  # fmt: skip
    initial = read_adapter(adapter_parameters(backbone.model))
    precision = resolved(model.precision, backbone.model)
    choose_attention(backbone.model, precision)
    whole = UncutModel(backbone.model, digest=f"{backbone.digest} {precision}")
    compute_in(whole.model, precision)
    whole.task = task = _task(model, whole.model, prompts, training or scenario.Training())
    parts = cut(backbone.model, model.cut.front, model.cut.back, seed=seed)
    for part in (parts.client, parts.trunk):
        if part is not None:
            compute_in(part, precision)
    return Recommender(backbone.name, backbone.digest, task, initial, parts, whole, backbone.tokenizer, precision)


def _require_able(backbone: Backbone) -> None:
    """Raises InputError for a model that computes nothing, or no numbers, from one token.

    Shapes alone do not tell: sizes of heads, scales of positions and those of norms are numbers in config.json.
    """
    try:
        with torch.inference_mode():
            found = backbone.model(torch.zeros(1, 1, dtype=torch.long), use_cache=False)[0]
    except Exception as error:  # whatever the layer that fits least raises
        raise InputError(f"model.backbone: {backbone.name}: the model cannot be run: {one_line(error)}") from None
    if not torch.isfinite(found).all():
        raise InputError(f"model.backbone: {backbone.name}: what the model computes is not finite; see its config.json")


def _require_kind(recommender: str, backbone: Backbone) -> None:
    needed = recommender == "bigrec"
    if backbone.causal == needed:
        if needed:
            require_causal(backbone)
        return
    does = (
        "generates the title of the next item, which {}, an encoder, cannot"
        if needed
        else "reads a sequence from both sides, which {}, a decoder, does not"
    ).format(f"{backbone.name} (of model_type {backbone.model.config.model_type})")
    other = "recformer" if needed else "bigrec"
    raise InputError(
        f"model.recommender: {recommender} {does} (accepted: {other}, or a backbone of model_type"
        f" {', '.join(name for name, kind in ARCHITECTURES.items() if kind.causal == needed)})"
    )


def prompts_over(model: scenario.Model, tokenizer: Any, catalogue: Catalogue, history: int) -> Prompts:
    """The recommender's template over a catalogue. Raises InputError where its items do not fit."""
    if model.recommender == "bigrec":
        return title_prompts(tokenizer, catalogue.titles, max_tokens=model.max_tokens, history=history)
    chosen = model.recformer
    return item_prompts(
        tokenizer, catalogue, attributes=chosen.attributes, attribute_tokens=chosen.attribute_tokens,
        max_tokens=model.max_tokens, history=history,
    )  # fmt: skip


def _task(model: scenario.Model, network: Any, prompts: Prompts, training: scenario.Training) -> Task:
    if model.recommender == "bigrec":
        return BigRec(
            network, prompts, beams=model.beams, loss_on=training.loss_on, popularity_weight=model.popularity_weight
        )
    return RecFormer(network, prompts, model.recformer, rounds=training.rounds)

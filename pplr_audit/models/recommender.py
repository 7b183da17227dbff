"""The scenario's model, put together once: backbone, prompts, adapter, grounding, and the cut."""

from dataclasses import dataclass

from pplr_audit import scenario
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prompts import Prompts
from pplr_audit.errors import InputError
from pplr_audit.models.backbone import load_backbone
from pplr_audit.models.bigrec import Grounding
from pplr_audit.models.cut import CutModel, check_cut, cut
from pplr_audit.models.family import FAMILIES, blocks
from pplr_audit.models.lora import Adapter, adapter_parameters, add_lora, read_adapter
from pplr_audit.models.whole import WholeModel
from pplr_audit.seeds import derive


@dataclass(frozen=True)
class Recommender:
    """BIGRec on one backbone."""

    backbone: str
    digest: str
    """SHA-256 of the base weights and the tokenizer."""
    prompts: Prompts
    initial: Adapter
    """Where every client's adapter starts."""
    parts: CutModel
    whole: WholeModel
    grounding: Grounding
    tokenizer: object

    @property
    def layers(self) -> int:
        return self.parts.layers


def build(model: scenario.Model, catalogue: Catalogue, *, history: int, seed: int) -> Recommender:
    """Load, adapt and cut.

    Raises:
        InputError: the backbone, the recommender, the targets, ``max_tokens`` or the cut do not fit.
    """
    backbone = load_backbone(model.backbone, catalogue, seed=derive(seed, "backbone") % 2**32)
    if not backbone.causal:
        raise InputError(
            f"model.recommender: {model.recommender} generates the title of the next item, which {backbone.name} (of"
            f" model_type {backbone.model.config.model_type}), an encoder, cannot (accepted: a backbone of model_type"
            f" {', '.join(name for name, kind in FAMILIES.items() if kind.causal)})"
        )
    check_cut(model.cut.front, model.cut.back, len(blocks(backbone.model)))
    longest = getattr(backbone.model.config, "max_position_embeddings", None)
    if longest is not None and model.max_tokens > longest:
        raise InputError(
            f"model.max_tokens: {model.max_tokens} exceeds the positions of {backbone.name} (accepted: up to {longest})"
        )
    prompts = Prompts(backbone.tokenizer, catalogue.titles, max_tokens=model.max_tokens, history=history)
    add_lora(backbone.model, model.lora, derive(seed, "lora") % 2**63)
    initial = read_adapter(adapter_parameters(backbone.model))
    whole = WholeModel(backbone.model, prompts.pad)
    grounding = Grounding.of_base(whole.model, prompts)
    parts = cut(backbone.model, model.cut.front, model.cut.back, seed=seed)
    return Recommender(backbone.name, backbone.digest, prompts, initial, parts, whole, grounding, backbone.tokenizer)

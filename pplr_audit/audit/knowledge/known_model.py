"""An adversary's copy of a client's model, or its stand-in where it has none."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.audit.queries import asked
from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.linears import Linear
from pplr_audit.models.recommenders.task import CatalogueEncoding
from pplr_audit.models.rows import Rows
from pplr_audit.models.token_tree import Branches, Prefix
from pplr_audit.models.uncut import Front, UncutModel
from pplr_audit.threat_model.artifacts import digest
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.recipe import Recipe

NO_MODEL = "this attack runs the model, and the adversary has no weights, only pairs of a colluding client"


class KnownModel:
    """A model that an adversary can run: the whole model under one set of adapter values, or (None) the base model.

    Args:
        encoding: what the model goes by, where the adversary knows it; else it works it out once.
    """

    def __init__(
        self, whole: UncutModel, adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding | None = None
    ) -> None:
        self._whole, self._adapter, self._encoding = whole, adapter, encoding
        self._told = encoding

    @cached_property
    def digest(self) -> str:
        return digest(self._whole.digest, self._adapter, self._told)

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        return self._whole.states(prompts, layers, self._adapter)

    def extend(
        self, prefix: Prefix, tokens: Int[np.ndarray, "nodes"], parents: Sequence[int], layers: Sequence[int]
    ) -> Branches:
        return self._whole.extend(prefix, torch.from_numpy(tokens), parents, layers, self._adapter)

    @property
    def causal(self) -> bool:
        return self._whole.causal

    @property
    def heads(self) -> tuple[int, int]:
        return self._whole.heads

    def under(self, adapter: Mapping[str, Tensor]) -> "KnownModel":
        return KnownModel(self._whole, adapter, self._told)

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        return asked(self._whole, prompts, self._adapter, self._encoded())

    def recommend(
        self, history: Ragged, popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]]:
        """Recommend as `Task.recommend` does."""
        served = self._whole.served(self._adapter, self._encoded())
        return self._whole.task.recommend(served, history, popularity)

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        return self._whole.enter(layer, embeddings, mask, self._adapter)

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        return self._whole.logits(layer, hidden, self._adapter, self._encoded())

    def front(self, layer: int) -> Front:
        return self._whole.front(layer, self._adapter)

    @property
    def linears(self) -> Mapping[str, Linear]:
        return self._whole.linears

    @property
    def rows(self) -> Mapping[str, Rows]:
        return self._whole.rows

    @property
    def adapter(self) -> Mapping[str, Tensor]:
        return self._whole.initial if self._adapter is None else self._adapter

    def entering(
        self, prompts: Sequence[Prompt], modules: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "length width"]]]]:
        return self._whole.entering(prompts, modules, self._adapter)

    def entering_from(
        self, layer: int, hidden: Float[Tensor, "batch length hidden"], modules: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch length width"]]:
        return self._whole.entering_from(layer, hidden, modules, self._adapter)

    def gradients(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        return self._whole.gradients(prompts, self._adapter, self._encoded())

    def gradients_at(
        self, prompts: Sequence[Prompt], embeddings: Sequence[Float[Tensor, "length hidden"]]
    ) -> dict[str, Tensor]:
        return self._whole.gradients_at(prompts, embeddings, self._adapter, self._encoded())

    def trained(
        self, batches: Sequence[Sequence[Prompt]], recipe: Recipe, factors: Sequence[float], earlier: int = 0
    ) -> dict[str, Tensor]:
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.SGD
        optimizer = partial(kind, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        return self._whole.trained(batches, self._adapter, self._encoded(), optimizer, factors, earlier)

    def _encoded(self) -> CatalogueEncoding:
        if self._encoding is None:
            self._encoding = self._whole.encoding(self._adapter)
        return self._encoding


class NoModel:
    """Stand-in for a model that an adversary does not have."""

    @property
    def digest(self) -> str:
        raise NotApplicable(NO_MODEL)

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        raise NotApplicable(NO_MODEL)

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        raise NotApplicable(NO_MODEL)

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        raise NotApplicable(NO_MODEL)

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        raise NotApplicable(NO_MODEL)

    def extend(
        self, prefix: Prefix, tokens: Int[np.ndarray, "nodes"], parents: Sequence[int], layers: Sequence[int]
    ) -> Branches:
        raise NotApplicable(NO_MODEL)

    def front(self, layer: int) -> Front:
        raise NotApplicable(NO_MODEL)

    @property
    def causal(self) -> bool:
        raise NotApplicable(NO_MODEL)

    @property
    def heads(self) -> tuple[int, int]:
        raise NotApplicable(NO_MODEL)

    def under(self, adapter: Mapping[str, Tensor]) -> "NoModel":
        raise NotApplicable(NO_MODEL)

    @property
    def linears(self) -> Mapping[str, Linear]:
        raise NotApplicable(NO_MODEL)

    @property
    def rows(self) -> Mapping[str, Rows]:
        raise NotApplicable(NO_MODEL)

    @property
    def adapter(self) -> Mapping[str, Tensor]:
        raise NotApplicable(NO_MODEL)

    def entering(
        self, prompts: Sequence[Prompt], modules: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "length width"]]]]:
        raise NotApplicable(NO_MODEL)

    def entering_from(
        self, layer: int, hidden: Float[Tensor, "batch length hidden"], modules: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch length width"]]:
        raise NotApplicable(NO_MODEL)

    def gradients(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        raise NotApplicable(NO_MODEL)

    def gradients_at(
        self, prompts: Sequence[Prompt], embeddings: Sequence[Float[Tensor, "length hidden"]]
    ) -> dict[str, Tensor]:
        raise NotApplicable(NO_MODEL)

    def trained(
        self, batches: Sequence[Sequence[Prompt]], recipe: Recipe, factors: Sequence[float], earlier: int = 0
    ) -> dict[str, Tensor]:
        raise NotApplicable(NO_MODEL)

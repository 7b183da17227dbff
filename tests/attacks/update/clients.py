"""Clients of a small recommender, each with a few samples, and what an adversary who is sent their updates knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model import Aggregate, Channel, Knowledge, LocalSteps, Recipe, Update, View
from tests.conftest import LAYERS

SGD = Recipe("pplr", 1, 1, 8, "sgd", 0.1, 0.0, "constant", 0.0, "factors")
ADAMW = Recipe("pplr", 1, 1, 2, "adamw", 0.005, 0.1, "constant", 0.0, "factors")


def moved(model: Recommender, seed: int = 5) -> dict[str, Tensor]:
    """The adapter as after some training."""
    generator = torch.Generator().manual_seed(seed)
    return {n: v + torch.randn(v.shape, generator=generator) * 0.02 for n, v in model.initial.items()}


@dataclass
class Clients:
    """Clients that train for one round from one start."""

    model: Recommender
    samples: Mapping[str, Sequence[Prompt]]
    recipe: Recipe = SGD
    start: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = self.start or moved(self.model)
        self.known = KnownModel(self.model.whole, self.start)
        size = self.recipe.batch_size
        self.batches = {
            client: [list(own[at : at + size]) for at in range(0, len(own), size)]
            for client, own in self.samples.items()
        }

    @property
    def updates(self) -> dict[str, dict[str, Tensor]]:
        return {
            client: self.known.trained(batches, self.recipe, [1.0] * len(batches))
            for client, batches in self.batches.items()
        }

    def view(self, channel: Channel = Channel.CLIENT_UPDATE) -> View[Any]:
        """All of the adapter is the clients'; rows are in the order of the clients."""
        updates, cut = self.updates, (LAYERS, 0)
        if channel == Channel.AGGREGATE:
            total = {name: sum(len(self.samples[c]) * u[name] for c, u in updates.items()) for name in self.start}
            records: tuple[Any, ...] = (Aggregate(0, tuple(updates), 1, total),)
        else:
            records = tuple(Update(row, c, 1, own, self.start) for row, (c, own) in enumerate(updates.items()))
        return View("server", channel, *cut, "none", records)

    def knowledge(self, **fields: Any) -> Knowledge:
        steps = {
            (client, 1): LocalSteps(sum(map(len, own)), (1.0,) * len(own), tuple(map(len, own)))
            for client, own in self.batches.items()
        }
        given: dict[str, Any] = {
            "recipe": self.recipe, "steps": steps, "auxiliary": "catalogue", "clients": tuple(self.samples), **fields
        }  # fmt: skip
        whole, base = self.model.whole, KnownModel(self.model.whole, None)
        copies: dict[tuple[str, int], Any] = {(client, 1): self.known for client in self.samples}
        return Knowledge("front", self.model.prompts, whole.embeddings, base, copies, (), 3, LAYERS, **given)


def answers_of(prompts: Sequence[Prompt]) -> set[int]:
    return {prompt.target for prompt in prompts}


def random_prompts(model: Recommender, count: int, seed: int, history: int = 3) -> list[Prompt]:
    """Prompts over random items, each with an answer of its own."""
    generator = np.random.default_rng(seed)
    answers = generator.permutation(len(model.prompts.titles))[:count]
    items = len(model.prompts.titles)
    return [model.prompts.build(generator.integers(items, size=history), int(item)) for item in answers]

"""Reads which items a client's samples were trained to answer with, from the client's update.

Gradients of a loss over answers name the answers (Zhao et al. 2020, *iDLG*, arXiv 2001.02610, section 3; several at
once, counted: Geng et al. 2021, *Towards General Deep Leakage in Federated Learning*, arXiv 2110.09074, section 4). An
update of several steps is, to first order, the sum of the samples' gradients; `signatures` has the maps from such a sum
to counts of answers.

What a client without an item scores for it is learned from simulated clients: the same recipe on auxiliary text. Half
of the catalogue is left out of each, so that every item is missing somewhere. The map whose scores tell the simulated
clients' items best is taken, and `chances` turns its scores into probabilities.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.chances import Calibration
from pplr_audit.attacks.update.directions import descent
from pplr_audit.attacks.update.public_side import Known, known_of
from pplr_audit.attacks.update.signatures import Reader, Sketch, Sketches, readers, usual_sizes
from pplr_audit.attacks.update.simulated import answering, drawn, trained_on, usual_answers
from pplr_audit.threat_model import (
    Aggregate,
    Budget,
    Channel,
    Guess,
    Knowledge,
    Model,
    NotApplicable,
    Recipe,
    Update,
    View,
)
from pplr_audit.threat_model.artifacts import digest, digest_of_prompts

BATCHES = 8
"""Batches from which the usual sizes of gradients are taken."""
SAMPLES = 64
"""Samples that the simulated clients of one size have together, at least."""


Told = tuple[Calibration, Reader]
Labeled = tuple[Sketch, Sketches, Int[np.ndarray, "prompts"]]


class UpdateLabel:
    """Ranks items by how likely a client's samples were trained to answer with them.

    Args:
        prompts: auxiliary prompts whose gradients are taken for a model, in all; there is one an item at least.
        clients: simulated clients for a model and a number of samples, at least.
        models: models of a round's start that are worked with, at most; a client goes by the nearest to its own.
        seed: of what is drawn.
    """

    name = "update_label"
    secret = "targets"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.AGGREGATE})
    controls = 1

    def __init__(self, prompts: int = 480, clients: int = 2, models: int = 1, seed: int = 0) -> None:
        require_whole("update_label", prompts=(prompts, 1), clients=(clients, 2), models=(models, 1), seed=(seed, 0))
        self.prompts, self.clients, self.models, self.seed = prompts, clients, models, seed

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        """Raises NotApplicable where the adversary lacks what it takes to simulate a client, or nothing was learned."""
        seen = [record for record in view.records if record.row in view.rows]
        known = known_of(seen, knowledge, self.models)
        found: dict[int, Float[np.ndarray, items]] = {}
        told: dict[tuple[Any, ...], Told] = {}
        models = {each.model.digest: each.model for each in known.values()}
        labeled = {key: self._labeled(model, knowledge, budget) for key, model in models.items()}
        for done, record in enumerate(seen):
            budget.check(done, len(seen))
            if any(bool(tensor.any()) for tensor in record.tensors.values()):
                found[record.row] = self._chances(
                    record, known[record.row], labeled[known[record.row].model.digest], knowledge, budget, told
                )
        if not found:
            raise NotApplicable("all of the update is zero: it says nothing of any sample")
        orders = {row: np.argsort(-chances, kind="stable") for row, chances in found.items()}
        arrays = {
            "rows": np.array([*orders], dtype=np.int64), "ranked_items": np.concatenate([*orders.values()]),
            "item_offsets": np.cumsum([0, *map(len, orders.values())]),
            "item_chances": np.concatenate([found[row][order] for row, order in orders.items()]),
        }  # fmt: skip
        return Guess(arrays, {**knowledge.facts, "start_models": len(models)})

    def _chances(
        self, record: Update | Aggregate, known: Known, labeled: Labeled, knowledge: Knowledge, budget: Budget,
        told: dict[tuple[Any, ...], Told],
    ) -> Float[np.ndarray, "items"]:  # fmt: skip
        """The probability of each item.

        Args:
            labeled: gradients of single prompts at the model.
            told: readers of clients like this one, with what they tell of simulated clients.
        """
        recipe = cast(Recipe, knowledge.recipe)
        sketch, shown, answers = labeled
        if isinstance(record, Aggregate):
            moved: Mapping[str, Tensor] = {name: value / known.samples for name, value in record.tensors.items()}
        else:
            moved = descent(record.tensors, record.start, knowledge, record.client, record.round)
        own = sketch.of(moved, scaled=recipe.optimizer != "adamw")
        if not own:
            raise NotApplicable("no tensor of this update is one that the adversary's model trains")
        key = known.model.digest, known.steps, known.clients, record.round, *own
        if key not in told:
            simulated, counts = self._simulated(known, record.round, sketch, knowledge, budget)
            told[key] = _told({name: simulated[name] for name in own}, counts, shown, answers)
        calibration, reader = told[key]
        return calibration.chances(reader.read(own), usual_answers(knowledge), known.samples, known.clients)

    def _labeled(self, model: Model, knowledge: Knowledge, budget: Budget) -> Labeled:
        """Sketches of single prompts' gradients, with the item that each answers with."""
        items = len(knowledge.prompts.titles)
        generator = np.random.default_rng(self.seed)
        answers = np.resize(np.arange(items), max(1, self.prompts // items) * items)
        texts = knowledge.draw(len(answers), generator)
        prompts = [answering(text, knowledge.prompts, int(item)) for text, item in zip(texts, answers, strict=True)]
        together = min(cast(Recipe, knowledge.recipe).batch_size, len(texts))
        batches = [[texts[i] for i in generator.permutation(len(texts))[:together]] for _ in range(BATCHES)]
        source = {
            "model": model.digest, "prompts": digest_of_prompts(prompts), "batches": [*map(digest_of_prompts, batches)],
        }  # fmt: skip
        sketch = Sketch(knowledge.fitted("usual_sizes", source, lambda: usual_sizes(model, batches)))

        def make() -> dict[str, Tensor]:
            found: dict[str, list[Tensor]] = {}
            for done, prompt in enumerate(prompts):
                budget.check(done, len(prompts))
                for name, value in sketch.of(model.gradients([prompt]), scaled=True).items():
                    found.setdefault(name, []).append(value.half())
            return {name: torch.stack(each) for name, each in found.items()}

        return sketch, knowledge.fitted("answer_gradients", source, make), answers

    def _simulated(
        self, known: Known, round_: int, sketch: Sketch, knowledge: Knowledge, budget: Budget
    ) -> tuple[Sketches, Int[np.ndarray, "clients items"]]:
        """Sketches of simulated clients' updates, and how many of their samples answer with each item."""
        recipe, steps, usual = cast(Recipe, knowledge.recipe), known.steps, usual_answers(knowledge)
        clients = max(self.clients, -(-SAMPLES // steps.samples))
        allowed = _halves(len(usual), clients, np.random.default_rng(self.seed))
        drawers = [np.random.default_rng((self.seed, place)) for place in range(clients)]
        texts = [
            drawn(knowledge, steps.samples, np.where(own, usual, 0), drawer)
            for own, drawer in zip(allowed, drawers, strict=True)
        ]
        counts = np.stack([np.bincount([each.target for each in own], minlength=len(usual)) for own in texts])
        source = {
            "model": known.model.digest, "texts": list(map(digest_of_prompts, texts)), "recipe": str(recipe),
            "steps": str(steps), "round": round_, "sizes": digest(sketch.sizes), "seed": self.seed,
        }  # fmt: skip

        def updates() -> Iterator[Mapping[str, Tensor]]:
            for prompts, drawer in zip(texts, drawers, strict=True):
                budget.check()
                yield trained_on(prompts, known.model, recipe, steps, round_, drawer)

        def make() -> Sketches:
            return sketch.of_all(updates(), scaled=recipe.optimizer != "adamw")

        simulated: Sketches = knowledge.fitted("simulated_updates", source, make)
        return _together(simulated, counts, known.clients, self.seed) if known.clients > 1 else (simulated, counts)


def _told(
    simulated: Sketches, counts: Int[np.ndarray, "clients items"], labeled: Sketches,
    answers: Int[np.ndarray, "prompts"],
) -> Told:  # fmt: skip
    """Return the reader that tells the items of simulated clients best, with what it tells of them."""
    shown = {name: labeled[name].float() for name in simulated}
    shared = [{name: rows.mean(0) for name, rows in each.items()} for each in (simulated, shown)]
    every = (
        (Calibration(reader.read(simulated), counts), reader)
        for reader in readers(shown, answers, counts.shape[1], shared)
    )
    return max(every, key=lambda each: each[0].signal)


def _halves(items: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return half of the items for each of ``count`` clients; of two in a row, each has what the other lacks."""
    halves = [generator.permutation(items) < (items + 1) // 2 for _ in range(-(-count // 2))]
    return np.stack([each for half in halves for each in (half, ~half)])[:count]


def _together(
    simulated: Sketches, counts: Int[np.ndarray, "clients items"], clients: int, seed: int
) -> tuple[Sketches, Int[np.ndarray, "sums items"]]:
    """Return means over several simulated clients, drawn with replacement, as a sum of updates has them."""
    generator = np.random.default_rng(seed)
    chosen = torch.from_numpy(generator.integers(len(counts), size=(2 * len(counts), clients)))
    return {name: rows[chosen].mean(1) for name, rows in simulated.items()}, counts[chosen.numpy()].sum(1)

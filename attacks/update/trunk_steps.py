"""trunk_steps: items from the gradients of single local steps, which whoever hosts the trunk computes for its clients.

With k + m = L only a round's change crosses. With a trunk, its host sees each gradient Dᵀ X of its layers, of one batch
(`Update` with a `step`). A batch has far fewer different inputs than a round, and no optimizer stands between it and
what is read: so the span of a step says more of each input in it (`lora_span`, whose reader this is). Items are ranked
by the best place that they have in any step.

This is reported without the activations that the same host has, for a host that keeps its gradients and no activations.
It adds nothing to them: G follows from what crosses up, h_k, and what crosses back, dLoss/dh_{L-m}, as the host itself
computes it from these (`training.server`). What an attack on activations reads of a step, no gradient can add to.

Source: spans of single gradients as in Petrov et al. 2024, *DAGER*, arXiv 2405.15586, section 4; that a split server
has them step by step is of this project.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.attacks.update.token_rows import merged, packed
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.recipe import LocalSteps
from pplr_audit.threat_model.view import Update, View

ADDS = "nothing to the activations and returned gradients that the same host has: it computes these gradients from them"


class TrunkSteps:
    """Ranks a client's items by the spans of its first local steps.

    Args:
        steps: local steps of a client that are read, at most.
        shortlist: as of `lora_span`.
        iterations: as of `lora_span`.
    """

    name = "trunk_steps"
    secret = "items"
    channels = frozenset({Channel.TRUNK_UPDATE})
    controls = 1

    def __init__(self, steps: int = 8, shortlist: int = 250, iterations: int = 60) -> None:
        require_whole("trunk_steps", steps=(steps, 1))
        self.local_steps = steps
        self._reader = LoraSpan(shortlist, iterations, simulated=0)

    def run(self, view: View[Update], knowledge: Knowledge, budget: Budget) -> Guess:
        single = [each for each in view.records if each.step >= 0 and each.row in view.rows]
        if not single:
            raise NotApplicable("no gradient of a single step was recorded, only what the trunk changed by in a round")
        each_apart = tuple(replace(each, row=place) for place, each in enumerate(single))
        apart = replace(view, records=each_apart, asked={each.row: each.client for each in each_apart})
        guess = self._reader.run(apart, as_single_steps(knowledge, single), budget)
        items, tokens = (_by_place(guess, *names) for names in (("ranked_items", "item_offsets"),
                                                                ("ranked_tokens", "token_offsets")))  # fmt: skip
        by_row: dict[int, list[int]] = {}
        for place in items:
            by_row.setdefault(single[place].row, []).append(place)
        rows = sorted(by_row)
        chosen = [[_joined([part[place] for place in by_row[row]], row) for row in rows] for part in (items, tokens)]
        read = [len(by_row[row]) for row in rows]
        return Guess(
            {"rows": np.array(rows), **packed("ranked_items", "item_offsets", chosen[0]),
             **packed("ranked_tokens", "token_offsets", chosen[1])},
            {**_told(guess), "steps": [min(read), max(read)], "adds": ADDS},
        )  # fmt: skip


def as_single_steps(knowledge: Knowledge, single: list[Update]) -> Knowledge:
    """Return the knowledge with each step as a round of its own: one step of SGD, on one batch, without decay."""
    recipe, steps = knowledge.recipe, dict[tuple[str, int], LocalSteps]()
    for each in single:
        known = knowledge.steps.get((each.client, each.round))
        if known is not None:
            usual = recipe.batch_size if recipe is not None else known.samples
            size = max(known.batches, default=min(usual, known.samples))
            steps[each.client, each.round] = LocalSteps(size, (1.0,), (size,))
    plain = recipe and replace(recipe, optimizer="sgd", weight_decay=0.0)
    return replace(knowledge, recipe=plain, steps=steps)


def _by_place(guess: Guess, name: str, offsets: str) -> dict[int, Int[np.ndarray, "ranked"]]:
    """Return a ranking by the row that it is of."""
    bounds = guess.arrays[offsets]
    return {
        int(row): guess.arrays[name][bounds[place] : bounds[place + 1]]
        for place, row in enumerate(guess.arrays["rows"])
    }


def _joined(rankings: list[Int[np.ndarray, "ranked"]], seed: int) -> Int[np.ndarray, "ranked"]:
    """Return all that is ranked anywhere, each by its best place."""
    every = np.unique(np.concatenate(rankings))
    told = []
    for ranking in rankings:
        place = np.full(len(every), float(len(every)))
        place[np.searchsorted(every, ranking)] = np.arange(len(ranking))
        told.append(-place)
    return np.asarray(every[merged(told, np.random.default_rng(seed))])


def _told(guess: Guess) -> dict[str, Any]:
    """Return the facts on what was read, but for those that count steps as rows."""
    return {name: fact for name, fact in guess.facts.items() if name != "rows_not_applicable"}

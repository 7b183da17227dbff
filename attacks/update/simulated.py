"""Simulated clients: local trainings on auxiliary text under a client's own recipe, of which everything is known."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.threat_model import Knowledge, LocalSteps, Model, Recipe


def trained_on(
    prompts: Sequence[Prompt], model: Model, recipe: Recipe, steps: LocalSteps, round_: int,
    generator: np.random.Generator,
) -> Mapping[str, Tensor]:  # fmt: skip
    """Return the update, before - after, of a client with these samples in a round, without what weight decay did.

    A client that trained in earlier rounds has learned much of its samples, and AdamW's moments are still with it. One
    round on the same samples stands for all of them.
    """
    sizes = list(steps.batches) or [min(recipe.batch_size, len(prompts))] * steps.steps
    rounds = 2 if round_ > 1 else 1
    moved = model.trained(
        _dealt(prompts, rounds * sizes, generator), recipe, rounds * steps.factors, (rounds - 1) * steps.steps
    )
    decayed = recipe.learning_rate * sum(steps.factors) * recipe.weight_decay
    return {name: value - decayed * model.adapter[name] for name, value in moved.items()} if decayed else moved


def _dealt(prompts: Sequence[Prompt], sizes: Sequence[int], generator: np.random.Generator) -> list[list[Prompt]]:
    """Deal prompts into batches, all of them anew once each was in one; no batch is empty."""
    batches, left = list[list[Prompt]](), list[int]()
    for size in sizes:
        left = left or generator.permutation(len(prompts)).tolist()
        batches.append([prompts[place] for place in left[: max(1, size)]])
        left = left[max(1, size) :]
    return batches


def usual_answers(knowledge: Knowledge) -> Float[np.ndarray, "items"]:
    """Return how likely each item is a sample's answer, as the auxiliary text shows it; all alike if it shows none."""
    found = np.ones(len(knowledge.prompts.titles))
    if knowledge.auxiliary == "matched" and knowledge.others is not None:
        np.add.at(found, knowledge.others.targets, 1.0)
        np.add.at(found, knowledge.others.history.values, 1.0)
    return np.asarray(found / found.sum())


def answering(prompt: Prompt, prompts: Prompts, item: int) -> Prompt:
    """Return a prompt with the same history and another answer."""
    return prompts.build(prompt.items[::-1] if prompts.newest_first else prompt.items, item)


def drawn(
    knowledge: Knowledge, count: int, weights: Float[np.ndarray, "items"], generator: np.random.Generator
) -> list[Prompt]:
    """Return auxiliary prompts; those whose answer has no weight are given another one, drawn by the weights."""
    texts = knowledge.draw(count, generator)
    others = generator.choice(len(weights), size=count, p=weights / weights.sum())
    return [
        text if weights[text.target] > 0 else answering(text, knowledge.prompts, int(item))
        for text, item in zip(texts, others, strict=True)
    ]

"""The public side of clients: what their simulations follow from, shared where clients are alike.

Clients start a round from models that differ a little. Few of these are worked with, and each client goes by the
nearest. Clients of about the same number of samples are simulated together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pplr_audit.threat_model import Aggregate, Knowledge, LocalSteps, Model, NotApplicable, Update

ALIKE = 1.5
"""Clients are alike if their numbers of samples are within about this factor."""


@dataclass(frozen=True)
class Known:
    """Everything that the simulation of a client follows from."""

    model: Model
    """The model that it starts from, or one near to that."""
    steps: LocalSteps
    """Local steps, those of a client that is alike."""
    samples: int
    """Samples behind the update; of a sum, those of all its clients."""
    clients: int = 1
    """Clients behind the update."""


def known_of(seen: Sequence[Update | Aggregate], knowledge: Knowledge, models: int) -> dict[int, Known]:
    """Return the public side of each record, by its row.

    Args:
        models: number of start models that are worked with, at most.

    Raises:
        NotApplicable: the adversary lacks the recipe, a client's samples and steps, or text over the catalogue.
    """
    if knowledge.recipe is None:
        raise NotApplicable("this attack simulates clients, and the adversary does not know the training's recipe")
    if knowledge.auxiliary == "public":
        raise NotApplicable("this attack learns from text over the catalogue, and the adversary's is over another")
    if not seen:
        raise NotApplicable("no update crossed of those who are asked for")
    near, found = _nearest(seen, knowledge, models), dict[int, Known]()
    every = sorted((each for each in knowledge.steps.values() if each.samples), key=_size)
    for record in seen:
        steps = [knowledge.steps.get((client, record.round)) for client in _clients(record)]
        own = sorted((each for each in steps if each is not None and each.samples), key=_size)
        if not own or len(own) < len(steps):
            raise NotApplicable("this attack simulates clients, and the adversary does not know their samples")
        alike = [each for each in every if _bin(each) == _bin(own[len(own) // 2])]
        total = sum(each.samples for each in own)
        found[record.row] = Known(near[record.row], alike[len(alike) // 2], total, len(own))
    return found


def _clients(record: Update | Aggregate) -> Sequence[str]:
    return record.clients if isinstance(record, Aggregate) else (record.client,)


def _size(steps: LocalSteps) -> tuple[int, int]:
    return steps.samples, steps.steps


def _bin(steps: LocalSteps) -> int:
    return round(float(np.log(steps.samples) / np.log(ALIKE)))


def _nearest(seen: Sequence[Update | Aggregate], knowledge: Knowledge, count: int) -> dict[int, Model]:
    """Return the model to work with for each row, out of ``count`` that the round's clients started from.

    The first is the one in the middle of all, each further one the farthest from those before.
    """
    clients = {client for record in seen for client in _clients(record)}
    names = [place for place in knowledge.copies if place[0] in clients and place[1] == seen[0].round]
    every = {model.digest: model for model in [*map(knowledge.copies.__getitem__, sorted(names))] or [knowledge.base]}
    flat = {
        key: torch.cat([value.flatten().float() for _, value in sorted(model.adapter.items())])
        for key, model in every.items()
    }
    middle = torch.stack([*flat.values()]).mean(0)
    chosen = [min(flat, key=lambda key: float((flat[key] - middle).norm()))]

    def away(key: str, other: str) -> float:
        return float((flat[key] - flat[other]).norm())

    while len(chosen) < min(count, len(flat)):
        chosen.append(max(flat, key=lambda key: min(away(key, other) for other in chosen)))
    found = {}
    for record in seen:
        starts = [knowledge.copy(client, record.round).digest for client in _clients(record)]
        found[record.row] = every[min(chosen, key=lambda key: sum(away(key, start) for start in starts))]
    return found

"""The recipe of a training and a client's local steps, as those who know of them have them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from pplr_audit import scenario
from pplr_audit.threat_model.recipe import LocalSteps, Recipe
from pplr_audit.training.optimizer import rate_factor
from pplr_audit.training.schedule import steps_per_round, stretch


def recipe(training: scenario.Training) -> Recipe:
    """Return what the public training section says."""
    return Recipe(
        training.strategy, training.rounds, training.local_epochs, training.batch_size, training.optimizer,
        training.learning_rate, training.weight_decay, training.schedule, training.warmup, training.averaging,
    )  # fmt: skip


def local_steps(
    samples: int, training: scenario.Training, round_: int, batches: Sequence[Int[np.ndarray, "batch"]] = ()
) -> LocalSteps:
    """Return the steps of a client with so many samples in a round.

    Args:
        batches: rows of each step, whose number is told to whoever sees them cross; a personal model's come last.
    """
    where, steps = stretch(samples, training, round_), steps_per_round(samples, training)
    factors = (
        rate_factor(training.schedule, where.first + step, where.total, training.warmup) for step in range(steps)
    )
    return LocalSteps(samples, tuple(factors), tuple(map(len, batches[:steps])))

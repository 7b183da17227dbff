"""How many local steps a client takes, and which samples each of them holds."""

import math

import numpy as np
from jaxtyping import Int

from pplr_audit import scenario
from pplr_audit.seeds import derive


def steps_per_round(samples: int, training: scenario.Training) -> int:
    """Local steps in one round."""
    return training.local_epochs * math.ceil(samples / training.batch_size)


def total_steps(samples: int, training: scenario.Training) -> int:
    """Local steps over all rounds, which the learning-rate schedule spans."""
    return training.rounds * steps_per_round(samples, training)


def batches(
    samples: int, training: scenario.Training, *, seed: int, client: str, round_: int
) -> list[Int[np.ndarray, "batch"]]:
    """The rows of the client's samples in each local step of a round; a new order every epoch, the same every time."""
    plan = []
    for epoch in range(training.local_epochs):
        order = np.random.default_rng(derive(seed, "batches", client, round_, epoch)).permutation(samples)
        plan += [order[i : i + training.batch_size] for i in range(0, samples, training.batch_size)]
    return plan

"""How many local steps a client takes, and which samples each of them holds."""

import math

import numpy as np
from jaxtyping import Int

from pplr_audit import scenario
from pplr_audit.pplr.optimizer import Stretch
from pplr_audit.seeds import derive


def steps_per_round(samples: int, training: scenario.Training) -> int:
    """Local steps in one round."""
    return training.local_epochs * math.ceil(samples / training.batch_size)


def stretch(samples: int, training: scenario.Training, round_: int) -> Stretch:
    """The local steps of round ``round_`` (from 1) among those of all rounds, which the learning-rate schedule spans.

    It goes by rounds and not by the steps that a client has taken: how many these will be is drawn, and the rate of who
    sits rounds out would never come down.
    """
    steps = steps_per_round(samples, training)
    return Stretch((round_ - 1) * steps, training.rounds * steps)


POOL, POOLS = 64, 4
"""Batches that a pool holds at most, and pools that an epoch has at least: with few samples a batch stays mixed."""


def batches(
    lengths: Int[np.ndarray, "samples"], training: scenario.Training, *, seed: int, client: str, round_: int
) -> list[Int[np.ndarray, "batch"]]:
    """The rows of the client's samples in each local step of a round; a new order every epoch, the same every time.

    So that there is little padding, the random order is cut into pools and each pool is sorted by length and cut into
    batches, whose order is random again.

    Args:
        lengths: tokens of each sample.
    """
    plan: list[Int[np.ndarray, batch]] = []
    size = training.batch_size
    for epoch in range(training.local_epochs):
        generator = np.random.default_rng(derive(seed, "batches", client, round_, epoch))
        order = generator.permutation(len(lengths))
        together = size * max(1, min(POOL, len(order) // (POOLS * size)))
        for start in range(0, len(order), together):
            pool = order[start : start + together]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            cut = [pool[i : i + size] for i in range(0, len(pool), size)]
            plan += [cut[place] for place in generator.permutation(len(cut))]
    return plan

"""Local steps of a client, and the samples in each of them."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from pplr_audit import scenario
from pplr_audit.scenario.seeds import derive
from pplr_audit.training.optimizer import Stretch


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
"""Batches that a pool holds, and pools that an epoch has at least; with fewer batches than that there are no pools."""
PADDING = 0.09
"""Share of an epoch's positions that padding may be without pools; the smallest clients may miss it."""
JITTERS = tuple(2 ** (-half / 2) for half in range(11))
"""Largest shares of itself that a length is moved by, from 1 to 1/32: tried from the largest."""


Draw = Callable[[Int[np.ndarray, "samples"], int, np.random.Generator], list[Int[np.ndarray, "batch"]]]
"""A sampler: from the samples' lengths and a batch's size to the rows in each step of one epoch, of which a step may
have none."""


def batches(
    lengths: Int[np.ndarray, "samples"],
    training: scenario.Training,
    draw: Draw | None = None,
    *,
    seed: int,
    client: str,
    round_: int,
) -> list[Int[np.ndarray, "batch"]]:
    """The rows of the client's samples in each local step of a round; a new order every epoch, the same every time.

    So that there is little padding, samples of like length go together. Where there are many, the random order is cut
    into pools and each pool is sorted by length and cut into batches. Pools of few samples leave much padding or, with
    one pool, the same batches every epoch: there all are sorted by their length times a random factor, of the widest
    range that keeps padding to `PADDING`, or of the narrowest. What batches hold then varies as much as the lengths let
    it: a little where they differ widely. The order of batches is random.

    Args:
        lengths: tokens of each sample.
        draw: another sampler; None: the one described here.
    """
    plan: list[Int[np.ndarray, batch]] = []
    size = training.batch_size
    for epoch in range(training.local_epochs):
        generator = np.random.default_rng(derive(seed, "batches", client, round_, epoch))
        if draw is not None:
            plan += draw(lengths, size, generator)
            continue
        if len(lengths) < POOLS * POOL * size:
            cut = _jittered(lengths, size, generator)
            plan += [cut[place] for place in generator.permutation(len(cut))]
            continue
        order = generator.permutation(len(lengths))
        for start in range(0, len(order), size * POOL):
            pool = order[start : start + size * POOL]
            cut = _cut(pool[np.argsort(lengths[pool], kind="stable")], size, _short(len(pool), size, generator))
            plan += [cut[place] for place in generator.permutation(len(cut))]
    return plan


def _jittered(
    lengths: Int[np.ndarray, "samples"], size: int, generator: np.random.Generator
) -> list[Int[np.ndarray, "batch"]]:
    """Batches by length times a random factor, with as wide a range of factors as `PADDING` allows."""
    drawn, most = generator.uniform(-1, 1, len(lengths)), int(lengths.sum()) / (1 - PADDING)
    short = _short(len(lengths), size, generator)
    cut: list[Int[np.ndarray, batch]] = []
    for jitter in JITTERS:
        cut = _cut(np.argsort(lengths * (1 + jitter * drawn), kind="stable"), size, short)
        if sum(len(rows) * int(lengths[rows].max()) for rows in cut) <= most:
            break
    return cut


def _short(samples: int, size: int, generator: np.random.Generator) -> int:
    """Draw the batch that gets the rest, so that it is not always the longest samples that weigh more."""
    return int(generator.integers(samples // size + 1))


def _cut(order: Int[np.ndarray, "samples"], size: int, short: int) -> list[Int[np.ndarray, "batch"]]:
    """Batches of ``size``, and at the place ``short`` one of what is left over, if anything is.

    >>> [batch.tolist() for batch in _cut(np.arange(7), 3, 1)]
    [[0, 1, 2], [3], [4, 5, 6]]
    """
    rest, before = len(order) % size, short * size
    bounds = [*range(0, before + 1, size), *range(before + rest, len(order) + 1, size)]
    return [order[start:stop] for start, stop in pairwise(bounds) if stop > start]

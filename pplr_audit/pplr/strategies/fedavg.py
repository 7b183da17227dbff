"""Federated averaging (McMahan et al. 2017): one model for all, weighted by the number of samples."""

from collections.abc import Sequence

import numpy as np

from pplr_audit import scenario
from pplr_audit.pplr.strategies.protocol import Contribution, Mixing


class FedAvg:
    """Every client gets the same average; it has no settings of its own."""

    def __init__(self, training: scenario.Training) -> None:
        del training

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        del round_
        samples = np.array([c.samples for c in contributions], dtype=np.float64)
        return Mixing(np.tile(samples / samples.sum(), (len(contributions), 1)))

"""Federated averaging (McMahan et al. 2017): one model for all, weighted by the number of samples."""

from collections.abc import Sequence

import numpy as np

from pplr_audit.training.strategies.protocol import Contribution, Mixing, Strategy, sample_shares


class FedAvg(Strategy):
    """Every client gets the same average, also one that did not train in the round."""

    needs = "sum"

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        del round_
        shares = sample_shares(contributions)
        return Mixing(np.tile(shares, (len(contributions), 1)), absent=shares)

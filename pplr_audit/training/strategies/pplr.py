"""PPLR's dynamic balance: similar clients learn from each other; a client that is behind takes less from the others."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pplr_audit import scenario
from pplr_audit.training.strategies.averaging import product_similarity, products
from pplr_audit.training.strategies.balance import learning_speed, learning_status, mixing_matrix, similarity
from pplr_audit.training.strategies.protocol import Contribution, Mixing, Strategy, sample_shares


class Pplr(Strategy):
    """Equations in `training.strategies.balance`; alpha, beta, tau and the similarity come from the scenario.

    ``training.ablate`` switches terms off: ``similarity`` (S = 1), ``speed`` (w = 1), ``heating`` (the exponent
    t / beta is 1 in every round: w = tanh(alpha / l)), ``balance`` (all of it: the average of FedAvg is left).
    """

    def __init__(self, training: scenario.Training) -> None:
        self.training = training
        if "balance" in (training.ablate or ()):
            self.needs = "sum"

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        t, off = self.training, self.training.ablate or ()
        count = len(contributions)
        if "balance" in off:
            shares = sample_shares(contributions)
            return Mixing(np.tile(shares, (count, 1)), absent=shares)
        alike = np.ones((count, count)) if "similarity" in off else self._similarity(contributions)
        status = learning_status([c.loss for c in contributions], t.tau)
        if "heating" in off:
            speed = learning_speed(status, 1, alpha=t.alpha, beta=1.0)
        else:
            speed = learning_speed(status, round_, alpha=t.alpha, beta=t.beta)
        if "speed" in off:
            speed = np.ones(count)
        return Mixing(mixing_matrix(alike, speed), alike, status, speed)

    def _similarity(self, contributions: Sequence[Contribution]) -> Float[np.ndarray, "clients clients"]:
        """Similarity of parameters or of updates; of the products B A where these are averaged.

        Factors that were refactored client by client have no coordinates in common that could be compared.
        """
        of_updates = self.training.similarity == "update"
        if self.training.averaging == "product":
            return product_similarity([products(c.adapter, c.update if of_updates else None) for c in contributions])
        return similarity([c.update if of_updates else c.adapter for c in contributions])

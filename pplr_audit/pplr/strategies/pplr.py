"""PPLR's dynamic balance: similar clients learn from each other, one that is behind first from itself."""

from collections.abc import Sequence

from pplr_audit import scenario
from pplr_audit.pplr.balance import learning_speed, learning_status, mixing_matrix, similarity
from pplr_audit.pplr.strategies.protocol import Contribution, Mixing


class Pplr:
    """Equations in `pplr_audit.pplr.balance`; alpha, beta, tau and the similarity come from the scenario."""

    def __init__(self, training: scenario.Training) -> None:
        self.training = training

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        t = self.training
        vectors = [c.adapter if t.similarity == "parameters" else c.update for c in contributions]
        alike = similarity(vectors)
        status = learning_status([c.loss for c in contributions], t.tau)
        speed = learning_speed(status, round_, alpha=t.alpha, beta=t.beta)
        return Mixing(mixing_matrix(alike, speed), alike, status, speed)

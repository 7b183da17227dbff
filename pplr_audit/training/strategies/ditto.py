"""Ditto (Li et al. 2021): a personal model for each client, held near a shared one that is averaged as by FedAvg.

In each round a client trains the shared model w, which is averaged, and then its own v on F(v) + lambda / 2 ·
||v - w_t||², w_t being the shared model at the round's start (arXiv 2012.04221, algorithm 1). Users are served v, and
lambda is ``training.proximal``. Both take a round's local steps, so a round costs twice the arithmetic and activations
of FedAvg; of v, the client's part never leaves the client, and the trunk's stays with the server.
"""

from pplr_audit import scenario
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.strategies.protocol import Local


class Ditto(FedAvg):
    """FedAvg with a personal model beside it."""

    def __init__(self, training: scenario.Training) -> None:
        super().__init__(training)
        self.local = Local(personal=training.proximal)

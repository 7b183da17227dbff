"""FedProx (Li et al. 2020): federated averaging whose local steps are held near where the round began.

Each client minimizes h(theta) = F(theta) + mu / 2 · ||theta - theta_t||² from theta_t (arXiv 1812.06127, equation 2);
mu is ``training.proximal``, and the reported training loss is F alone.
"""

from pplr_audit import scenario
from pplr_audit.training.strategies.fedavg import FedAvg
from pplr_audit.training.strategies.protocol import Local


class FedProx(FedAvg):
    """FedAvg with a proximal term in the local loss."""

    def __init__(self, training: scenario.Training) -> None:
        super().__init__(training)
        self.local = Local(proximal=training.proximal)

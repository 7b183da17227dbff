"""No federation at all: each client trains on its own samples, with its own trunk at the server.

What a federation gains is measured from here. The protocol of a round stays as it is: clients still send their updates,
so that its traffic and what an adversary at the server sees are those of a strategy that would use them.
"""

from collections.abc import Sequence

import numpy as np

from pplr_audit.training.strategies.protocol import Contribution, Mixing, Strategy


class LocalOnly(Strategy):
    """Everyone keeps its own model."""

    def mixing(self, contributions: Sequence[Contribution], round_: int) -> Mixing:
        del round_
        return Mixing(np.eye(len(contributions)))

"""Centralized: one model trained on everyone's samples in one place, as the upper reference.

All samples lie with one client, who trains in the same rounds, with the same local epochs and batches: as many samples
pass as in the federated rounds. Since it takes as many steps a round as all clients together, one after the other, its
model moves further; that is the point of the reference, not an unfairness of the budget.
"""

from pplr_audit.training.strategies.local import LocalOnly


class Centralized(LocalOnly):
    """Everyone's data in one place; nobody is left to mix with."""

    pooled = True

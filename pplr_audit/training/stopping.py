"""Client sampling and early stopping: who trains in a round, each client judged by its own metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pplr_audit.models.lora import Adapter
from pplr_audit.scenario.seeds import derive


@dataclass(frozen=True)
class Best:
    """The best model that a client had so far, by its own validation metric."""

    metric: float
    round: int
    """After which it was reached."""
    waited: int
    """Number of times that the metric was measured since then without getting better."""
    adapter: Adapter
    remembered: bool = True
    """True if it went by an encoding that the client keeps; if not, by one that it works out itself."""


def participants(names: Sequence[str], share: float, *, seed: int, round_: int) -> frozenset[str]:
    """The clients that train in a round: ``share`` of them, at least one, drawn anew for every round.

    The draw does not depend on the order of ``names``.

    >>> len(participants(["a", "b", "c", "d"], 0.5, seed=0, round_=1))
    2
    """
    ordered = sorted(names)
    count = max(1, math.floor(share * len(ordered) + 0.5))
    drawn = np.random.default_rng(derive(seed, "participants", round_)).permutation(len(ordered))[:count]
    return frozenset(ordered[place] for place in drawn)


def judged(before: Best | None, metric: float, round_: int, adapter: Adapter, remembered: bool = True) -> Best:
    """The best model after one more measurement; of equally good ones the first stays."""
    if before is None or metric > before.metric:
        return Best(metric, round_, 0, adapter, remembered)
    return replace(before, waited=before.waited + 1)


def stopped(best: Mapping[str, Best], patience: int | None) -> frozenset[str]:
    """The clients whose metric has not got better in ``patience`` measurements; None: nobody ever stops."""
    if patience is None:
        return frozenset()
    return frozenset(client for client, held in best.items() if held.waited >= patience)

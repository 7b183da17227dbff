"""A score: one metric of one guess before it is compared with anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.scoring.influence import Influence, of_mean
from pplr_audit.scoring.intervals import Estimate
from pplr_audit.scoring.verdicts import Measured, Reference

CHANCE = "chance"


@dataclass(frozen=True)
class Score:
    """One metric of one guess, before it is put beside its control."""

    metric: str
    estimate: Estimate
    baseline: float
    """Number to be read beside the value: chance, where it is known exactly, or what popularity alone gives."""
    per_user: Mapping[int, float]
    detail: Mapping[str, Any] = field(default_factory=dict)
    floors: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Scores of references such as popularity, by name and user; for a mean over users."""
    weights: Mapping[int, float] | None = None
    """Weight of each user; for a mean over users."""
    low: float = 0.0
    """The least that it may be; the most is 1."""
    influence: Influence = field(default_factory=dict)
    """Influence of each user; for a value that is not a mean over users."""
    independent: int | None = None
    """Most independent observations, where that is not the number of users."""
    references: tuple[Reference, ...] = ()
    """References that it must stand above; the caller adds the control."""

    @property
    def measured(self) -> Measured:
        """The value with what each user says of it."""
        if self.influence:
            return Measured(self.estimate, self.influence, self.independent or len(self.influence), low=self.low)
        moved = of_mean(self.per_user, self.weights)[1] if self.per_user else {}
        return Measured(self.estimate, moved, max(len(moved), 1), self.per_user, self.low)

    @property
    def against(self) -> tuple[Reference, ...]:
        """All that it must stand above but the control; chance, where nothing else is known."""
        named = [Reference(name, *of_mean(each, self.weights), each) for name, each in self.floors.items()]
        return (*self.references, *named) or (Reference(CHANCE, self.baseline),)


def by_user(users: Int[np.ndarray, "rows"], values: Float[np.ndarray, "rows"]) -> dict[int, float]:
    """Mean of the rows of each user."""
    ids, place = np.unique(users, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    return {int(user): float(mean) for user, mean in zip(ids, means, strict=True)}

"""All crossings of a sample: one an epoch, one more of a personal model, and those of earlier rounds that are audited.

They are of the same text, so whatever one of them tells is told. Which of them are read, and how much each counts, is
decided by what crossed alone: by how well a copy of the model explains it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from pplr_audit.threat_model.knowledge import Knowledge, When
from pplr_audit.threat_model.view import Record, View

TINY = 1e-30
Values = TypeVar("Values", float, np.ndarray)


def by_row(records: Iterable[Record]) -> dict[int, list[Record]]:
    """Return the crossings of each row, rows and crossings in the order of the records."""
    rows: dict[int, list[Record]] = {}
    for record in records:
        rows.setdefault(record.row, []).append(record)
    return rows


def once(view: View) -> View:
    """Return the view with the first crossing of each row alone, which stands for the row in an answer."""
    return replace(view, records=tuple(crossings[0] for crossings in by_row(view.records).values()))


def facts_of(records: Sequence[Record]) -> dict[str, Any]:
    """Return the fact how many crossings were read, where there are several of a row."""
    return {"crossings": len(records)} if len({record.row for record in records}) < len(records) else {}


class Taken:
    """Counts the copies and the crossings by which rows are read.

    Args:
        records: all that crossed.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._several = facts_of(records)
        self._rounds = len({record.round for record in records})
        self._copies, self._crossings, self._joined = Counter[When](), Counter[tuple[int, int]](), 0

    def alone(self, when: When, record: Record) -> None:
        """Count a row that is read from one crossing, by a copy."""
        self._copies[when] += 1
        self._crossings[record.round, record.occurrence] += 1

    def joined(self, copies: Iterable[When]) -> None:
        """Count a row that is read from all of its crossings together, each by a copy."""
        self._copies.update(copies)
        self._joined += 1

    def facts(self, knowledge: Knowledge) -> dict[str, Any]:
        """Return how much was read by which copy, where there are several, and from which crossing, where one has some.

        Crossings are numbered from 0 in their round; of several rounds, the round stands before the number.
        """
        facts: dict[str, Any] = {"copies_taken": dict(sorted(self._copies.items()))} if knowledge.ends else {}
        if self._several:
            taken = {
                f"{round_}/{number}" if self._rounds > 1 else f"{number}": count
                for (round_, number), count in sorted(self._crossings.items())
            }
            facts |= {**self._several, "crossings_taken": taken}
            facts |= {"crossings_joined": self._joined} if self._joined else {}
        return facts


def unexplained(distances: Sequence[float]) -> float:
    """Return how far a candidate is from all crossings of a row together: the geometric mean of its distances.

    Every crossing has noise, or an error of an old copy, of a level that nobody tells. For Gaussian noise in n
    dimensions the likelihood of a candidate at distances d_c, at the best level s_c = d_c / sqrt(n) of each crossing,
    is the product of d_c^-n. Where noise has the same level and hides all candidates alike, this is the sum of squared
    distances to first order; one exact crossing decides, and one that is all noise is equally far from everything.
    """
    return float(math.prod(distances) ** (1 / len(distances)))


def pooled(values: Sequence[Values], deviations: Sequence[float]) -> Values:
    """Return the mean of what several crossings tell, each weighted by 1 / its deviation squared.

    It is the unbiased mean of the least variance for independent errors.

    Args:
        deviations: of each, up to a factor that all share.
    """
    weights = [(max(deviations[0], TINY) / max(own, TINY)) ** 2 for own in deviations]
    total = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return total / sum(weights)  # type: ignore[return-value]  # a sum of one kind of values is of this kind


def agreed(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Return what several crossings tell of the words together: the geometric mean of their probabilities.

    Independent evidence multiplies: a crossing that is sure of a word decides, one that is sure of nothing changes
    nothing. As they are not quite independent, the mean is taken, and not the product.
    """
    if len(probabilities) == 1:
        return probabilities[0]
    return np.asarray(np.exp(np.mean([np.log(np.maximum(own, TINY)) for own in probabilities], axis=0)))


def doubts_of(fits: Mapping[When, np.ndarray]) -> dict[When, float]:
    """Return how unsure a sequence is read by each copy: minus the mean fit of the best words."""
    return {when: -float(fit.max(1).mean()) for when, fit in fits.items()}

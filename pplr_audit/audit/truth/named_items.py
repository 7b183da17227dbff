"""Scores of ranked lists that name one item a row: the hits among the best answers, beside those of fair guesses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.truth.history import POPULARITY
from pplr_audit.audit.truth.score import Score, by_user
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.scoring.reconstruction import item_hits

DEPTHS = (1, 5, 10)


def padded(lists: Sequence[Int[np.ndarray, "items"]], depth: int) -> Int[np.ndarray, "rows depth"]:
    """Return the first ``depth`` of each list, -1 where there are fewer."""
    found = np.full((len(lists), depth), -1, dtype=np.int64)
    for row, items in zip(found, lists, strict=True):
        row[: min(depth, len(items))] = items[:depth]
    return found


def hits_at_depths(
    stem: str, ranked: Int[np.ndarray, "rows depth"], floors: Mapping[str, Int[np.ndarray, "rows depth"]],
    truth: Int[np.ndarray, "rows"], title_class: Int[np.ndarray, "items"], users: Int[np.ndarray, "rows"],
    seed: int | None, **detail: Any,
) -> Iterator[Score]:  # fmt: skip
    """Yield ``<stem>_hit@k`` for each of `DEPTHS`, beside the same of each floor.

    Args:
        title_class: items of one class have the same title and cannot be told apart.
    """
    for k in DEPTHS:
        own, *floor = (item_hits(each, truth, k, title_class).astype(float) for each in (ranked, *floors.values()))
        yield mean_score(f"{stem}_hit@{k}", own, dict(zip(floors, floor, strict=True)), users, seed, **detail)


def mean_score(
    metric: str, values: Float[np.ndarray, "rows"], floors: Mapping[str, Float[np.ndarray, "rows"]],
    users: Int[np.ndarray, "rows"], seed: int | None, **detail: Any,
) -> Score:  # fmt: skip
    """Return the mean of a metric, beside that of each floor; popularity is among these."""
    estimate = mean_estimate(values, users, seed=seed)
    by_floor = {name: by_user(users, floor) for name, floor in floors.items()}
    return Score(metric, estimate, float(floors[POPULARITY].mean()), by_user(users, values), detail, by_floor)

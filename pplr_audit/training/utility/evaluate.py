"""Recommendations of the trained models and their quality: full ranking, the user's own items masked.

A test item that the user had before is masked with the others, so nothing that ranks can hit it. Such items are left
out, and so are users who have no other (`repeating`). Taking the mask off that item alone would tell the answer: it
would be the one item of the history that can be recommended.

Items of one score have no order: each metric is its mean over all orders of theirs (`scoring.ranking`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Split
from pplr_audit.data.samples import new_items, seen_items, serving_samples
from pplr_audit.models.recommenders.task import NotFinite, Served, Task
from pplr_audit.scoring.ranking import ndcg_at, places_of, recall_at

DEPTHS = (10, 20)


@dataclass(frozen=True)
class Ranking:
    """One user a row: how good its ranked list is."""

    users: Int[np.ndarray, "users"]
    metrics: dict[str, Float[np.ndarray, "users"]]
    """``recall@k`` and ``ndcg@k``, one value a user."""


def rank(
    scored: Iterable[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]],
    users: Int[np.ndarray, "users"],
    split: Split,
) -> Ranking:
    """Rank the whole catalogue for each of ``users``, who are all `tested`.

    ``scored`` gives every one of their places once, with the scores of all items, in any order and a few at a time, so
    that neither the scores nor the lists of all users are ever held at once.
    """
    metrics = {f"{name}@{k}": np.zeros(len(users)) for k in DEPTHS for name in ("recall", "ndcg")}
    for rows, scores in scored:
        own, tests = seen_items(split, users[rows]), new_items(split, users[rows])
        places = places_of(scores, own.offsets, own.values, tests.offsets, tests.values)
        for k in DEPTHS:
            metrics[f"recall@{k}"][rows] = recall_at(places, k)
            metrics[f"ndcg@{k}"][rows] = ndcg_at(places, k)
    return Ranking(users, metrics)


def recommended(
    served: Served,
    task: Task,
    split: Split,
    users: Int[np.ndarray, "users"],
    *,
    history: int,
    popularity: Float[np.ndarray, "items"],
) -> Ranking:
    """Rank the catalogue for each of ``users``, who are all `tested`.

    Raises:
        NotFinite: its scores are not finite.
    """
    asked = serving_samples(split, users, history)
    return rank(_finite(task.recommend(served, asked.history, popularity)), users, split)


def _finite(
    scored: Iterable[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]],
) -> Iterator[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]]:
    for rows, scores in scored:
        if not np.isfinite(scores).all():
            raise NotFinite("scores of items that are not finite")
        yield rows, scores


def tested(split: Split, users: Int[np.ndarray, "users"]) -> Int[np.ndarray, "tested"]:
    """Return those of ``users`` who have a history and a test item that is not in it."""
    return np.asarray(users[(new_items(split, users).lengths > 0) & (split.train.lengths[users] > 0)])


def repeating(split: Split, users: Int[np.ndarray, "users"]) -> Int[np.ndarray, "repeating"]:
    """Return those of ``users`` who have test items, all of which they had before."""
    return np.asarray(users[(split.test.lengths[users] > 0) & (new_items(split, users).lengths == 0)])

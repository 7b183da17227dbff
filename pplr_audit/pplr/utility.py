"""What the trained models recommend, and how good that is: full ranking, the user's own items masked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Split
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.ragged import take
from pplr_audit.data.samples import seen_items, serving_samples
from pplr_audit.models.bigrec import Grounding
from pplr_audit.scoring.ranking import ndcg_at, recall_at, top_k

DEPTHS = (10, 20)


@dataclass(frozen=True)
class Ranking:
    """One user a row: the best items, best first, and the metrics."""

    users: Int[np.ndarray, "users"]
    metrics: dict[str, Float[np.ndarray, "users"]]
    """``recall@k`` and ``ndcg@k``, one value a user."""


def rank(scores: Float[np.ndarray, "users items"], users: Int[np.ndarray, "users"], split: Split) -> Ranking:
    """Rank the whole catalogue for each of ``users``, who all have a test item."""
    seen, tests = seen_items(split, users), take(split.test, users)
    best = top_k(scores, seen.offsets, seen.values, min(max(DEPTHS), scores.shape[1]))
    metrics = {}
    for k in DEPTHS:
        metrics[f"recall@{k}"] = recall_at(best, tests.offsets, tests.values, min(k, best.shape[1]))
        metrics[f"ndcg@{k}"] = ndcg_at(best, tests.offsets, tests.values, min(k, best.shape[1]))
    return Ranking(users, metrics)


class Served(Protocol):
    """A trained model that serves requests, wherever its layers are."""

    def generate(self, prompts: Sequence[Prompt], beams: int) -> list[Int[np.ndarray, "length"]]:
        """A title for each prompt, as tokens."""
        ...

    def embed(self, titles: Sequence[Int[np.ndarray, "length"]]) -> Float[np.ndarray, "titles hidden"]:
        """Titles as points of the base model's embedding space."""
        ...


def recommend(
    served: Served,
    prompts: Prompts,
    grounding: Grounding,
    split: Split,
    users: Int[np.ndarray, "users"],
    *,
    history: int,
    beams: int,
    popularity: Float[np.ndarray, "items"],
    popularity_weight: float,
    batch: int = 128,
    advance: Callable[[int], None] = lambda n: None,
) -> Float[np.ndarray, "users items"]:
    """Scores of the whole catalogue for each user: generate a title, embed it by the base model, measure distances."""
    asked = serving_samples(split, users, history)
    built = [prompts.build(asked.history[row]) for row in range(len(asked))]
    scores = np.empty((len(users), len(prompts.titles)), dtype=np.float32)
    for start in range(0, len(built), batch):
        titles = served.generate(built[start : start + batch], beams)
        scores[start : start + batch] = grounding.scores(served.embed(titles), popularity, popularity_weight)
        advance(len(titles))
    return scores


def popularity_of(split: Split, users: Int[np.ndarray, "users"], items: int) -> Float[np.ndarray, "items"]:
    """How often the training items of ``users`` hold each item."""
    return np.bincount(take(split.train, users).values, minlength=items).astype(np.float64)


def tested(split: Split, users: Int[np.ndarray, "users"]) -> Int[np.ndarray, "tested"]:
    """Those of ``users`` who have a test item and something to recommend from."""
    return np.asarray(users[(split.test.lengths[users] > 0) & (split.train.lengths[users] > 0)])

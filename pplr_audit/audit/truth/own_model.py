"""Recommendations of an adversary's own models from the histories that it reads: a guess at the next item.

Who reads a history and has the model need not read the next item: it can query the model. What an attack finds of next
items beyond that is what crossed of them.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Ragged
from pplr_audit.models.recommenders.task import NotFinite
from pplr_audit.scoring.ranking import best_first

DEPTH = 100
"""Items of a list; `mrr` looks no further."""
History = tuple[int, ...]


class OwnModel:
    """The adversary's own recommender, for one level of knowledge and one round.

    Args:
        models: by client, the best that the adversary has of its model.
        clients, histories: by row, whose it is and what it truly held, the oldest item first.
        popularity: of each item among those who train.
    """

    def __init__(
        self, models: Mapping[str, KnownModel], clients: Mapping[int, str],
        histories: Mapping[int, Int[np.ndarray, "items"]], popularity: Float[np.ndarray, "items"],
    ) -> None:  # fmt: skip
        self._models, self._clients, self._popularity = models, clients, popularity
        self._true = {row: tuple(items.tolist()) for row, items in histories.items()}
        self._order = np.random.default_rng(0).permutation(len(popularity))
        self._usual = best_first(popularity, self._order)[:DEPTH]
        self._ranked: dict[tuple[str, History], Int[np.ndarray, depth]] = {}

    def ranked(self, read: Mapping[int, Int[np.ndarray, "items"]] | None) -> dict[int, Int[np.ndarray, "depth"]] | None:
        """Return the recommended items by row, the best first; without a history, the most popular ones.

        Args:
            read: the history that was read of each row; None for an attack that reads none, which is given the true
                ones, the most that there is to read.

        None where the models' scores are not finite.
        """
        histories = dict.fromkeys(self._true, ()) | {
            row: tuple(items.tolist()) for row, items in (read or {}).items() if row in self._true
        }
        histories = self._true if read is None else histories
        try:
            for client in dict.fromkeys(self._clients[row] for row in histories):
                needed = {items for row, items in histories.items() if self._clients[row] == client and items}
                self._recommend(client, sorted(each for each in needed if (client, each) not in self._ranked))
        except NotFinite:
            return None
        return {row: self._ranked.get((self._clients[row], items), self._usual) for row, items in histories.items()}

    def _recommend(self, client: str, histories: list[History]) -> None:
        if not histories:
            return
        ends = np.cumsum([0, *map(len, histories)])
        ragged = Ragged(ends, np.concatenate([np.array(each, dtype=np.int64) for each in histories]))
        for rows, scores in self._models[client].recommend(ragged, self._popularity):
            if not np.isfinite(scores).all():
                raise NotFinite("scores of items that are not finite")
            for row, of_items in zip(rows, scores, strict=True):
                history = histories[row]
                # What was read is not recommended; equal scores stand in a random order.
                best = best_first(of_items, self._order)
                self._ranked[client, history] = best[~np.isin(best, history)][:DEPTH]

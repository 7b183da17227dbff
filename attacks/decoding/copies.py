"""Copies of a client's model from both ends of a round, and which of them explains a record better.

A decoder's activations at the template's opening follow from public tokens alone, so the copy is taken whose front
makes of them what is nearer to what crossed there. An encoder's follow from the whole sequence, so the copy is taken by
which it is read more surely. Nothing but what crossed decides. Of several crossings of a row the one is taken that a
copy explains best.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pplr_audit.attacks.decoding.crossings import Taken
from pplr_audit.models.token_tree import Prefix
from pplr_audit.threat_model.knowledge import Knowledge, Model, When
from pplr_audit.threat_model.view import Record


class Copies:
    """Chooses for records of one front, and counts what it chose.

    Args:
        layer: the front.
        records: all that crossed there.
    """

    def __init__(self, knowledge: Knowledge, layer: int, records: Sequence[Record]) -> None:
        self._knowledge, self._layer = knowledge, layer
        self._openings: dict[str, Float[Tensor, "opening hidden"]] = {}
        self._taken = Taken(records)
        self._undone = 0

    def nearest(self, record: Record, doubts: Mapping[When, float], *, several: bool = False) -> tuple[When, float]:
        """Return the copy that explains ``record`` better, of equals that of the start, and its distance.

        Args:
            several: whether distances of several records are compared; else that of a single copy is not worked out.
            doubts: the less surely the record is read by a copy, the higher.
        """
        copies, tensor = self._knowledge.copies_of(record.client, record.round), record.tensor.float()
        distances = doubts
        if (several or len(copies) > 1) and self._knowledge.colluder is None and self._knowledge.base.causal:
            distances = {when: self._distance(model, tensor) for when, model in copies.items()}
        best = min(distances, key=distances.__getitem__)
        return best, distances[best]

    def best(self, crossings: Sequence[Record], doubts: Sequence[Mapping[When, float]]) -> tuple[int, When]:
        """Return the place of the crossing of a row that a copy explains best, and the copy; the first of equals.

        Args:
            doubts: as of `nearest`, of each crossing.
        """
        several = len(crossings) > 1
        found = [self.nearest(each, own, several=several) for each, own in zip(crossings, doubts, strict=True)]
        place = min(range(len(found)), key=lambda each: found[each][1])
        return place, found[place][0]

    def count(self, when: When, record: Record, *, undone: bool = False) -> None:
        """Count a row that is read from a record by a copy, and whether known plaintext told how far the client's front
        was from it.
        """
        self._taken.alone(when, record)
        self._undone += undone

    @property
    def facts(self) -> dict[str, Any]:
        """How many rows were read by which copy and crossing, where there is more than one, and how many with known
        plaintext, where there is any.
        """
        public = {"plaintext_used": self._undone} if self._knowledge.plaintext is not None else {}
        return {**self._taken.facts(self._knowledge), **public}

    def _distance(self, model: Model, crossed: Float[Tensor, "length hidden"]) -> float:
        """The mean distance over the opening, in lengths of what crossed."""
        made = self._opening(model)[: len(crossed)]
        apart = (made - crossed[: len(made)]).norm(dim=1)
        return float((apart / crossed[: len(made)].norm(dim=1).clamp_min(1e-30)).mean())

    def _opening(self, model: Model) -> Float[Tensor, "opening hidden"]:
        if model.digest not in self._openings:
            tokens = self._knowledge.prompts.prefix
            branches = model.extend(Prefix(), tokens, range(-1, len(tokens) - 1), (self._layer,))
            self._openings[model.digest] = branches.states[self._layer]
        return self._openings[model.digest]

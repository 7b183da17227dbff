"""Refinement of a whole reading, for encoders: every position sees every other, so that a sequence is right as a whole.

A reading is a list of items. The front is run on it, and the slot that is farthest from what crossed is tried with its
next best titles; where such a title has another length, what stands behind it is read anew by the ridge inverter. The
best few readings are kept (a beam), until no slot of them has anything better, or enough readings were tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.decoding.titles import DEPTH, TitleReader
from pplr_audit.attacks.search.candidates import relative
from pplr_audit.attacks.search.walks import ROUNDING, Answer, Candidates, ranked
from pplr_audit.data.prompts import Prompts
from pplr_audit.threat_model.knowledge import Model

Items = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """Items in the order in which they are read."""

    items: Items
    tokens: Int[np.ndarray, "length"]
    distances: Float[np.ndarray, "crossed"]
    """Distance by position of what crossed, in its length there; 1 behind the end of the reading."""

    def order(self) -> tuple[float, Items]:
        """The nearest first."""
        return float(self.distances.mean()), self.items


class Refiner:
    """Refines the readings of one sequence after the other.

    Args:
        history: items that a sequence holds at most.
        beam: readings that are kept.
        shortlist: titles that are tried at a slot.
        readings: readings that may be tried of a sequence before it is no longer refined.
    """

    def __init__(
        self, prompts: Prompts, candidates: Candidates, reader: TitleReader, *, history: int, beam: int,
        shortlist: int, readings: int,
    ) -> None:  # fmt: skip
        self._prompts, self._candidates, self._reader = prompts, candidates, reader
        self._history, self._beam, self._shortlist, self._most = history, beam, shortlist, readings
        self._lengths = prompts.titles.lengths
        self.evaluations = 0
        """Blocks times tokens that were run, over all readings."""

    def refine(
        self, model: Model, fit: Float[np.ndarray, "length words"], crossed: Float[Tensor, "length hidden"], layer: int,
        check: Callable[[], None], row: int = 0,
    ) -> Answer:  # fmt: skip
        """The reading that is nearest to what crossed, with nothing in it where the template has no place for an item.

        Args:
            fit: how well each word that a prompt can hold stands at each position, by the ridge inverter.
            crossed: h of ``layer``.
            check: ends the search, by what it raises, where its time is up.
            row: whose sequence it is.
        """
        seen: dict[Items, Reading] = {}
        tried: set[tuple[Items, int]] = set()
        readings = self._reader.readings(fit, row)

        def read(start: int | None) -> Items:
            """The ridge inverter's reading from ``start`` on."""
            return tuple(readings(start)[0][:, 0].tolist())

        self._run(model, [read(None)], crossed, layer, seen)
        while seen and len(seen) < self._most:
            check()
            beam = sorted(seen.values(), key=Reading.order)[: self._beam]
            moves = ((reading, slot) for reading in beam for slot in self._far(reading))
            move = next(((reading, slot) for reading, slot in moves if (reading.items, slot) not in tried), None)
            if move is None or beam[0].distances.max() <= ROUNDING:
                break
            reading, slot = move
            tried.add((reading.items, slot))
            self._run(model, self._others(reading.items, slot, fit, read, row), crossed, layer, seen)
        if not seen:
            return Answer(self._prompts.prefix)
        return self._answer(min(seen.values(), key=Reading.order), fit, row)

    def _run(
        self, model: Model, readings: Sequence[Items], crossed: Float[Tensor, "length hidden"], layer: int,
        seen: dict[Items, Reading],
    ) -> None:  # fmt: skip
        """Measure those that were not seen yet."""
        step = -1 if self._prompts.newest_first else 1
        fitting = dict.fromkeys(items[: self._history] for items in readings)
        new = [items for items in fitting if items and items not in seen]
        asked = [(items, self._prompts.build(np.array(items[::step]))) for items in new]
        whole = [(items, prompt) for items, prompt in asked if len(prompt.items) == len(items)]
        for place, states in model.states([prompt for _, prompt in whole], (layer,)) if whole else ():
            items, prompt = whole[place]
            self.evaluations += layer * len(prompt)
            both = min(len(prompt), len(crossed))
            distances = np.ones(len(crossed))
            # None counts for more than a position that is missing.
            distances[:both] = np.minimum(relative(states[layer][:both], crossed[:both]), 1.0)
            seen[items] = Reading(items, prompt.tokens, distances)

    def _answer(self, reading: Reading, fit: Float[np.ndarray, "length words"], row: int) -> Answer:
        inside = self._inside(reading)
        answer = Answer(reading.tokens, distances=[float(part.mean()) for part in inside])
        answer.verified = sum(bool(part.max() <= ROUNDING) for part in inside)
        for item, at in zip(reading.items, self._starts(reading.items), strict=True):
            answer.items.append(ranked(np.array([item, *self._fitting(fit, int(at), row)]), np.array([0]), DEPTH))
            answer.claim(int(at), self._prompts.content[item])
        return answer

    def _inside(self, reading: Reading) -> list[Float[np.ndarray, "piece"]]:
        """The distances at each slot; 1 where it is behind the end."""
        starts = self._starts(reading.items)
        ends = starts + self._lengths[list(reading.items)]
        padded = np.pad(reading.distances, (0, len(reading.tokens)), constant_values=1.0)
        return [padded[start:end] for start, end in zip(starts, ends, strict=True)]

    def _far(self, reading: Reading) -> list[int]:
        """Slots that are not as near as rounding leaves them, the farthest first; the one behind the last stands for
        an item more or less, where what crossed has another length."""
        far = np.array([part.mean() for part in self._inside(reading)])
        slots = [int(slot) for slot in np.argsort(-far, kind="stable") if far[slot] > ROUNDING]
        return [*slots, len(far)] if len(reading.tokens) != len(reading.distances) else slots

    def _starts(self, items: Items) -> Int[np.ndarray, "slots"]:
        sizes = self._lengths[list(items)] + len(self._prompts.separator)
        return np.asarray(len(self._prompts.prefix) + np.cumsum(sizes) - sizes)

    def _fitting(self, fit: Float[np.ndarray, "length words"], at: int, row: int) -> list[int]:
        """Items that can start at ``at``, best first."""
        return list(dict.fromkeys(self._candidates.slot(fit, at, row)[0].tolist())) if at < len(fit) else []

    def _others(
        self, items: Items, slot: int, fit: Float[np.ndarray, "length words"], read: Callable[[int], Items], row: int
    ) -> list[Items]:
        """The reading with each of the titles that fit best at ``slot`` instead, or besides, behind the last."""
        if slot == len(items):
            at = int(self._starts(items)[-1] + self._lengths[items[-1]]) + len(self._prompts.separator)
            return [items[:-1], *((*items, item) for item in self._fitting(fit, at, row)[: self._shortlist])]
        at = int(self._starts(items)[slot])
        found = []
        for item in self._fitting(fit, at, row)[: self._shortlist]:
            behind = at + int(self._lengths[item]) + len(self._prompts.separator)
            same = self._lengths[item] == self._lengths[items[slot]]
            found.append((*items[:slot], item, *(items[slot + 1 :] if same else read(behind))))
        return found

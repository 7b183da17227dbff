"""Embedding match: optimizes an input until the known front turns it into what crossed (EIA of SplitLLM and BiSR).

The embeddings at all positions are free: Adam goes down the squared distance of h_k, in the square of what crossed,
from nothing (the mean of the words, a little noise) or from the ridge inverter's answer. Then each position is given
the word whose embedding is nearest by cosine. Of the two, before and after, each sequence is read by the one whose
words the front takes nearer to what crossed. Every crossing of a row is optimized for by itself, and the row is read by
the nearest of all: a crossing that noise or an old copy has spoiled stays far, and would spoil a common optimum.

Alone it falls off with depth where learned inverters do not (BiSR, Chen et al. 2024, arXiv 2409.00960): an audit that
only optimizes overstates what depth protects. RecFormer's marks are taken for part of the word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.crossings import Taken, once
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.decoding.word_scores import answered, require_records, require_whole
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Model, When
from pplr_audit.threat_model.view import Record, View

POSITIONS = 2048
"""Most positions of a batch, padding included."""
NOISE = 0.1
"""Spread of a start from nothing, in units of the words' own spread."""


class EmbeddingMatch:
    """Optimizes embeddings, then reads words.

    Args:
        start: ``nothing``, or the answer of the ridge ``inverter``.
        steps: of Adam.
        rate: how far a step goes, in units of the words' own spread.
        prompts, held_out, seed: of the ridge inverter; the seed also of the noise.
    """

    name = "embedding_match"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1
    every_crossing = True

    def __init__(
        self, start: Literal["inverter", "nothing"] = "inverter", steps: int = 200, rate: float = 0.05,
        prompts: int = 128, held_out: int = 16, seed: int = 0,
    ) -> None:  # fmt: skip
        if start not in ("inverter", "nothing"):
            raise InputError(f"embedding_match: start is {start!r} (accepted: inverter, nothing)")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 10:
            raise InputError(f"embedding_match: rate is {rate!r} (accepted: a number above 0, up to 10)")
        require_whole("embedding_match", steps=(steps, 1), prompts=(prompts, 1), held_out=(held_out, 1), seed=(seed, 0))
        self.start, self.steps, self.rate, self.seed = start, steps, float(rate), seed
        self._ridge = Ridge(prompts, held_out, seed)

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        layer = require_records(view, knowledge)
        reader = TitleReader(knowledge.prompts)
        words = _Words(knowledge.embeddings[reader.vocabulary].float())
        best: dict[int, _Read] = {}
        for batch in _batches(view.records):
            for when, model in knowledge.copies_of(batch[0].client, batch[0].round).items():
                budget.check()
                before = self._started(batch, layer, knowledge, reader, words, budget, when)
                goal = _Goal(model, layer, batch)
                after = self._descended(before, goal, words, budget)
                for record, fit, distance in _nearer(batch, goal, words, before, after):
                    if record.row not in best or distance < best[record.row].distance:
                        best[record.row] = _Read(record, when, fit, distance)
        taken = Taken(view.records)
        for read in best.values():
            taken.alone(read.when, read.record)
        rows = once(view)
        facts = {
            "start": self.start, "steps": self.steps,
            "median_distance": float(np.median([read.distance for read in best.values()])), **taken.facts(knowledge),
        }  # fmt: skip
        return answered(rows, reader, (best[record.row].fit for record in rows.records), facts)

    def _started(
        self, batch: Sequence[Record], layer: int, knowledge: Knowledge, reader: TitleReader, words: "_Words",
        budget: Budget, when: When,
    ) -> Float[Tensor, "batch length hidden"]:  # fmt: skip
        if self.start == "nothing":
            drawn = []
            for record in batch:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + record.row)
                drawn.append(torch.randn(record.tensor.shape, generator=generator))
            return words.mean + NOISE * words.spread * pad_sequence(drawn, batch_first=True)
        (client, round_) = batch[0].client, batch[0].round
        inverter = self._ridge.inverter(client, round_, layer, knowledge, reader.vocabulary, budget, when)
        return pad_sequence([inverter(record.tensor.float()) for record in batch], batch_first=True)

    def _descended(
        self, start: Float[Tensor, "batch length hidden"], goal: "_Goal", words: "_Words", budget: Budget
    ) -> Float[Tensor, "batch length hidden"]:
        """Descend with Adam until the steps are done."""
        free = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([free], lr=self.rate * words.spread)
        for _ in range(self.steps):
            budget.check()
            optimizer.zero_grad()
            with torch.enable_grad():
                goal.distances(free).sum().backward(inputs=[free])
            optimizer.step()
        return free.detach()


@dataclass(frozen=True)
class _Read:
    """A row as it is read from one of its crossings, by one copy."""

    record: Record
    when: When
    fit: Float[np.ndarray, "length words"]
    distance: float


@dataclass(frozen=True)
class _Words:
    """Embeddings of the words that a prompt can hold."""

    table: Float[Tensor, "words hidden"]

    @property
    def mean(self) -> Float[Tensor, "hidden"]:
        return self.table.mean(0)

    @property
    def spread(self) -> float:
        return float((self.table - self.mean).square().mean().sqrt())

    def fit(self, embeddings: Float[Tensor, "*batch length hidden"]) -> Float[Tensor, "*batch length words"]:
        return normalize(embeddings, dim=-1) @ normalize(self.table, dim=1).T


class _Goal:
    """The target of a batch: what crossed, and the distance of the front's output from it."""

    def __init__(self, model: Model, layer: int, batch: Sequence[Record]) -> None:
        self._model, self._layer = model, layer
        self._crossed = pad_sequence([record.tensor.float() for record in batch], batch_first=True)
        lengths = torch.tensor([len(record.tensor) for record in batch])
        self.mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()

    def distances(self, embeddings: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch"]:
        """The squared distance from what crossed, in its own square, positions together."""
        made = self._model.enter(self._layer, embeddings, self.mask)
        apart = (made - self._crossed).square().sum(2) * self.mask
        return apart.sum(1) / self._crossed.square().sum((1, 2)).clamp_min(1e-30)


def _nearer(
    batch: Sequence[Record], goal: _Goal, words: _Words, *readings: Float[Tensor, "batch length hidden"]
) -> list[tuple[Record, Float[np.ndarray, "length words"], float]]:
    """Record, fit and distance of each sequence by the reading whose words come nearer to what crossed."""
    fits = [words.fit(reading) for reading in readings]
    with torch.no_grad():
        apart = torch.stack([goal.distances(words.table[fit.argmax(2)]) for fit in fits])
    found = []
    for place, record in enumerate(batch):
        best = int(apart[:, place].argmin())
        fit = fits[best][place, : len(record.tensor)].numpy()
        found.append((record, fit, float(apart[best, place])))
    return found


def _batches(records: Sequence[Record]) -> list[list[Record]]:
    """Records of one client and round together, of nearly equal length, in batches of bounded size."""
    found: list[list[Record]] = []
    for record in sorted(records, key=lambda r: (r.client, r.round, len(r.tensor), r.row, r.occurrence)):
        last = found[-1] if found else []
        fits = last and (last[0].client, last[0].round) == (record.client, record.round)
        if fits and (len(last) + 1) * len(record.tensor) <= POSITIONS:
            last.append(record)
        else:
            found.append([record])
    return found

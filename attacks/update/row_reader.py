"""The rows of one layer's update, read by the titles that explain them together.

What entered the first block is known of every word at every position. In deeper blocks titles within random prompts
stand for it. Both are asked for in coordinates in which the background is white (`candidates.Background`), and their
powers are found with those of noises (`sparse`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.update.candidates import RANDOM, Background, Occurrences, TitleInputs, covering
from pplr_audit.attacks.update.directions import Directions
from pplr_audit.attacks.update.sparse import powers
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.knowledge import Knowledge, Model
from pplr_audit.threat_model.outcomes import NotApplicable

STARTS = 3
"""Positions at which a title is tried, the best ones."""
TEMPLATES = 8
"""Random prompts of which the template's words are handed to the search."""
OCCURRENCES = 4
"""Random prompts in which each title is read, for layers behind the first attention."""
FLOOR = 1e-3
"""Least share of a token that counts as captured: below it a logarithm says nothing."""


@dataclass(frozen=True)
class Found:
    """What was read of one update."""

    items: Int[np.ndarray, "items"]
    """The whole catalogue, the likeliest first."""
    powers: Float[np.ndarray, "items"]
    """Power of each of them, 0 where it explains nothing."""
    words: Int[np.ndarray, "words"]
    """Tokens of titles, the likeliest first."""
    starts: dict[int, int]
    """Position at which a title that explains something begins, where positions are known."""
    noise: float

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it as tensors, which can be kept."""
        arrays = {
            "items": self.items, "powers": self.powers, "words": self.words, "noise": np.array(self.noise),
            "starts": np.array([*self.starts.items()], dtype=np.int64).reshape(-1, 2),
        }  # fmt: skip
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}

    @classmethod
    def of(cls, kept: Mapping[str, Tensor]) -> "Found":
        """Return what was kept by `tensors`."""
        items, powers, words = (kept[name].numpy() for name in ("items", "powers", "words"))
        return cls(items, powers, words, dict(kept["starts"].tolist()), float(kept["noise"]))


class RowReader:
    """Candidates of one layer of one model, for all updates that are of it."""

    def __init__(self, model: Model, rows: Directions, knowledge: Knowledge, seed: int) -> None:
        generator = np.random.default_rng(seed)
        prompts = knowledge.prompts
        self._prompts, self._model, self._layer = prompts, model, rows.shares
        self._usual = [prompts.random(knowledge.history, generator) for _ in range(RANDOM)]
        self._first = TitleInputs(model, rows.shares, prompts, self._usual) if _is_first(model, rows) else None
        self._covering = covering(prompts, OCCURRENCES, knowledge.history, generator) if not self._first else []

    @cached_property
    def _seen(self) -> list[Float[Tensor, "length width"]]:
        """What enters for the random prompts."""
        found = dict(self._model.entering(self._usual, [self._layer]))
        return [found[place][self._layer].double() for place in range(len(self._usual))]

    @cached_property
    def _occurrences(self) -> list[tuple[int, Float[Tensor, "length width"]]]:
        """What enters for each title, wherever the random prompts have it."""
        return Occurrences(self._model, self._layer, self._covering).found

    def require_room(self, rows: Directions, knowledge: Knowledge, clients: Sequence[str], round_: int) -> None:
        """Raises NotApplicable where as many different inputs entered as the layer is wide: they span all there is."""
        steps = [knowledge.steps.get((client, round_)) for client in clients]
        samples = sum(each.samples if each is not None else 1 for each in steps)
        width = rows.rows.shape[1]
        distinct = self._distinct(samples)
        if distinct >= width:
            many = "1 sample" if samples == 1 else f"{samples:,} samples"
            of_b = "" if rows.through is None else " as long as LoRA's B is zero, so that A does not move"
            raise NotApplicable(
                f"about {distinct:,} different inputs enter {self._layer} in {many}, and its updates have "
                f"{width:,} dimensions{of_b}: every word lies in their span"
            )

    def _distinct(self, samples: int) -> int:
        """Different inputs of so many random prompts; of more than there are the number goes on growing as it did."""
        part = self._seen[: min(samples, len(self._seen))]
        inputs = torch.cat(part)
        if self._first is None:
            return len(inputs) * samples // len(part)
        return len(torch.unique((inputs / inputs.abs().max() * 1e5).round(), dim=0))

    def read(self, rows: Directions, adaptive: bool, shortlist: int, iterations: int, budget: Budget) -> Found:
        """Read an update's rows.

        Args:
            adaptive: the optimizer divides each number by its own size (AdamW), which is undone as far as sizes go by
                the numbers of what enters.
        """
        background = Background.of(rows.placed(torch.cat(self._seen)))
        measured = rows.rows * background.scale if adaptive else rows.rows
        measured = measured / measured.norm(dim=1, keepdim=True).clamp(min=1e-30)
        whitening = background.whitening(measured, iterations)
        white = _White(rows, whitening, measured @ whitening, whitening.T @ background.kinds @ whitening)
        if self._first is None:
            return self._read_occurrences(white, shortlist, iterations, budget)
        first = self._first
        shares = self._shares(white)
        logs = np.log(shares + FLOOR)
        tried = [_fits(logs, first.title(item)) for item in range(len(self._prompts.titles))]
        alone = np.array([fit.max() for fit in tried])
        order = np.argsort(-alone, kind="stable")
        titles = [(int(item), int(p)) for item in order[:shortlist] for p in np.argsort(-tried[item])[:STARTS]]
        words, groups, columns = first.of(titles)
        power, noise = self._powers(white, columns, groups, iterations, budget)
        best: dict[int, tuple[float, int]] = {}
        for (item, start), value in zip(titles, power.tolist(), strict=True):
            best[item] = max(best.get(item, (-1.0, 0)), (value, start))
        ranked = sorted(order.tolist(), key=lambda item: -best.get(item, (-1.0, 0))[0])
        power_of = np.array([max(0.0, best.get(item, (0.0, 0))[0]) for item in ranked])
        by_word = np.zeros(len(first.words))
        np.maximum.at(by_word, words, power[groups])
        told = np.lexsort((-shares.max(1), -by_word))
        starts = {item: start for item, (value, start) in best.items() if value > 0 and first.placed}
        return Found(np.array(ranked), power_of, _tokens(first.words[told]), starts, noise)

    def _read_occurrences(self, white: "_White", shortlist: int, iterations: int, budget: Budget) -> Found:
        """Read a layer behind attention, by titles within random prompts."""
        held = self._occurrences
        fits = np.array([float(white.share(inputs).add(FLOOR).log().mean()) for _, inputs in held])
        alone = np.full(len(self._prompts.titles), -np.inf)
        np.maximum.at(alone, [item for item, _ in held], fits)
        order = np.argsort(-alone, kind="stable")
        chosen = set(order[:shortlist].tolist())
        kept = [place for place, (item, _) in enumerate(held) if item in chosen]
        groups = np.repeat(np.arange(len(kept)), [len(held[place][1]) for place in kept])
        columns = torch.cat([held[place][1] for place in kept])
        power, noise = self._powers(white, columns, groups, iterations, budget)
        best: dict[int, float] = {}
        for place, value in zip(kept, power.tolist(), strict=True):
            best[held[place][0]] = max(best.get(held[place][0], -1.0), value)
        ranked = np.array(sorted(order.tolist(), key=lambda item: -best.get(item, -1.0)))
        power_of = np.array([max(0.0, best.get(int(item), 0.0)) for item in ranked])
        titles = self._prompts.titles
        told = dict.fromkeys(int(token) for item in ranked for token in titles[int(item)])
        return Found(ranked, power_of, np.array([*told]), {}, noise)

    def _shares(self, white: "_White") -> Float[np.ndarray, "words positions"]:
        """Return the share of each word at each position that lies in the span of the measured rows."""
        assert self._first is not None
        found = np.empty((len(self._first.words), self._first.places))
        for start, inputs in self._first.table():
            found[start : start + len(inputs)] = white.share(inputs).numpy()
        return found

    def _powers(
        self, white: "_White", columns: Float[Tensor, "columns inputs"], groups: Int[np.ndarray, "columns"],
        iterations: int, budget: Budget,
    ) -> tuple[Float[np.ndarray, "groups"], float]:  # fmt: skip
        """Return the power of each group; the template, which is known to be there, explains what it can besides."""
        count = int(groups.max()) + 1
        seen = zip(self._usual[:TEMPLATES], self._seen, strict=False)
        template = torch.cat([inputs[torch.from_numpy(prompt.slots < 0)] for prompt, inputs in seen])
        template = torch.unique(template, dim=0)
        of = torch.from_numpy(np.append(groups, count + np.arange(len(template))))
        every = white.of(torch.cat([columns, template]))
        power, noise = powers(white.measured, every, of, white.noises, iterations, budget.check)
        return power[:count].numpy(), float(noise[1:].sum())


@dataclass(frozen=True)
class _White:
    """The rows of an update in coordinates in which its background is white."""

    rows: Directions
    whitening: Float[Tensor, "width width"]
    measured: Float[Tensor, "rows width"]
    noises: Float[Tensor, "kinds width width"]

    def of(self, inputs: Float[Tensor, "*many inputs"]) -> Float[Tensor, "*many width"]:
        """Return inputs of the layer in these coordinates."""
        return self.rows.placed(inputs) @ self.whitening

    def share(self, inputs: Float[Tensor, "*many inputs"]) -> Float[Tensor, "*many"]:
        """Return the share of each input that lies in the span of the rows."""
        vectors = self.rows.placed(inputs) @ self.whitening.to(inputs)
        captured = (vectors @ self._basis.to(inputs)).square().sum(-1)
        share: Tensor = captured / vectors.square().sum(-1).clamp(min=1e-30)
        return share

    @cached_property
    def _basis(self) -> Float[Tensor, "width rank"]:
        basis: Tensor = torch.linalg.qr(self.measured.T).Q
        return basis


def _is_first(model: Model, rows: Directions) -> bool:
    """True if the layer reads what enters the first block, before any attention."""
    first = next(iter(model.linears.values()))
    return rows.block == 0 and rows.shares == first.shares


def _fits(logs: Float[np.ndarray, "words positions"], title: Int[np.ndarray, "length"]) -> Float[np.ndarray, "starts"]:
    """Return the mean fit of a title's words, for each position at which it may start."""
    starts = max(1, logs.shape[1] - len(title) + 1)
    if logs.shape[1] == 1:
        return np.asarray(logs[title].mean(0))
    return np.asarray(np.mean([logs[word, place : place + starts] for place, word in enumerate(title)], axis=0))


def _tokens(words: Int[np.ndarray, "words 2"]) -> Int[np.ndarray, "tokens"]:
    """Return the tokens of words that are items' own, each once."""
    return np.array([*dict.fromkeys(words[words[:, 1] > 0, 0].tolist())], dtype=np.int64)

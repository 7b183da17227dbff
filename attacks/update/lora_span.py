"""lora_span: ranks items by how well their titles' tokens explain an update, also of LoRA, with few directions.

An update's rows lie in the span of what entered the layer (`directions`). Published attacks test each token against
that span (Petrov et al., *DAGER*, arXiv 2405.15586; with adapters arXiv 2601.17533). LoRA of rank r leaves r directions
a layer, so with more tokens than directions no token lies in the span, and a test of it can only rank. Two things are
used besides. Inputs of a layer have much in common, which is in every span: in coordinates in which this background is
white only what sets a token apart counts (`candidates.Background`). And a sequence is made of whole titles: titles,
each at its positions, are asked together for the few that explain all rows at once (`sparse`), with noises as other
explanations. Their powers are found with the rest, so that several steps, AdamW, dropout and added noise need no
setting.

It reads the first layers whose update is in the view. In the first block it has the exact input of every word at every
position, and so the order of titles, too. In deeper blocks titles within random prompts stand for them.

How likely each item is there is told by clients that the attack simulates on random prompts (`chances.PowerCurve`): a
power says which of two items explains more, and not how sure that is.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.candidates import RANDOM, Background, Occurrences, TitleInputs, covering
from pplr_audit.attacks.update.chances import PowerCurve
from pplr_audit.attacks.update.directions import Directions, descent, directions
from pplr_audit.attacks.update.simulated import trained_on
from pplr_audit.attacks.update.sparse import powers
from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model.artifacts import digest, digest_of_prompts
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Model
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Aggregate, Update, View

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


class LoraSpan:
    """Names the items of a client's sequences from its update.

    Args:
        shortlist: titles that are asked together, the best by themselves.
        iterations: of the search for those that explain most.
        seed: of the random prompts.
        simulated: clients that are simulated at most, and at most one for two updates that are read: from what is read
            of them each item's probability is told. With 0 none is told.
    """

    name = "lora_span"
    secret = "items"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.AGGREGATE})
    controls = 4

    def __init__(self, shortlist: int = 250, iterations: int = 60, seed: int = 0, simulated: int = 4) -> None:
        require_whole(
            "lora_span", shortlist=(shortlist, 1), iterations=(iterations, 1), seed=(seed, 0), simulated=(simulated, 0)
        )
        self.shortlist, self.iterations, self.seed, self.simulated = shortlist, iterations, seed, simulated

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        asked = [seen for seen in view.records if seen.row in view.rows]
        found: dict[int, Found] = {}
        reasons, facts = list[str](), {}
        readers: dict[tuple[str, str], _Reader] = {}
        for done, seen in enumerate(asked):
            budget.check(done, len(asked))
            client = _clients(seen)[0]
            start = seen.start if isinstance(seen, Update) else knowledge.copy(client, seen.round).adapter
            try:
                update = descent(seen.tensors, start, knowledge, client, seen.round)
                rows, found[seen.row] = self._read(update, start, seen, knowledge, readers, budget)
                facts = {"layer": rows.shares, "directions": len(rows.rows), "width": rows.rows.shape[1]}
            except NotApplicable as reason:
                reasons.append(str(reason))
        if not found:
            raise NotApplicable(reasons[0] if reasons else "no update crossed")
        noise = float(np.mean([each.noise for each in found.values()]))
        curve = self._curve([seen for seen in asked if seen.row in found], knowledge, readers, budget)
        return _answer(found, knowledge, curve, {**facts, "rows_not_applicable": len(reasons), "noise_power": noise})

    def _read(
        self, update: Mapping[str, Tensor], start: Mapping[str, Tensor], seen: Update | Aggregate,
        knowledge: Knowledge, readers: dict[tuple[str, str], "_Reader"], budget: Budget,
    ) -> tuple[Directions, Found]:  # fmt: skip
        """Read an update that is of a record, or simulated as one like it."""
        model = knowledge.copy(_clients(seen)[0], seen.round)
        rows = directions(update, model.linears, start)[0]  # of a sum, from one of the starts
        key = model.digest, rows.shares
        if key not in readers:
            readers[key] = _Reader(model, rows, knowledge, self.seed)
        readers[key].require_room(rows, knowledge, _clients(seen), seen.round)
        adaptive = knowledge.recipe is not None and knowledge.recipe.optimizer == "adamw"
        return rows, readers[key].read(rows, adaptive, self.shortlist, self.iterations, budget)

    def _curve(
        self, read: Sequence[Update | Aggregate], knowledge: Knowledge, readers: dict[tuple[str, str], "_Reader"],
        budget: Budget,
    ) -> PowerCurve | None:  # fmt: skip
        """Return how likely an item of some power is, from clients simulated like those of some records."""
        recipe, steps = knowledge.recipe, knowledge.steps
        like = [seen for seen in read if all((client, seen.round) in steps for client in _clients(seen))]
        if recipe is None or not like or not self.simulated:
            return None
        count = min(self.simulated, max(1, len(like) // 2))
        shown = list[dict[str, Tensor]]()
        for seed, place in enumerate(np.linspace(0, len(like) - 1, count).round().astype(int)):
            seen, drawn = like[place], np.random.default_rng(seed)
            texts = {
                client: [
                    knowledge.prompts.random(knowledge.history, drawn) for _ in range(steps[client, seen.round].samples)
                ]
                for client in _clients(seen)
            }
            source = {
                "settings": [str(recipe), self.shortlist, self.iterations, self.seed, [*seen.tensors]],
                "clients": [
                    [knowledge.copy(client, seen.round).digest, str(steps[client, seen.round]), digest_of_prompts(own)]
                    for client, own in texts.items()
                ],
                "titles": digest(knowledge.prompts.titles.values, knowledge.prompts.titles.offsets),
            }  # fmt: skip
            with suppress(NotApplicable):
                simulate = partial(self._simulated, seen, texts, knowledge, readers, budget)
                shown.append(knowledge.fitted("lora_span", source, simulate))
        if not shown:
            return None
        powers, true = (torch.stack([each[name] for each in shown]).numpy() for name in ("powers", "true"))
        return PowerCurve(powers, true)

    def _simulated(
        self, seen: Update | Aggregate, texts: Mapping[str, Sequence[Prompt]], knowledge: Knowledge,
        readers: dict[tuple[str, str], "_Reader"], budget: Budget,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the powers of all items in an update like a record's on other texts, and which of them are there."""
        assert knowledge.recipe is not None
        total: dict[str, Tensor] = {}
        for client, own in texts.items():
            model, steps = knowledge.copy(client, seen.round), knowledge.steps[client, seen.round]
            moved = trained_on(own, model, knowledge.recipe, steps, seen.round, np.random.default_rng(self.seed))
            total = {
                name: total.get(name, 0) + steps.samples * moved[name].double()
                for name in seen.tensors
                if name in moved
            }
        start = knowledge.copy(_clients(seen)[0], seen.round).adapter
        _, found = self._read(total, start, seen, knowledge, readers, budget)
        classes = knowledge.prompts.title_classes()
        held = {int(item) for own in texts.values() for text in own for item in (*text.items, text.target)}
        there = np.isin(classes, classes[[*held]])
        return {"powers": torch.from_numpy(found.powers[np.argsort(found.items)]), "true": torch.from_numpy(there)}


class _Reader:
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


def _clients(seen: Update | Aggregate) -> tuple[str, ...]:
    return (seen.client,) if isinstance(seen, Update) else seen.clients


def _answer(found: dict[int, Found], knowledge: Knowledge, curve: PowerCurve | None, facts: dict[str, Any]) -> Guess:
    """Put the rankings of all rows together, and where positions are known the titles in their order."""
    rows = sorted(found)
    items, words = [found[row].items for row in rows], [found[row].words for row in rows]
    arrays = {
        "rows": np.array(rows), "ranked_items": np.concatenate(items), "ranked_tokens": np.concatenate(words),
        "item_offsets": _bounds(items), "token_offsets": _bounds(words),
    }  # fmt: skip
    if curve is not None:
        arrays["item_chances"] = np.concatenate([curve.chances(found[row].powers) for row in rows])
    sequences = [(place, _sequence(found[row], knowledge)) for place, row in enumerate(rows) if found[row].starts]
    if sequences:
        texts = [text for _, text in sequences]
        arrays |= {
            "sequence_places": np.array([place for place, _ in sequences]), "sequence_offsets": _bounds(texts),
            "sequence_tokens": np.concatenate(texts),
        }  # fmt: skip
    return Guess(arrays, facts)


def _bounds(parts: Sequence[Int[np.ndarray, "length"]]) -> Int[np.ndarray, "bounds"]:
    return np.cumsum([0, *(len(part) for part in parts)])


def _sequence(found: Found, knowledge: Knowledge) -> Int[np.ndarray, "tokens"]:
    """Return the best titles that do not overlap, as many as a prompt holds, in the order in which they stand."""
    titles, taken = knowledge.prompts.titles, list[tuple[int, int, int]]()
    for item in found.items:
        if int(item) not in found.starts or len(taken) == knowledge.history:
            continue
        start = found.starts[int(item)]
        stop = start + len(titles[int(item)])
        if all(stop <= other or start >= end for other, end, _ in taken):
            taken.append((start, stop, int(item)))
    own = [titles[item][knowledge.prompts.content[item] > 0] for _, _, item in sorted(taken)]
    return np.concatenate(own)

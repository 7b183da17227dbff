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
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.chances import PowerCurve
from pplr_audit.attacks.update.directions import Directions, descent, directions
from pplr_audit.attacks.update.row_reader import Found, RowReader
from pplr_audit.attacks.update.simulated import trained_on
from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model.artifacts import digest, digest_of_prompts
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Aggregate, Update, View


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
        readers: dict[tuple[str, str], RowReader] = {}
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
        knowledge: Knowledge, readers: dict[tuple[str, str], "RowReader"], budget: Budget,
    ) -> tuple[Directions, Found]:  # fmt: skip
        """Read an update that is of a record, or simulated as one like it."""
        model = knowledge.copy(_clients(seen)[0], seen.round)
        rows = directions(update, model.linears, start)[0]  # of a sum, from one of the starts
        key = model.digest, rows.shares
        if key not in readers:
            readers[key] = RowReader(model, rows, knowledge, self.seed)
        readers[key].require_room(rows, knowledge, _clients(seen), seen.round)
        adaptive = knowledge.recipe is not None and knowledge.recipe.optimizer == "adamw"
        source = {
            "model": model.digest, "layer": rows.shares, "history": knowledge.history,
            "settings": [adaptive, self.shortlist, self.iterations, self.seed],
            "titles": digest(knowledge.prompts.titles.values, knowledge.prompts.titles.offsets),
            "rows": digest(rows.rows, *([] if rows.through is None else [rows.through])),
        }  # fmt: skip

        def read() -> dict[str, Tensor]:
            return readers[key].read(rows, adaptive, self.shortlist, self.iterations, budget).tensors()

        # The same rows are in view at many cuts, and in controls.
        return rows, Found.of(knowledge.fitted("lora_span_rows", source, read))

    def _curve(
        self, read: Sequence[Update | Aggregate], knowledge: Knowledge, readers: dict[tuple[str, str], "RowReader"],
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
                "settings": [str(recipe), seen.round, self.shortlist, self.iterations, self.seed, [*seen.tensors]],
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
        readers: dict[tuple[str, str], "RowReader"], budget: Budget,
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

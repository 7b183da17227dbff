"""Token rows: a bag of tokens and items from the tensors of an update that have a row for each of them.

These are word embeddings and the head, LoRA on either, and RecFormer's vectors of items. `row_moves` says what a row
tells, `bag_of_tokens` how tokens become items. What weight decay did to all rows is undone by the public recipe.
Moments of earlier rounds move rows of tokens that were trained on then, by less each step; so rows are ranked by how
much they tell, and none is left out.

Where several tensors tell of items, an item stands as high as it does in the best of these rankings: vectors of items
know those that were recommended, word embeddings those that were read.

That rows of an embedding's gradient name the words of a batch is known since Melis et al. (IEEE S&P 2019, section 4.1)
and used for text by Gupta et al. (FILM, arXiv 2205.08514); that the row of the answer has a gradient of the other sign
since Zhao et al. (iDLG, arXiv 2001.02610, section 3.1). Under AdamW size tells the opposite (`row_moves`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.update.bag_of_tokens import Titles
from pplr_audit.attacks.update.directions import descent
from pplr_audit.attacks.update.row_moves import answered_by, read_by
from pplr_audit.models.rows import Rows
from pplr_audit.scoring.ranking import best_first
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Aggregate, Update, View

Evidence = Sequence[Float[np.ndarray, "asked"]]
"""Evidence for each token or item, from one tensor each."""


class TokenRows:
    """Ranks tokens and items by how the rows of each moved."""

    name = "token_rows"
    secret = "items"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.PERSONAL_MODEL, Channel.AGGREGATE})
    controls = 1

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        if view.adversary == "peer" and view.channel == Channel.PERSONAL_MODEL:
            raise NotApplicable("a peer is sent its own model, with others mixed into it; unmixing reads what it holds")
        rows, titles = knowledge.base.rows, Titles(knowledge.prompts)
        seen = [each for each in view.records if each.row in view.rows]
        items, tokens, read, told = [], [], set[str](), list[int]()
        for place, each in enumerate(seen):
            budget.check(place, len(seen))
            moves = {name: move for name, move in moves_of(each, view.channel, knowledge).items() if name in rows}
            read |= moves.keys()
            if not any(bool(move.any()) for move in moves.values()):
                continue  # nothing was learned there, so nothing is answered
            told.append(each.row)
            by_item, by_token = read_rows(moves, rows, titles, knowledge)
            order = np.random.default_rng(each.row)
            items.append(merged(by_item, order))
            tokens.append(titles.tokens[merged([each[titles.tokens] for each in by_token], order)])
        if not read:
            raise NotApplicable(nothing_to_read(seen))
        if not told:
            raise NotApplicable(f"all of {', '.join(sorted(read))} is zero: nothing was learned from any sample")
        arrays = {"rows": np.array(told), **packed("ranked_items", "item_offsets", items)}
        if any(map(len, tokens)):
            arrays |= packed("ranked_tokens", "token_offsets", tokens)
        return Guess(arrays, {"tensors": sorted(read)})


def moves_of(seen: Update | Aggregate, channel: Channel, knowledge: Knowledge) -> dict[str, Tensor]:
    """Return before - after of each tensor, without what weight decay did, as far as it is known.

    A new model is compared with the one that its client started the round from, or with the best copy there is.
    """
    if isinstance(seen, Aggregate):
        return sum_of(seen, knowledge)
    before = knowledge.copy(seen.client, seen.round).adapter
    if channel == Channel.PERSONAL_MODEL:
        update = {name: before[name].double() - value.double() for name, value in seen.tensors.items()}
        return descent(update, before, knowledge, seen.client, seen.round)
    return descent(seen.tensors, {**before, **seen.start}, knowledge, seen.client, seen.round)


def sum_of(seen: Aggregate, knowledge: Knowledge) -> dict[str, Tensor]:
    """Return a sum of updates without what decay did to each, as far as the clients' starts are known."""
    found = {name: value.double() for name, value in seen.tensors.items()}
    for client in seen.clients:
        steps, start = knowledge.steps.get((client, seen.round)), knowledge.copy(client, seen.round).adapter
        if steps is not None:
            none = {name: torch.zeros_like(value) for name, value in found.items()}
            undone = descent(none, start, knowledge, client, seen.round)
            found = {name: value + steps.samples * undone[name] for name, value in found.items()}
    return found


def read_rows(
    moves: Mapping[str, Tensor], rows: Mapping[str, Rows], titles: Titles, knowledge: Knowledge
) -> tuple[Evidence, Evidence]:
    """Return the evidence for each item, and for each token of the vocabulary, of each tensor that has rows of them."""
    optimizer = "sgd" if knowledge.recipe is None else knowledge.recipe.optimizer
    by_item, by_token = [], []
    for name, move in moves.items():
        kind = rows[name]
        table = move.movedim(kind.axis, 0).flatten(1)
        told = (read_by(table) if kind.learns == "reading" else answered_by(table, optimizer)).numpy()
        if kind.of == "items":
            by_item.append(told)
        else:
            by_token.append(told)
            by_item.append(titles.items(titles.bag(told)))
    return by_item, by_token


def merged(rankings: Evidence, generator: np.random.Generator) -> Int[np.ndarray, "asked"]:
    """Return all, the best first, each by its best place in the rankings; what is level in a random order."""
    if not rankings:
        return np.empty(0, dtype=np.int64)
    order = generator.permutation(len(rankings[0]))
    places = np.stack([np.argsort(best_first(told, order)) for told in rankings])
    return best_first(-places.min(0).astype(np.float64), order)


def packed(name: str, offsets: str, ranked: Sequence[Int[np.ndarray, "ranked"]]) -> dict[str, np.ndarray]:
    """Return rankings, one for each row, as the arrays of a guess."""
    return {name: np.concatenate(ranked).astype(np.int64), offsets: np.cumsum([0, *map(len, ranked)])}


def nothing_to_read(seen: Sequence[Update | Aggregate]) -> str:
    """Return the reason why an update tells nothing of rows."""
    names = sorted({name for each in seen for name in each.tensors})
    held = f"{len(names)} tensors, such as {names[0]}" if names else "no tensor"
    return (
        "no tensor of the update has a row for each token or item: neither word embeddings nor the head are trained, "
        f"by themselves or with LoRA, nor are RecFormer's vectors of items (model.recformer.ids); it has {held}"
    )

"""crafted_adapter: the server sends a client an adapter that parts what its update mixes, and names the client's items.

In PPLR the server makes the model that each client begins a round with, and a client that checks nothing trains on it.
Here every head of the first block is made to look at one word of a sequence (`attention_trap`). The update of the
values then holds a few hundred words and not all of them, by heads apart, and these words tell the items
(`selected_words`). So clients of many samples can be read, of whom an honest round's update spans everything
(`lora_span` does not apply there). All else of the adapter stays as an honest server would send it.

Source: planted weights that keep single inputs apart are of Boenisch et al. (arXiv 2112.02918) and Fowl et al. (arXiv
2110.13057); by attention of Fowl et al., *Decepticons* (arXiv 2201.12675). For LoRA it is of this project.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.attacks.active.attention_trap import (
    Projections,
    directions_of,
    projections,
    steepest,
    trapped,
    traps,
)
from pplr_audit.attacks.active.selected_words import Selection, Words, evidence, gains, item_odds
from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.directions import descent
from pplr_audit.attacks.update.token_rows import packed
from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model import Budget, Channel, Guess, Knowledge, Model, NotApplicable, Update, View
from pplr_audit.threat_model.artifacts import digest

Trap = tuple[Projections, Float[Tensor, "width"], Float[Tensor, "traps width"], list[Float[Tensor, "outputs"]]]


class CraftedAdapter:
    """Names the items of the clients of a round, from what a planted attention lets through.

    Args:
        prompts: random prompts by which the direction of each head's gradient is chosen.
        iterations: of the search for the words of a head.
        seed: of random prompts and directions.
    """

    name = "crafted_adapter"
    secret = "items"
    channels = frozenset({Channel.CLIENT_UPDATE})
    controls = 2
    active = True

    def __init__(self, prompts: int = 32, iterations: int = 60, seed: int = 0) -> None:
        require_whole("crafted_adapter", prompts=(prompts, 1), iterations=(iterations, 1), seed=(seed, 0))
        self.prompts, self.iterations, self.seed = prompts, iterations, seed
        self._words: dict[str, Words] = {}
        self._traps: dict[str, Trap] = {}

    def craft_start(
        self, client: str, round_: int, start: Mapping[str, Tensor], knowledge: Knowledge, budget: Budget
    ) -> Mapping[str, Tensor]:
        """Raises NotApplicable where the client does not hold the first block, or no LoRA is on its attention."""
        model = knowledge.copy(knowledge.clients[0], round_)  # one trap for all clients
        parts = projections(model)
        if any(part.linear.lora_b not in start for part in parts.values()):
            raise NotApplicable("at this cut the client does not hold the first block, in which the trap is set")
        if model.digest not in self._traps:
            words = self._known_words(model, parts, knowledge)
            budget.check()
            level, along = directions_of(words.every, traps(parts), torch.Generator().manual_seed(self.seed))
            into = steepest(model, parts, level, along, words.prompts[: self.prompts])
            self._traps[model.digest] = parts, level, along, into
        parts, level, along, into = self._traps[model.digest]
        return trapped(start, parts, level, along, into)

    def run(self, view: View[Update], knowledge: Knowledge, budget: Budget) -> Guess:
        asked = [seen for seen in view.records if seen.row in view.rows]
        if not asked:
            raise NotApplicable("no update crossed")
        model = knowledge.copy(knowledge.clients[0], asked[0].round)
        parts = projections(model)
        words = self._known_words(model, parts, knowledge)
        selections: dict[str, Selection] = {}
        gained: dict[int, Float[np.ndarray, words]] = {}
        for done, seen in enumerate(asked):
            budget.check(done, len(asked))
            sent = {n: seen.start[n] for p in parts.values() for n in (p.linear.lora_a, p.linear.lora_b)}
            key = digest(sent)
            if key not in selections:
                selections[key] = self._selection(model, sent, parts, words, knowledge, budget)
            steps = knowledge.steps.get((seen.client, seen.round))
            samples = steps.samples if steps is not None else 1
            told = self._told(seen, parts, words, selections[key], knowledge, budget)
            gained[seen.row] = gains(words, selections[key], told, samples)
        rows = sorted(gained)
        items = [np.argsort(-item_odds(knowledge.prompts, words, gained[row]), kind="stable") for row in rows]
        own = words.known[:, 1] == 1
        tokens = [words.known[own, 0][np.argsort(-gained[row][own], kind="stable")] for row in rows]
        chosen = [np.count_nonzero(each.selected.any(0)) for each in selections.values()]
        facts = {
            "heads": traps(parts), "width": words.inputs.shape[1], "words": int(own.sum()),
            "words_selected": int(np.mean(chosen)),
        }  # fmt: skip
        return Guess(
            {"rows": np.array(rows), **packed("ranked_items", "item_offsets", items),
             **packed("ranked_tokens", "token_offsets", tokens)}, facts,
        )  # fmt: skip

    def _known_words(self, model: Model, parts: Projections, knowledge: Knowledge) -> Words:
        if model.digest not in self._words:
            layer = parts["values"].linear.name
            self._words[model.digest] = Words.of(model, layer, knowledge.prompts, knowledge.history, self.seed)
        return self._words[model.digest]

    def _selection(
        self, model: Model, sent: Mapping[str, Tensor], parts: Projections, words: Words, knowledge: Knowledge,
        budget: Budget,
    ) -> Selection:  # fmt: skip
        """Count which words each head selects in random prompts, under what was sent."""
        values = parts["values"]
        if not bool(sent[values.linear.lora_b].any()):
            raise NotApplicable("no trap was set in what this client was sent")
        under = model.under({**model.adapter, **sent})
        rows = [*values.rows][: traps(parts)]

        def rows_of(prompt: Prompt) -> Float[Tensor, "heads width"]:
            return under.gradients([prompt])[values.linear.lora_a][rows]

        def make() -> dict[str, Tensor]:
            found = Selection.of(words, rows_of, budget.check)
            return {"selected": torch.from_numpy(found.selected), "present": torch.from_numpy(found.present)}

        source = {"model": under.digest, "history": knowledge.history, "seed": self.seed}
        found = knowledge.fitted("selected_words", source, make)
        return Selection(found["selected"].numpy(), found["present"].numpy(), len(words.prompts))

    def _told(
        self, seen: Update, parts: Projections, words: Words, selection: Selection, knowledge: Knowledge, budget: Budget
    ) -> list[tuple[Any, Any]]:
        """Return the words that each head may have selected, with the evidence for each in an update."""
        values = parts["values"]
        moved = descent(seen.tensors, seen.start, knowledge, seen.client, seen.round)[values.linear.lora_a]
        adaptive = knowledge.recipe is not None and knowledge.recipe.optimizer == "adamw"
        found = []
        for head, row in enumerate([*values.rows][: traps(parts)]):
            # AdamW divides each number by its own size; the usual size of what enters undoes most of that.
            own = moved[row] * words.background.scale if adaptive else moved[row]
            able = np.flatnonzero(selection.selected[head])
            if not bool(own.any()):
                found.append((able, np.zeros(len(able))))
                continue
            told = evidence(own / own.norm(), words.inputs[able], words.noises, self.iterations, budget.check)
            found.append((able, told))
        return found

"""Reads the few samples behind a client's update by finding samples that would give the same update.

DLG (Zhu et al. 2019, arXiv 1906.08935), TAG (Deng et al. 2021, arXiv 2103.06819) and LAMP (Balunovic et al. 2022, arXiv
2202.08827) match gradients on free embeddings; ``by: words`` does as they do (`free_words`). The recommender's language
is the list of titles, so that whole titles can be tried in the places of the public template: ``by: titles``
(`title_search`). That is for clients of few samples, as with ``partition: per_user``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np
from torch import Tensor

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.directions import descent
from pplr_audit.attacks.update.distances import DISTANCES, Distance, by_layer, distance
from pplr_audit.attacks.update.free_words import Matching, of_titles
from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.attacks.update.title_search import Items, TitleSearch
from pplr_audit.data.prompts import TEMPLATE, Prompt, Prompts
from pplr_audit.errors import InputError
from pplr_audit.threat_model import Budget, Channel, Guess, Knowledge, LocalSteps, Model, NotApplicable, Update, View

BY, START = ("titles", "words"), ("lora_span", "nothing")


@dataclass(frozen=True)
class Read:
    """What was read of one client."""

    items: np.ndarray
    """All items, the likeliest first."""
    samples: Sequence[Prompt]
    distance: float


class GradientMatch:
    """Samples whose training gives the update that was seen.

    Args:
        by: ``titles`` tries whole titles, ``words`` optimizes embeddings.
        distance: ``cosine``, ``l2`` or ``l1``, as in `distances`.
        start: the ranking of items that titles are tried by: that of ``lora_span``, or ``nothing``: all, in any order.
        samples: most samples of a client that are searched for.
        shortlist: items that are tried in a place.
        tries: simulated clients for each client, at most.
        steps: of Adam (for ``l2`` of L-BFGS) in each of two turns, for words.
        seed: of what is drawn.
    """

    name = "gradient_match"
    secret = "items"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE})
    controls = 1

    def __init__(
        self, by: Literal["titles", "words"] = "titles", distance: Distance = "cosine",
        start: Literal["lora_span", "nothing"] = "lora_span", samples: int = 4, shortlist: int = 32, tries: int = 256,
        steps: int = 100, seed: int = 0,
    ) -> None:  # fmt: skip
        for name, value, accepted in (("by", by, BY), ("distance", distance, DISTANCES), ("start", start, START)):
            if value not in accepted:
                raise InputError(f"gradient_match: {name} is {value!r} (accepted: {', '.join(accepted)})")
        counts = {"samples": samples, "shortlist": shortlist, "tries": tries, "steps": steps}
        require_whole("gradient_match", **{name: (count, 1) for name, count in counts.items()}, seed=(seed, 0))
        self.by, self.distance, self.start, self.seed = by, distance, start, seed
        self.samples, self.shortlist, self.tries, self.steps = samples, shortlist, tries, steps

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        """Raises NotApplicable where no client has few samples, or the adversary cannot simulate one."""
        if knowledge.recipe is None:
            raise NotApplicable("this attack simulates clients, and the adversary does not know the training's recipe")
        seen: list[Update] = [record for record in view.records if record.row in view.rows]
        steps = {r.row: own for r in seen if (own := knowledge.steps.get((r.client, r.round))) is not None}
        if not steps:
            raise NotApplicable("this attack simulates clients, and the adversary does not know their samples")
        few = [record for record in seen if record.row in steps and 0 < steps[record.row].samples <= self.samples]
        if not few:
            fewest = min(own.samples for own in steps.values())
            raise NotApplicable(
                f"samples are searched for one by one, for at most {self.samples} of a client (samples), and each "
                f"update here is of {fewest} or more"
            )
        few = [record for record in few if any(bool(tensor.any()) for tensor in record.tensors.values())]
        if not few:
            raise NotApplicable("all of the update is zero: it says nothing of any sample")
        ranked = self._ranked(view, knowledge, budget) if self.by == "titles" else {}
        found: dict[int, Read] = {}
        for done, record in enumerate(few):
            budget.check(done, len(few))
            read = self._by_titles if self.by == "titles" else self._by_words
            found[record.row] = read(record, steps[record.row], ranked.get(record.row), knowledge, budget)
        return _answer(found, knowledge)

    def _ranked(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Mapping[int, Sequence[int]]:
        """Return the items of each row as another attack ranks them; none where there is no such attack for it."""
        if self.start == "nothing":
            return {}
        try:
            given = LoraSpan(seed=self.seed, simulated=0).run(view, knowledge, budget).arrays
        except NotApplicable:
            return {}
        bounds, items = given["item_offsets"], given["ranked_items"]
        return {int(row): items[bounds[at] : bounds[at + 1]].tolist() for at, row in enumerate(given["rows"])}

    def _by_titles(
        self, record: Update, steps: LocalSteps, ranked: Sequence[int] | None, knowledge: Knowledge, budget: Budget
    ) -> Read:
        prompts, model = knowledge.prompts, knowledge.copy(record.client, record.round)
        wanted = descent(record.tensors, record.start, knowledge, record.client, record.round)
        count, generator = len(prompts.titles), np.random.default_rng((self.seed, record.row))
        order = list(ranked) if ranked is not None else generator.permutation(count).tolist()
        shortlist = order[: self.shortlist] if ranked is not None else order
        # What a sample answers with stands in the sequence of a decoder, and is nowhere in that of an encoder.
        answers = shortlist if model.causal else generator.permutation(count).tolist()

        def away(candidate: Sequence[Items]) -> float:
            budget.check()
            return self._away(candidate, model, steps, wanted, knowledge)

        long = (knowledge.history + 1) * steps.samples
        first = list(islice(cycle(shortlist), long))
        size = knowledge.history + 1
        start = [tuple(first[at : at + size]) for at in range(0, long, size)]
        search = TitleSearch(away, shortlist, answers, self.tries, generator)
        search.run(start)
        return Read(search.ranked(count), [_built(prompts, each) for each in search.best], search.distance)

    def _away(
        self, candidate: Sequence[Items], model: Model, steps: LocalSteps, wanted: Mapping[str, Tensor],
        knowledge: Knowledge,
    ) -> float:  # fmt: skip
        """The distance between what was seen and what a client with these samples would send."""
        recipe = knowledge.recipe
        assert recipe is not None
        samples = cycle([_built(knowledge.prompts, each) for each in candidate])
        size = min(recipe.batch_size, steps.samples)
        sizes = steps.batches or (size,) * steps.steps
        moved = model.trained([list(islice(samples, size)) for size in sizes], recipe, steps.factors)
        decay = recipe.learning_rate * sum(steps.factors) * recipe.weight_decay
        plain = {name: moved[name] - decay * model.adapter[name] for name in wanted if name in moved}
        return float(_or_not_applicable(plain, wanted, self.distance, self._weights(model, knowledge)))

    def _weights(self, model: Model, knowledge: Knowledge) -> dict[str, float]:
        return by_layer(model.linears.values(), knowledge.depth) if self.distance == "l1" else {}

    def _by_words(
        self, record: Update, steps: LocalSteps, ranked: Sequence[int] | None, knowledge: Knowledge, budget: Budget
    ) -> Read:
        """One sequence of words between the template's, of as many items as a prompt holds, each as long as the median.

        What the sample answers with is the item whose gradient is nearest, over a random history.
        """
        del ranked
        prompts, model, recipe = knowledge.prompts, knowledge.copy(record.client, record.round), knowledge.recipe
        assert recipe is not None
        weights = self._weights(model, knowledge)
        moved = descent(record.tensors, record.start, knowledge, record.client, record.round)
        wanted = {name: value / (recipe.learning_rate * sum(steps.factors)) for name, value in moved.items()}
        lengths = prompts.titles.lengths
        usual = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
        history = [usual] * knowledge.history
        away = [
            float(
                _or_not_applicable(model.gradients([_built(prompts, (*history, item))]), wanted, self.distance, weights)
            )
            for item in range(len(lengths))
        ]
        answer = int(np.argmin(away))
        skeleton = _built(prompts, (*history, answer))
        matching = Matching(kind=self.distance, steps=self.steps, weights=weights)
        tokens = matching.words(
            model, skeleton, skeleton.slots >= 0, wanted, knowledge.embeddings, budget.check, self.seed + record.row
        )
        read = tokens[skeleton.slots != TEMPLATE].tolist()
        titles = [prompts.titles[item] for item in range(len(lengths))]
        items = dict.fromkeys([answer, *of_titles(read, titles).tolist()])
        sequence = Prompt(tokens, skeleton.slots, skeleton.items, skeleton.answer, skeleton.order, answer)
        return Read(np.array([*items]), [sequence], away[answer])


def _or_not_applicable(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], kind: Distance, weights: Mapping[str, float]
) -> Tensor:
    try:
        return distance(found, wanted, kind, weights)
    except ValueError:
        raise NotApplicable("no tensor of this update is one that the adversary's model trains") from None


def _built(prompts: Prompts, items: Items) -> Prompt:
    return prompts.build(np.array(items[:-1], dtype=np.int64), items[-1])


def _answer(found: Mapping[int, Read], knowledge: Knowledge) -> Guess:
    """The answer for clients that were read."""
    texts = [each.tokens[each.slots != TEMPLATE] for read in found.values() for each in read.samples]
    places = [place for place, read in enumerate(found.values()) for _ in read.samples]
    titles, content = knowledge.prompts.titles, knowledge.prompts.content
    tokens: list[np.ndarray] = []
    for read in found.values():
        own = [text for text, place in zip(texts, places, strict=True) if place == len(tokens)]
        listed = [titles[item][content[item] == 1] for item in read.items.tolist()]
        tokens.append(np.array([*dict.fromkeys(np.concatenate([*own, *listed]).tolist())], dtype=np.int64))
    arrays = {
        "rows": np.array([*found], dtype=np.int64),
        "ranked_items": np.concatenate([read.items for read in found.values()]),
        "item_offsets": np.cumsum([0, *(len(read.items) for read in found.values())]),
        "ranked_tokens": np.concatenate(tokens), "token_offsets": np.cumsum([0, *map(len, tokens)]),
        "sequence_places": np.array(places, dtype=np.int64),
        "sequence_tokens": np.concatenate(texts).astype(np.int64),
        "sequence_offsets": np.cumsum([0, *map(len, texts)]),
    }  # fmt: skip
    median = float(np.median([read.distance for read in found.values()]))
    return Guess(arrays, {**knowledge.facts, "median_distance": median, "clients_read": len(found)})

"""Exact search: runs each candidate through the adversary's copy of the front and compares it with what crossed.

A causal model's activations at a position depend on the tokens up to it and on nothing else, so a sequence is read from
the left: candidates for the next piece are run behind what was read, and the nearest one is taken (SipIt, Nikolaou et
al. 2025, arXiv 2510.15511, tries the whole vocabulary at every position). Here keys and values of what was read are
cached, candidates come from the ridge inverter, the best first, and the catalogue is the language: whole titles are
tried along a trie, and the vocabulary only where asked for (``over: tokens``). See `walks` and `paths`.

An encoder has no prefix: its readings are refined as a whole, see `refinement`.
"""

from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from torch.nn.functional import normalize

from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.decoding.word_scores import packed, require_records, require_whole
from pplr_audit.attacks.search.candidates import Front, PathCache
from pplr_audit.attacks.search.refinement import Refiner
from pplr_audit.attacks.search.walks import Answer, Candidates, Crossed, Walk, by_titles, by_tokens
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View


class PrefixSearch:
    """Reads what crossed by running candidates through the front that the adversary knows.

    Args:
        over: what is searched at each place: the catalogue's ``titles``, or all ``tokens``, for text that is in no
            catalogue.
        shortlist: candidates by the ridge inverter that are tried together.
        beam: readings of an encoder's sequence that are kept.
        prompts, held_out, seed: of the ridge inverter.
    """

    name = "prefix_search"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1

    def __init__(
        self, over: Literal["titles", "tokens"] = "titles", shortlist: int = 16, beam: int = 4, prompts: int = 128,
        held_out: int = 16, seed: int = 0,
    ) -> None:  # fmt: skip
        if over not in ("titles", "tokens"):
            raise InputError(f"prefix_search: over is {over!r} (accepted: titles, tokens)")
        require_whole(
            "prefix_search", shortlist=(shortlist, 2), beam=(beam, 1), prompts=(prompts, 1), held_out=(held_out, 1),
            seed=(seed, 0),
        )  # fmt: skip
        self.over, self.shortlist, self.beam = over, shortlist, beam
        self._ridge = Ridge(prompts, held_out, seed)
        self._searches: WeakKeyDictionary[Knowledge, _Search] = WeakKeyDictionary()

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        front = require_records(view, knowledge)
        if self.over == "tokens" and not knowledge.base.causal:
            raise NotApplicable("over: tokens needs a causal model, and this is an encoder; over: titles is possible")
        search = self._searches.get(knowledge)
        if search is None:
            search = self._searches[knowledge] = _Search(self.over, self.shortlist, self.beam, self._ridge, knowledge)
        before = search.evaluations
        for client, round_ in sorted({(record.client, record.round) for record in view.records}):
            search.front(client, round_, knowledge, budget)
        answers = []
        for place, record in enumerate(view.records):
            budget.check(place, len(view.records))
            # A row may be searched more widely while those before it and it have used less than their share.
            answers.append(search.read(record, front, knowledge, budget, (place + 1) / len(view.records)))
        distances = [distance for answer in answers for distance in answer.distances]
        facts: dict[str, Any] = {
            "over": self.over, "evaluations": search.evaluations - before,
            "median_distance": float(np.median(distances)) if distances else None,
            "verified": sum(answer.verified for answer in answers) / len(distances) if distances else None,
        }  # fmt: skip
        labeled = view.channel == Channel.FRONT_ACTIVATIONS and search.reader.answers
        slots = [np.array(answer.items, dtype=np.int64) for answer in answers]
        labels = [answer.labels for answer in answers] if labeled else None
        rows, tokens = [record.row for record in view.records], [answer.tokens for answer in answers]
        claimed = [answer.claimed for answer in answers]
        return Guess(packed(rows, tokens, claimed, slots, labels), facts)


class _Search:
    """State shared by the searches at all fronts: the ridge inverters, the fronts and their caches.

    It holds no `Knowledge`, by which it is found, so that both end together.
    """

    def __init__(self, over: str, shortlist: int, beam: int, ridge: Ridge, knowledge: Knowledge) -> None:
        self._over, self._shortlist, self._ridge = over, shortlist, ridge
        self.reader = TitleReader(knowledge.prompts)
        self._candidates = Candidates(knowledge.prompts, self.reader)
        self._refiner = Refiner(
            knowledge.prompts, self._candidates, self.reader, history=knowledge.history, beam=beam, shortlist=shortlist
        )
        self._words = normalize(knowledge.embeddings[self.reader.vocabulary].float(), dim=1)
        self._fronts: dict[tuple[str, int], Front] = {}
        self._cache = PathCache()
        self._fitting = ridge.evaluations

    @property
    def evaluations(self) -> int:
        """Blocks times tokens that were run, those of the ridge inverters included."""
        fitting = self._ridge.evaluations - self._fitting
        return fitting + self._refiner.evaluations + sum(front.evaluations for front in self._fronts.values())

    def front(self, client: str, round_: int, knowledge: Knowledge, budget: Budget) -> Front | None:
        """The adversary's front for a client, its ridge inverters fitted; None for an encoder."""
        self._ridge.inverters(client, round_, knowledge, self.reader.vocabulary, budget)
        model = knowledge.copy(client, round_)
        if not model.causal:
            return None
        key = ("", 0) if model is knowledge.base else (client, round_)
        if key not in self._fronts:
            self._fronts[key] = Front(model, knowledge.prompts.prefix, knowledge.layers, self._cache)
        return self._fronts[key]

    def read(self, record: Record, layer: int, knowledge: Knowledge, budget: Budget, share: float) -> Answer:
        """Read one row.

        Args:
            share: of the time that may have gone when it is done, if it needs much.
        """
        left = partial(budget.left, share)
        tensor = record.tensor.float()
        words = self.reader.vocabulary
        inverter = self._ridge.inverters(record.client, record.round, knowledge, words, budget)[layer]
        inverted = normalize(inverter(tensor), dim=1)
        fit = (inverted @ self._words.T).numpy()
        front = self.front(record.client, record.round, knowledge, budget)
        if front is None:
            model = knowledge.copy(record.client, record.round)
            answer = self._refiner.refine(model, fit, tensor, layer, left, record.row)
        elif len(tensor) <= len(knowledge.prompts.prefix):
            answer = Answer(knowledge.prompts.prefix)
        else:
            walk = Walk(Crossed(tensor, layer, front, self._shortlist, left, record.row))
            answer = walk.answer
            whole = self._over == "titles" and by_titles(walk, fit, self._candidates)
            start = len(walk.path)
            if start < len(tensor):
                by_tokens(walk, (inverted @ normalize(knowledge.embeddings.float(), dim=1).T).numpy())
            if not whole:
                # Items are read off the tokens that were found, with the ridge inverter where those are no words.
                told = fit + 2.0 * (answer.tokens[:, None] == words)
                found = self.reader.read(told, start, record.row)
                answer.labels = found.labels
                answer.items += list(found.items)
                answer.claim(start, found.claimed[start:])
        # What was not reached is left to the ridge inverter.
        answer.tokens = np.concatenate([answer.tokens, words[fit.argmax(1)][len(answer.tokens) :]])[: len(tensor)]
        answer.claim(len(tensor), np.empty(0, dtype=bool))
        return answer

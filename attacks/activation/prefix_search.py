"""Exact search: runs each candidate through the adversary's copy of the front and compares it with what crossed.

A causal model's activations at a position depend on the tokens up to it and on nothing else, so a sequence is read from
the left: candidates for the next piece are run behind what was read, and the nearest one is taken (SipIt, Nikolaou et
al. 2025, arXiv 2510.15511, tries the whole vocabulary at every position). Here keys and values of what was read are
cached, candidates come from the ridge inverter, the best first, and the catalogue is the language: whole titles are
tried along a trie, and the vocabulary only where asked for (``over: tokens``). See `walks` and `paths`.

An encoder has no prefix: its readings are refined as a whole, see `refinement`.

Of several crossings of a row, the one that a copy explains best is searched (`Copies`), so that they cost no more.

The work on a row is bounded by what is tried for it, never by a clock, so that every machine finds the same.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pplr_audit.attacks.activation.ridge import Fitted, Ridge
from pplr_audit.attacks.decoding.copies import Copies
from pplr_audit.attacks.decoding.crossings import by_row, doubts_of
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.decoding.word_scores import packed, require_records, require_whole
from pplr_audit.attacks.search.candidates import Front, PathCache
from pplr_audit.attacks.search.refinement import Refiner
from pplr_audit.attacks.search.walks import Answer, Candidates, Crossed, Walk, by_titles, by_tokens
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, When
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View


class PrefixSearch:
    """Reads what crossed by running candidates through the front that the adversary knows.

    Args:
        over: what is searched at each place: the catalogue's ``titles``, or all ``tokens``, for text that is in no
            catalogue.
        shortlist: candidates by the ridge inverter that are tried together.
        beam: readings of an encoder's sequence that are kept.
        candidates: pieces that may be tried for a row before a shortlist is no longer widened; of a causal model.
        readings: readings of a whole sequence that may be tried for a row before it is no longer refined; of an
            encoder.
        prompts, held_out, seed: of the ridge inverter.
    """

    name = "prefix_search"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1
    every_crossing = True

    def __init__(
        self, over: Literal["titles", "tokens"] = "titles", shortlist: int = 16, beam: int = 4,
        candidates: int = 65_536, readings: int = 1024, prompts: int = 128, held_out: int = 16, seed: int = 0,
    ) -> None:  # fmt: skip
        if over not in ("titles", "tokens"):
            raise InputError(f"prefix_search: over is {over!r} (accepted: titles, tokens)")
        require_whole(
            "prefix_search", shortlist=(shortlist, 2), beam=(beam, 1), candidates=(candidates, 1),
            readings=(readings, 1), prompts=(prompts, 1), held_out=(held_out, 1), seed=(seed, 0),
        )  # fmt: skip
        self.over, self.shortlist, self.beam, self.candidates, self.readings = (
            over, shortlist, beam, candidates, readings,
        )  # fmt: skip
        self.ridge = Ridge(prompts, held_out, seed)
        self.cache = PathCache()

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        front = require_records(view, knowledge)
        if self.over == "tokens" and not knowledge.base.causal:
            raise NotApplicable("over: tokens needs a causal model, and this is an encoder; over: titles is possible")
        search = _Search(self, knowledge, front, view.records)
        for client, round_ in sorted({(record.client, record.round) for record in view.records}):
            search.prepare(client, round_, budget)
        answers, crossed = [], by_row(view.records)
        for place, crossings in enumerate(crossed.values()):
            budget.check(place, len(crossed))
            answers.append(search.read(crossings, budget))
        distances = [distance for answer in answers for distance in answer.distances]
        facts: dict[str, Any] = {
            "over": self.over, "evaluations": search.evaluations,
            "median_distance": float(np.median(distances)) if distances else None,
            "verified": sum(answer.verified for answer in answers) / len(distances) if distances else None,
            **search.copies.facts,
        }  # fmt: skip
        labeled = view.channel == Channel.FRONT_ACTIVATIONS and search.reader.answers
        slots = [np.array(answer.items, dtype=np.int64) for answer in answers]
        labels = [answer.labels for answer in answers] if labeled else None
        tokens, claimed = [answer.tokens for answer in answers], [answer.claimed for answer in answers]
        return Guess(packed([*crossed], tokens, claimed, slots, labels), facts)


class _Search:
    """Searches of one view: the ridge inverters and fronts that its rows share."""

    def __init__(
        self, settings: PrefixSearch, knowledge: Knowledge, layer: int, records: Sequence[Record]
    ) -> None:  # fmt: skip
        self._settings, self._knowledge, self._layer = settings, knowledge, layer
        self.reader = TitleReader(knowledge.prompts)
        self._candidates = Candidates(knowledge.prompts, self.reader)
        self._refiner = Refiner(
            knowledge.prompts, self._candidates, self.reader, history=knowledge.history, beam=settings.beam,
            shortlist=settings.shortlist, readings=settings.readings,
        )  # fmt: skip
        self._words = normalize(knowledge.embeddings[self.reader.vocabulary].float(), dim=1)
        self._inverters: dict[tuple[str, int], dict[When, Fitted]] = {}
        self._fronts: dict[str, Front] = {}
        self._fitted: dict[str, int] = {}
        self.copies = Copies(knowledge, layer, records)

    @property
    def evaluations(self) -> int:
        """Blocks times tokens that the search at this front alone takes, those of the ridge inverters included."""
        searched = sum(front.evaluations for front in self._fronts.values())
        return sum(self._fitted.values()) + self._refiner.evaluations + searched

    def prepare(self, client: str, round_: int, budget: Budget) -> None:
        """Have the ridge inverters and fronts of a client's model at hand; an encoder has no front."""
        knowledge, settings, words = self._knowledge, self._settings, self.reader.vocabulary
        for when, model in knowledge.copies_of(client, round_).items():
            found = settings.ridge.inverter(client, round_, self._layer, knowledge, words, budget, when)
            self._inverters.setdefault((client, round_), {})[when] = found
            self._fitted[model.digest] = found.evaluations
            if model.causal and model.digest not in self._fronts:
                self._fronts[model.digest] = Front(
                    model, knowledge.prompts.prefix, self._layer, knowledge.layers, settings.cache
                )

    def read(self, crossings: Sequence[Record], budget: Budget) -> Answer:
        """Read one row, by the crossing and the copy that explain it best."""
        knowledge, settings = self._knowledge, self._settings
        found = [self._inverted(record) for record in crossings]
        place, when = self.copies.best(crossings, [doubts_of(fits) for _, fits in found])
        record, (inverted, fits) = crossings[place], found[place]
        tensor, words = record.tensor.float(), self.reader.vocabulary
        copies = knowledge.copies_of(record.client, record.round)
        if knowledge.base.causal:
            front = self._fronts[copies[when].digest]
            crossed = Crossed(tensor, front, settings.shortlist, settings.candidates, budget.check, record.row)
            answer = self._walked(crossed, inverted[when], fits[when])
        else:
            answers = {
                when: self._refiner.refine(model, fits[when], tensor, self._layer, budget.check, record.row)
                for when, model in copies.items()
            }
            far = {when: float(np.mean(found.distances or [np.inf])) for when, found in answers.items()}
            when = min(far, key=far.__getitem__)
            answer = answers[when]
        self.copies.count(when, record)
        # What was not reached is left to the ridge inverter.
        answer.tokens = np.concatenate([answer.tokens, words[fits[when].argmax(1)][len(answer.tokens) :]])[
            : len(tensor)
        ]
        answer.claim(len(tensor), np.empty(0, dtype=bool))
        return answer

    def _inverted(
        self, record: Record
    ) -> tuple[dict[When, Float[Tensor, "length hidden"]], dict[When, Float[np.ndarray, "length words"]]]:
        """Return the embeddings that the ridge inverters give, and how well each word fits to them, by copy."""
        tensor, inverters = record.tensor.float(), self._inverters[record.client, record.round]
        inverted = {when: normalize(inverter(tensor), dim=1) for when, inverter in inverters.items()}
        return inverted, {when: (each @ self._words.T).numpy() for when, each in inverted.items()}

    def _walked(
        self, crossed: Crossed, inverted: Float[Tensor, "length hidden"], fit: Float[np.ndarray, "length words"]
    ) -> Answer:
        """Read a causal model's row from the left to the right."""
        knowledge, length = self._knowledge, len(crossed.tensor)
        if length <= len(knowledge.prompts.prefix):
            return Answer(knowledge.prompts.prefix)
        walk = Walk(crossed)
        answer = walk.answer
        whole = self._settings.over == "titles" and by_titles(walk, fit, self._candidates)
        start = len(walk.path)
        if start < length:
            by_tokens(walk, (inverted @ normalize(knowledge.embeddings.float(), dim=1).T).numpy())
        if not whole:
            # Items are read off the tokens that were found, with the ridge inverter where those are no words.
            told = fit + 2.0 * (answer.tokens[:, None] == self.reader.vocabulary)
            found = self.reader.read(told, start, crossed.row)
            answer.labels = found.labels
            answer.items += list(found.items)
            answer.claim(start, found.claimed[start:])
        return answer

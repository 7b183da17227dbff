"""Reads the texts of an update exactly, by testing which inputs lie in the spans of its gradients.

DAGER (Petrov, Dimitrov, Baader, Müller and Vechev 2024, arXiv 2405.15586): tokens are tried at each place by what
enters the first block, and sequences by what enters a later one. Here rank and noise of each gradient are told from its
spectrum, and distances are compared with what this noise lets expect (`spectrum`), so that no tolerance has to be set
and added noise makes the answer worse by degrees. What enters a layer is taken from the model (`checks`), so that LoRA,
decoders and encoders of every family are read by the same steps.

The text of a recommender is its template with titles of the catalogue (``over: titles``); ``over: tokens`` takes any.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.alone import Alone, Likely
from pplr_audit.attacks.update.checks import Check, checks
from pplr_audit.attacks.update.directions import Directions, descent, directions
from pplr_audit.attacks.update.language import Language
from pplr_audit.attacks.update.prefixes import PrefixWalk, Text
from pplr_audit.attacks.update.readings import Graph, Readings, of_titles, of_tokens
from pplr_audit.attacks.update.spectrum import Span
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Model
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Aggregate, Update, View

TEXTS = 256
"""Most texts that are drawn to see how many of their inputs differ."""
FIRST = (1, True)
"""The mark of a token of the first item's title, by which tokens are ranked where marks count."""


@dataclass(frozen=True)
class Settings:
    """How much is tried, in units of candidates."""

    shortlist: int = 1024
    """Most tokens that are kept of a place."""
    beam: int = 256
    """Most sequences that are followed at once."""
    layers: int = 1
    """Blocks behind the first one whose inputs are tested."""
    candidates: int = 262_144
    """Tokens that are tried behind prefixes, or of whole readings, for one update."""
    longest: int = 512
    """Most tokens of a sequence."""
    texts: Sequence[Prompt] = ()
    """Texts like those of the update, and as many, as far as that is public: they tell how many inputs differ."""


@dataclass(frozen=True)
class Answer:
    """What was read of one update."""

    tokens: Likely
    """All tokens that were tried alone, the likeliest first."""
    sequences: Sequence[Text]
    """Sequences that were read, the likeliest first."""
    facts: Mapping[str, Any]


def read(
    found: Sequence[Directions], model: Model, language: Language | None, settings: Settings,
    words: Int[np.ndarray, "words"], check: Callable[[], None],
) -> Answer:  # fmt: skip
    """Read the sequences that an update was computed on.

    Args:
        found: the directions of a gradient, or of an update.
        language: what the texts are made of; None: of any words.
        words: the tokens that are tried.
        check: called between parts of the work.

    Raises:
        NotApplicable: no input can be tried one by one, or the update's directions leave no room to tell inputs apart.
    """
    tests = checks(found, model, settings.layers)
    if not tests:
        raise NotApplicable("the update has no layer whose input follows from what enters its block at the same place")
    for each in tests.get(0) or [test for own in tests.values() for test in own][:1]:
        _require_room(each)  # a later layer without room hides sequences, and not the tokens of the first
    alone = Alone(model, tests[0], words, settings.shortlist, settings.longest, check) if 0 in tests else None
    if alone is not None:
        _require_fewer(alone, tests[0][0], settings.texts)
        alone.at(0, FIRST)
        _require_few(alone, tests[0][0])
    search = _Search(model, tests, alone, language, settings, words)
    sequences, facts = search.read(check)
    facts = {"ranks": _facts(tests), **facts}
    if alone is None and not facts["searched"]:
        names = ", ".join(each.module for own in tests.values() for each in own)
        raise NotApplicable(
            f"tokens cannot be tried one by one: the update has {names}, and no layer that reads a token and its place"
        )
    if alone is None:
        counted = dict.fromkeys(token for text in sequences for token in text.tokens)
        return Answer(Likely(np.array([*counted], dtype=np.int64), np.ones(len(counted))), sequences, facts)
    if not sequences:
        alone.at(settings.longest - 1, FIRST)
    ranked = alone.ranked()
    return Answer(ranked, sequences, facts)


@dataclass(frozen=True)
class _Search:
    """The search of sequences, where some span of a later block is seen whole."""

    model: Model
    tests: Mapping[int, Sequence[Check]]
    alone: Alone | None
    language: Language | None
    settings: Settings
    words: Int[np.ndarray, "words"]

    def read(self, check: Callable[[], None]) -> tuple[Sequence[Text], dict[str, Any]]:
        """Return sequences, the likeliest first, and facts on the search."""
        behind = {layer: own for layer, own in self.tests.items() if layer and any(_exact(each.span) for each in own)}
        if not behind or self._crowded:
            return (), {"searched": False}
        settings = self.settings
        if self.model.causal:
            extensions = _extensions(self.alone, self.language, self.words)
            walk = PrefixWalk(
                self.model, behind, extensions, settings.beam, settings.candidates, check, settings.longest
            )
            return walk.read(), {"searched": True, "tried": walk.tried, "complete": walk.complete}
        if self.alone is None:
            return (), {"searched": False}
        readings = Readings(self.model, behind, self._graph(self.alone), settings.candidates, settings.beam, check)
        return readings.read(), {"searched": True, "tried": readings.tried, "complete": readings.complete}

    def _graph(self, alone: Alone) -> Graph:
        return of_tokens(alone) if self.language is None else of_titles(alone, self.language)

    @property
    def _crowded(self) -> bool:
        """True if more inputs are likely than a span can hold, and no language says which of them belong together."""
        if self.alone is None or self.language is not None:
            return False
        return self.alone.accepted > 2 * self.tests[0][0].span.rank


def _extensions(
    alone: Alone | None, language: Language | None, words: Int[np.ndarray, "words"]
) -> Callable[[Sequence[int]], tuple[Int[np.ndarray, "tokens"], Float[np.ndarray, "tokens"]]]:
    """Return the tokens that may follow a prefix, by the language and by the first block's span."""

    def extensions(prefix: Sequence[int]) -> tuple[Int[np.ndarray, "tokens"], Float[np.ndarray, "tokens"]]:
        allowed = words if language is None else language.after(prefix)
        if alone is None:
            return allowed, np.zeros(len(allowed))
        likely = alone.at(len(prefix))
        kept = np.isin(likely.tokens, allowed) if language is not None else np.ones(len(likely.tokens), dtype=bool)
        return likely.tokens[kept], likely.odds[kept]

    return extensions


def _exact(span: Span) -> bool:
    """True if a span is seen whole, holds something, and leaves something out."""
    return span.whole and 0 < span.rank < span.width


def _require_room(test: Check) -> None:
    """Raises NotApplicable where a span holds nothing, or all there is."""
    if not test.span.rank:
        raise NotApplicable("the update holds no more of what entered than noise does: " + _numbers(test))
    if test.span.rank >= test.span.width:
        raise NotApplicable("distinct inputs are at least as many as the layer is wide: " + _numbers(test))


def _require_fewer(alone: Alone, test: Check, texts: Sequence[Prompt]) -> None:
    """Raises NotApplicable where texts like these have as many different inputs as a layer is wide.

    A floor of mere rounding shows that there are fewer; any other one may be of inputs that look like noise.
    """
    inputs = {
        (int(token), place if alone.placed else 0, int(order) if alone.marked else 0)
        for text in texts
        for place, (token, order) in enumerate(zip(text.tokens, text.order, strict=True))
    }
    if len(inputs) >= test.span.width and not test.span.rounded:
        reason = f"about {len(inputs)} inputs differ, and {test.module} is {test.span.width} wide: "
        raise NotApplicable(reason + _numbers(test))


def _require_few(alone: Alone, test: Check) -> None:
    """Raises NotApplicable where a whole span takes in half of all that is tried: it tells nothing apart."""
    if test.span.whole and 2 * alone.accepted >= alone.tried:
        raise NotApplicable(f"{alone.accepted} of {alone.tried} tokens tried fit the update: " + _numbers(test))


def _numbers(test: Check) -> str:
    """Return the numbers of a span in words."""
    span = test.span
    strongest = float(span.values[0]) if span.rank else 0.0
    return (
        f"{span.rank} of {span.width} directions stand out of what enters {test.module}, with noise of {span.noise:.1e}"
        f" an entry beside a strongest singular value of {strongest:.1e}"
    )


def _facts(tests: Mapping[int, Sequence[Check]]) -> dict[str, list[int]]:
    """Return rank and width of each span, by the layer that reads."""
    return {each.module: [each.span.rank, each.span.width] for own in tests.values() for each in own}


class Dager:
    """Reads sequences of updates by span checks.

    Args:
        over: the texts that are tried: the template with ``titles`` of the catalogue, or any ``tokens``.
        shortlist, beam, layers, candidates: see `Settings`.
    """

    name = "dager"
    secret = "items"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.AGGREGATE})
    controls = 1

    def __init__(
        self, over: Literal["titles", "tokens"] = "titles", shortlist: int = 1024, beam: int = 256, layers: int = 1,
        candidates: int = 262_144,
    ) -> None:  # fmt: skip
        if over not in ("titles", "tokens"):
            raise InputError(f"dager: over is {over!r} (accepted: titles, tokens)")
        require_whole("dager", shortlist=(shortlist, 1), beam=(beam, 1), layers=(layers, 1), candidates=(candidates, 1))
        self.over = over
        self.settings = Settings(shortlist, beam, layers, candidates)

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        """Raises NotApplicable where no update can be read, with the reason for the first one."""
        language = Language(knowledge.prompts, knowledge.history)
        answers: dict[int, Answer] = {}
        reasons: list[str] = []
        records = [each for each in view.records if each.row in view.rows]
        for place, record in enumerate(records):
            budget.check(place, len(records))
            try:
                answers[record.row] = self._read(record, knowledge, language, budget)
            except NotApplicable as reason:
                reasons.append(str(reason))
        if not answers:
            raise NotApplicable(reasons[0] if reasons else "no update crossed")
        facts = {"over": self.over, "unread": len(reasons), "read": [dict(each.facts) for each in answers.values()]}
        return Guess(_packed(answers, language), facts)

    def _read(self, record: Update | Aggregate, knowledge: Knowledge, language: Language, budget: Budget) -> Answer:
        client = record.client if isinstance(record, Update) else record.clients[0]
        model = knowledge.copy(client, record.round)
        start = model.adapter
        found = directions(descent(record.tensors, start, knowledge, client, record.round), model.linears, start)
        steps = knowledge.steps.get((client, record.round))
        drawn, count = np.random.default_rng(0), 0 if steps is None else min(TEXTS, steps.samples)
        texts = [knowledge.prompts.random(knowledge.history, drawn) for _ in range(count)]
        settings = replace(self.settings, longest=knowledge.prompts.max_tokens, texts=texts)
        free = self.over == "tokens"
        words = np.arange(len(knowledge.embeddings)) if free else language.words
        return read(found, model, None if free else language, settings, words, budget.check)


def _packed(answers: Mapping[int, Answer], language: Language) -> dict[str, np.ndarray]:
    """Return the arrays of a guess: tokens and items that were ranked, and the titles' tokens of sequences."""
    tokens, items, texts, places = [], [], list[list[int]](), list[int]()
    for place, answer in enumerate(answers.values()):
        held = [language.items(each.tokens) for each in answer.sequences]
        titles = [each for each in map(language.titles, held) if each]
        tokens.append(language.of_titles([token for text in titles for token in text], answer.tokens))
        items.append(language.ranked(answer.tokens, dict.fromkeys(item for own in held for item in own)))
        texts += titles
        places += [place] * len(titles)
    return {
        "rows": np.array([*answers]), "ranked_tokens": np.concatenate(tokens), "token_offsets": _offsets(tokens),
        "ranked_items": np.concatenate(items), "item_offsets": _offsets(items),
        "sequence_places": np.array(places, dtype=np.int64), "sequence_offsets": _offsets(texts),
        "sequence_tokens": np.array([token for each in texts for token in each], dtype=np.int64),
    }  # fmt: skip


def _offsets(parts: Sequence[Any]) -> Int[np.ndarray, "bounds"]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)

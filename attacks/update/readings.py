"""Search of an encoder's sequences: whole readings are tried, and improved piece by piece.

In an encoder what enters block 1 depends on all of the text. Each place has the tokens that the first block's span
allows, and a text is a path through them; paths are scored by the mean log-odds of what enters later blocks (Petrov et
al. 2024, arXiv 2405.15586, section 4.4, score products of the places' tokens by their mean distance). Not all products
are tried: a path is improved by the best exchange of one piece or two until none helps, as a text that is right but for
one piece lies nearer than one that is right but for two. Further paths start at pieces that no reading explains yet.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pplr_audit.attacks.update.alone import NO_MARK, Alone
from pplr_audit.attacks.update.checks import Check, odds_behind
from pplr_audit.attacks.update.first_inputs import text
from pplr_audit.attacks.update.language import Language
from pplr_audit.attacks.update.prefixes import Text
from pplr_audit.data.prompts import Prompts
from pplr_audit.threat_model.knowledge import Model

Node = tuple[int, int]
"""A place, and the number of the item that begins there; 0 in front of all items."""
START: Node = (0, 0)
END: Node = (-1, 0)
"""The node behind a text."""
FAR = -50.0
"""Log-odds below which all are as bad, so that one place does not outweigh all others."""


@dataclass(frozen=True)
class Piece:
    """Tokens that may stand between two nodes, each with its mark."""

    source: Node
    target: Node
    tokens: tuple[int, ...] = ()
    marks: tuple[tuple[int, bool], ...] = ()


Path = tuple[Piece, ...]
Graph = Mapping[Node, Sequence[Piece]]
"""Pieces by the node where they start; each lies on some path from `START` to `END`."""


def of_tokens(alone: Alone) -> Graph:
    """Return all texts of tokens that are likely at their places; a text may end behind each."""
    found: dict[Node, list[Piece]] = {}
    place = 0
    while len(likely := alone.at(place).tokens):
        node = (place, 0)
        found[node] = [Piece(node, (place + 1, 0), (int(token),), (NO_MARK,)) for token in likely]
        if place:
            found[node].append(Piece(node, END))
        place += 1
    if place:
        found[place, 0] = [Piece((place, 0), END)]
    return _leading(found)


def of_titles(alone: Alone, language: Language) -> Graph:
    """Return all texts of the template whose tokens are likely at their places.

    The template is that of a text without an answer.
    """
    found: dict[Node, list[Piece]] = {}
    prompts, history = language.prompts, language.history
    opens = prompts.opening

    def fixed(tokens: Sequence[int], before: int) -> tuple[tuple[int, bool], ...]:
        parted = len(tokens) - opens if opens else 0
        return tuple((before + (place >= parted) if opens else 0, False) for place in range(len(tokens)))

    prefix = prompts.prefix.tolist()
    start = Piece(START, (len(prefix), 1), tuple(prefix), fixed(prefix, 0))
    waiting: list[Node] = []
    if _fits(alone, start, 0):
        found[START] = [start]
        waiting.append(start.target)
    ends, separator = prompts.suffix.tolist(), prompts.separator.tolist()
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found[node] = own = []
        place, number = node
        for item in _titles_at(alone, prompts, place, number):
            title = tuple(prompts.titles[item].tolist())
            marks = tuple((number, bool(each)) for each in prompts.content[item])
            behind = place + len(title)
            last = Piece(node, END, (*title, *ends), (*marks, *[NO_MARK] * len(ends)))
            if _fits(alone, last, place, len(title)):
                own.append(last)
            after = (behind + len(separator), number + 1)
            between = Piece(node, after, (*title, *separator), (*marks, *fixed(separator, number)))
            if number < history and _fits(alone, between, place, len(title)):
                own.append(between)
                waiting.append(after)
    return _leading(found)


def _titles_at(alone: Alone, prompts: Prompts, place: int, number: int) -> Iterator[int]:
    """Yield an item of each title whose tokens are all likely from a place on, as the item of this number."""
    lengths, offsets = prompts.titles.lengths, prompts.titles.offsets[:-1]
    inside = np.arange(len(prompts.titles.values)) - np.repeat(offsets, lengths) + place
    likely = np.where(
        prompts.content.values.astype(bool),
        alone.likely(prompts.titles.values, inside, (number, True)),
        alone.likely(prompts.titles.values, inside, (number, False)),
    )
    whole = np.minimum.reduceat(likely, offsets)
    seen = set[int]()
    classes = prompts.title_classes()
    for item in np.flatnonzero(whole):
        if int(classes[item]) not in seen:
            seen.add(int(classes[item]))
            yield int(item)


def _fits(alone: Alone, piece: Piece, place: int, known: int = 0) -> bool:
    """True if all tokens of a piece from the ``known`` ones on are likely."""
    return all(
        bool(alone.likely(np.array([piece.tokens[each]]), np.array([place + each]), piece.marks[each])[0])
        for each in range(known, len(piece.tokens))
    )


def _leading(found: Mapping[Node, Sequence[Piece]]) -> Graph:
    """Return the pieces from which the end can be reached."""
    good: set[Node] = {END}
    grown = True
    while grown:
        more = {node for node, own in found.items() if any(piece.target in good for piece in own)} | {END}
        grown, good = more != good, more
    return {node: [piece for piece in own if piece.target in good] for node, own in found.items() if node in good}


class Readings:
    """Reads sequences as wholes.

    Args:
        tests: by layer; at least one above 0.
        candidates: tokens of readings that may be tried in all.
        most: sequences that are named at most.
        check: called between steps.
    """

    def __init__(
        self, model: Model, tests: Mapping[int, Sequence[Check]], graph: Graph, candidates: int, most: int,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self._model, self._tests, self._graph, self._check = model, tests, graph, check
        self._left, self._most = candidates, most
        self._drawn = np.random.default_rng(0)
        self._scores: dict[Path, float] = {}
        self.tried = 0
        self.complete = True
        """False if candidates ran out before each likely piece was explained."""

    def read(self) -> list[Text]:
        """Return the sequences that are likelier in the batch than not, the likeliest first.

        Of those that hold no piece which likelier ones have not explained none is named.
        """
        pieces = {piece for own in self._graph.values() for piece in own if piece.tokens}
        named, fruitless = list[Path](), 0
        while START in self._graph and fruitless <= len(pieces):
            waiting = pieces - {piece for path in named for piece in path}
            if not waiting or len(named) >= self._most:
                break
            if self._left <= 0:
                self.complete = False
                break
            self._improve(self._start(waiting))
            before, named = len(named), self._covering()
            fruitless = fruitless + 1 if len(named) <= before else 0
        return [Text(tuple(_tokens(path)), (self._scores[path],) * len(_tokens(path))) for path in named]

    def _covering(self) -> list[Path]:
        """Return the likely paths that each hold a piece which no likelier one does."""
        likely = sorted(
            (path for path, score in self._scores.items() if score > 0), key=lambda each: -self._scores[each]
        )
        seen, named = set[Piece](), list[Path]()
        for path in likely:
            own = {piece for piece in path if piece.tokens}
            if own - seen:
                named.append(path)
                seen |= own
        return named[: self._most]

    def _start(self, waiting: set[Piece]) -> Path:
        """Draw a path, through pieces that wait wherever it can."""
        path: list[Piece] = []
        node = START
        while node != END:
            own = self._graph[node]
            better = [piece for piece in own if piece in waiting] or own
            path.append(better[int(self._drawn.integers(len(better)))])
            node = path[-1].target
        return tuple(path)

    def _improve(self, path: Path) -> None:
        """Score a path, and what the best exchanges make of it, until it is likely or none helps."""
        self._score([path])
        while self._left > 0 and self._scores.get(path, 1.0) <= 0:
            self._check()
            others = [*dict.fromkeys(_exchanges(self._graph, path))]
            self._score(others)
            best = max(others, key=lambda each: self._scores.get(each, -np.inf), default=path)
            if self._scores.get(best, -np.inf) <= self._scores[path]:
                break
            path = best

    def _score(self, paths: Sequence[Path]) -> None:
        """Have the mean log-odds of these paths at hand, as far as candidates last."""
        new = [path for path in paths if path not in self._scores]
        kept = list[Path]()
        for path in new:
            size = len(_tokens(path))
            if size > self._left:
                break
            self._left -= size
            self.tried += size
            kept.append(path)
        if not kept:
            return
        marks = [zip(*(mark for piece in path for mark in piece.marks), strict=True) for path in kept]
        prompts = [text(_tokens(path), *own) for path, own in zip(kept, marks, strict=True)]
        layers = [layer for layer in self._tests if layer]
        states = dict(self._model.states(prompts, layers))
        joined = {layer: torch.cat([states[row][layer] for row in range(len(kept))]) for layer in layers}
        odds = odds_behind(self._model, self._tests, joined).clamp(min=FAR)
        for path, own in zip(kept, odds.split([len(prompt) for prompt in prompts]), strict=True):
            self._scores[path] = float(own.mean())


def _tokens(path: Path) -> list[int]:
    return [token for piece in path for token in piece.tokens]


def _exchanges(graph: Graph, path: Path) -> Iterator[Path]:
    """Yield the paths that leave this one at a node, by one piece or two, and join it again behind."""
    for place, piece in enumerate(path):
        later: dict[Node, int] = {each.target: number + 1 for number, each in enumerate(path) if number >= place}
        for one in graph[piece.source]:
            if one == piece:
                continue
            if one.target in later:
                yield (*path[:place], one, *path[later[one.target] :])
                continue
            for two in graph[one.target]:
                if two.target in later:
                    yield (*path[:place], one, two, *path[later[two.target] :])

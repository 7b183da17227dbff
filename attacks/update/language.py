"""The recommender's language: the public template with titles of the catalogue, read token by token.

A state is a place in the template or in a trie of the titles; a prefix is in several where a title begins another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from jaxtyping import Int

from pplr_audit.attacks.update.alone import Likely
from pplr_audit.data.prompts import Prompts

WORST = -50.0
"""Log-odds below which a token is as good as ruled out, so that one does not outweigh all others of a title."""


class Part(IntEnum):
    """Parts of a prompt, in their order."""

    PREFIX = 0
    TITLE = 1
    SEPARATOR = 2
    SUFFIX = 3
    ANSWER = 4
    END = 5
    DONE = 6


@dataclass(frozen=True)
class State:
    """A place behind a prefix."""

    part: Part
    place: int = 0
    """Tokens of a piece of the template that were read, or a node of the trie."""
    items: tuple[int, ...] = ()
    """Items of the history that were read whole, and then that of the answer."""


@dataclass
class _Node:
    children: dict[int, int] = field(default_factory=dict)
    items: list[int] = field(default_factory=list)


class Language:
    """Tells what may follow a prefix, and which items a text holds.

    Args:
        history: most items of a text, its answer left out.
    """

    def __init__(self, prompts: Prompts, history: int) -> None:
        self.prompts, self.history = prompts, history
        self._pieces = {
            Part.PREFIX: prompts.prefix, Part.SEPARATOR: prompts.separator, Part.SUFFIX: prompts.suffix,
            Part.END: prompts.end,
        }  # fmt: skip
        self._trie = [_Node()]
        for item in range(len(prompts.titles)):
            self._add(item, prompts.titles[item])
        parts = [*self._pieces.values(), prompts.titles.values]
        self.words: Int[np.ndarray, words] = np.unique(np.concatenate(parts))
        """All tokens of the language, in ascending order."""
        self._states: dict[tuple[int, ...], tuple[State, ...]] = {(): self._settled(State(Part.PREFIX))}

    def after(self, prefix: Sequence[int]) -> Int[np.ndarray, "tokens"]:
        """Return the tokens that may follow a prefix, in ascending order; none behind what is no prefix of a text."""
        found = {token for state in self.states(tuple(prefix)) for token in self._steps(state)}
        return np.array(sorted(found), dtype=np.int64)

    def items(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Return the items that are read whole in a text that may break off, in order, an answer's last.

        Where several readings are possible, one of those with the most items.
        """
        known = tuple(tokens)
        while known and not self.states(known):
            known = known[:-1]
        readings = [
            (*state.items, self._trie[state.place].items[0])
            if state.part in (Part.TITLE, Part.ANSWER) and self._trie[state.place].items
            else state.items
            for state in self.states(known)
        ]
        return max(readings, key=len, default=())

    def titles(self, items: Sequence[int]) -> list[int]:
        """Return the tokens of these items' titles, one behind the other, without those of the template."""
        found = list[int]()
        for item in items:
            found += self.prompts.titles[item][self.prompts.content[item].astype(bool)].tolist()
        return found

    def of_titles(self, first: Iterable[int], tokens: Likely) -> Int[np.ndarray, "tokens"]:
        """Return the tokens of titles, with those of ``first`` in front and the others by their odds."""
        rest = tokens.tokens[np.isin(tokens.tokens, self.prompts.titles.values)]
        return np.array([*dict.fromkeys([*first, *rest.tolist()])], dtype=np.int64)

    def ranked(self, tokens: Likely, first: Iterable[int]) -> Int[np.ndarray, "items"]:
        """Return the catalogue, with the items ``first`` in front and the others by the mean odds of their tokens."""
        odds = dict(zip(tokens.tokens.tolist(), np.maximum(tokens.odds, WORST).tolist(), strict=True))
        titles, drawn = self.prompts.titles, np.random.default_rng(0)
        each = np.array([odds.get(token, WORST) for token in titles.values.tolist()])
        means = np.add.reduceat(each, titles.offsets[:-1]) / titles.lengths
        # The catalogue's own order may tell how popular its items are.
        order = drawn.permutation(len(titles))
        rest = order[np.argsort(-means[order], kind="stable")]
        return np.array([*dict.fromkeys([*first, *rest.tolist()])], dtype=np.int64)

    def states(self, prefix: tuple[int, ...]) -> tuple[State, ...]:
        """Return where a prefix may be."""
        if prefix not in self._states:
            before = self.states(prefix[:-1])
            found = [after for state in before for after in self._steps(state).get(prefix[-1], ())]
            self._states[prefix] = tuple(dict.fromkeys(found))
        return self._states[prefix]

    def _add(self, item: int, title: Int[np.ndarray, "title"]) -> None:
        node = 0
        for token in title.tolist():
            children = self._trie[node].children
            if token not in children:
                children[token] = len(self._trie)
                self._trie.append(_Node())
            node = children[token]
        self._trie[node].items.append(item)

    def _steps(self, state: State) -> dict[int, list[State]]:
        """Return the states behind each token that may follow."""
        found: dict[int, list[State]] = {}

        def piece(part: Part, place: int, items: tuple[int, ...]) -> None:
            if place < len(self._pieces[part]):
                token = int(self._pieces[part][place])
                found.setdefault(token, []).extend(self._settled(State(part, place + 1, items)))

        if state.part in (Part.TITLE, Part.ANSWER):
            node = self._trie[state.place]
            for token, child in node.children.items():
                found.setdefault(token, []).append(State(state.part, child, state.items))
            if node.items:
                items = (*state.items, node.items[0])
                if state.part == Part.ANSWER:
                    piece(Part.END, 0, items)
                else:
                    piece(Part.SUFFIX, 0, items)
                    if len(items) < self.history:
                        piece(Part.SEPARATOR, 0, items)
        elif state.part != Part.DONE:
            piece(state.part, state.place, state.items)
        return found

    def _settled(self, state: State) -> tuple[State, ...]:
        """Return where a place is that lies behind a whole piece: at the beginning of what follows."""
        if state.part in (Part.TITLE, Part.ANSWER, Part.DONE) or state.place < len(self._pieces[state.part]):
            return (state,)
        if state.part in (Part.PREFIX, Part.SEPARATOR):
            return (State(Part.TITLE, 0, state.items),)
        if state.part == Part.SUFFIX and len(self.prompts.end):
            return (State(Part.ANSWER, 0, state.items),)
        return (State(Part.DONE, 0, state.items),)

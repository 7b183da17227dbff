"""Search of a decoder's sequences: prefixes are extended by one token, and what enters later blocks is tested.

What enters block l of a causal model at a place depends on the tokens up to it and on nothing else. So a prefix is
extended by each token that the first block's span has at this place, only the blocks below l run, and those are kept
whose inputs lie in the span of block l (Petrov et al. 2024, arXiv 2405.15586, section 4.3). A prefix that nothing
extends is a sequence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from pplr_audit.attacks.update.checks import Check, odds_behind
from pplr_audit.models.token_tree import Branches, Prefix
from pplr_audit.threat_model.knowledge import Model

TOGETHER = 512
"""Tokens that one pass reads."""
Extensions = Callable[[Sequence[int]], tuple[Int[np.ndarray, "tokens"], Float[np.ndarray, "tokens"]]]
"""Function from a prefix's tokens to those that may follow, with what speaks for each already (log-odds)."""


@dataclass(frozen=True)
class Text:
    """Tokens that were read, and the log-odds of each."""

    tokens: tuple[int, ...] = ()
    odds: tuple[float, ...] = ()

    @property
    def total(self) -> float:
        return sum(self.odds)


@dataclass(frozen=True)
class _Reading:
    """A prefix that may go on."""

    text: Text
    read: Prefix


class PrefixWalk:
    """Reads sequences from the left.

    Args:
        tests: by layer; at least one above 0.
        extensions: what may follow a prefix.
        beam: prefixes that are kept at each length, those with the highest odds.
        candidates: tokens that may be tried in all; prefixes that are left then end where they are.
        check: called between prefixes.
        longest: most tokens of a sequence.
    """

    def __init__(
        self, model: Model, tests: Mapping[int, Sequence[Check]], extensions: Extensions, beam: int, candidates: int,
        check: Callable[[], None], longest: int,
    ) -> None:  # fmt: skip
        self._model, self._tests, self._extensions, self._longest = model, tests, extensions, longest
        self._beam, self._left, self._check = beam, candidates, check
        self.tried = 0
        self.complete = True
        """False if candidates ran out."""

    def read(self) -> list[Text]:
        """Return the sequences that were read, the likeliest first; none is the beginning of another."""
        alive, ended = [_Reading(Text(), Prefix())], list[Text]()
        while alive:
            children = list[_Reading]()
            for reading in alive:
                self._check()
                own = self._extended(reading)
                if not own and reading.text.tokens:
                    ended.append(reading.text)
                children += own
            children.sort(key=lambda each: -each.text.total)
            ended += [each.text for each in children[self._beam :]]
            alive = children[: self._beam]
        ended.sort(key=lambda each: -each.total)
        return _longest(ended)[: self._beam]

    def _extended(self, reading: _Reading) -> list[_Reading]:
        """Return the prefix with each token behind it that is likelier there than not."""
        if len(reading.text.tokens) >= self._longest:
            return []
        tokens, before = self._extensions(reading.text.tokens)
        if len(tokens) > self._left:
            self.complete = False
            return []
        self._left -= len(tokens)
        self.tried += len(tokens)
        layers = [layer for layer in self._tests if layer]
        found = list[_Reading]()
        for start in range(0, len(tokens), TOGETHER):
            part = tokens[start : start + TOGETHER]
            branches = self._model.extend(reading.read, part, [-1] * len(part), layers)
            odds = odds_behind(self._model, self._tests, branches.states).numpy() + before[start : start + TOGETHER]
            found += [_grown(reading, branches, node, int(part[node]), float(odds[node])) for node in _likely(odds)]
        return found


def _likely(odds: Float[np.ndarray, "tokens"]) -> list[int]:
    return [int(node) for node in np.flatnonzero(odds > 0)]


def _grown(reading: _Reading, branches: Branches, node: int, token: int, odds: float) -> _Reading:
    """Return a prefix with one of the tokens that were tried behind it."""
    text = Text((*reading.text.tokens, token), (*reading.text.odds, odds))
    return _Reading(text, branches.along(torch.tensor([node])))


def _longest(sequences: Sequence[Text]) -> list[Text]:
    """Return those that are not the beginning of another one.

    One token over and over has the same states as that token once, where places are rotary: it is taken for that.
    """
    sequences = [each if len(set(each.tokens)) > 1 else Text(each.tokens[:1], each.odds[:1]) for each in sequences]
    beginnings = {each.tokens[:length] for each in sequences for length in range(len(each.tokens))}
    return [each for each in dict.fromkeys(sequences) if each.tokens not in beginnings]

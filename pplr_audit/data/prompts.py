"""Prompts that a recommender's model reads: the same token pieces for training, inference and the attacks.

A prompt is put together from pieces that are tokenized apart (prefix, each item's text, separators, suffix), so that
the tokens of an item do not depend on its neighbors, and every position is known to be template or item. Two templates
are there: BIGRec's quoted titles (`data.title_prompts`) and RecFormer's flattened attributes (`data.item_prompts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from pplr_audit.data.dataset import Ragged
from pplr_audit.errors import InputError

TEMPLATE, TARGET = -1, -2
SHORTEST_CUT = 8
"""Items' texts are never cut below this many tokens; from there on the oldest items go."""


@dataclass(frozen=True)
class Prompt:
    """One sequence of tokens and what each of them is."""

    tokens: Int[np.ndarray, "length"]
    slots: Int[np.ndarray, "length"]
    """TEMPLATE, TARGET (a token of the answer's title), or the place in ``items`` whose text the token belongs to."""
    items: Int[np.ndarray, "slots"]
    """The history that the prompt holds, in the order in which it is read."""
    answer: int
    """Position of the first token of the answer; the length of the prompt where there is none."""
    order: Int[np.ndarray, "length"]
    """The item that a token, template or not, stands for, counted from 1 as they are read; 0 for those of none."""
    target: int = -1
    """The item that is learned; -1 where there is none."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def held(self) -> Int[np.ndarray, "held"]:
        """The items whose text it holds: those of the history, and the target where that is the answer."""
        return np.append(self.items, self.target) if self.answer < len(self) else self.items


@dataclass(frozen=True)
class Pieces:
    """The tokens that a template is made of. What follows an item is a separator, or the suffix."""

    prefix: Int[np.ndarray, "prefix"]
    separator: Int[np.ndarray, "separator"]
    suffix: Int[np.ndarray, "suffix"]
    end: Int[np.ndarray, "end"]
    """Behind the answer; empty where the sequence holds none."""
    opening: int = 0
    """Number of tokens at the end of the prefix, and of the separator, that already belong to the item behind them."""


class Prompts:
    """Builds prompts over one catalogue with one tokenizer, and says what had to be cut.

    Args:
        tokenizer: a transformers tokenizer with a padding or an end token.
        pieces: what stands around the items.
        texts: the tokens of each item.
        content: for each token of ``texts`` whether it is the item's own; if not, it is template.
        max_tokens: no sequence, answer included, is longer.
        history: the most items that a prompt is asked to hold.
        newest_first: whether the newest item is read first.

    Raises:
        InputError: ``max_tokens`` has no room for the template and one item.
    """

    def __init__(
        self,
        tokenizer: Any,
        pieces: Pieces,
        texts: Ragged,
        content: Bool[np.ndarray, "total"],
        *,
        max_tokens: int,
        history: int,
        newest_first: bool = False,
    ) -> None:
        self.bos = np.array([t for t in [tokenizer.bos_token_id] if t is not None], dtype=np.int64)
        self.eos = int(tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id)
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos)
        self.prefix, self.separator, self.suffix, self.end = pieces.prefix, pieces.separator, pieces.suffix, pieces.end
        self.max_tokens, self.newest_first = max_tokens, newest_first
        self.opening = pieces.opening
        """Tokens at the end of the prefix, and of the separator, that belong to the item behind them."""
        lengths, answers = texts.lengths, bool(len(pieces.end))
        room = max_tokens - len(self.prefix) - len(self.suffix) - len(self.end)
        longest = max(SHORTEST_CUT, room // (history + answers) - len(self.separator))
        self.title_cap = int(min(longest, lengths.max()))
        if (1 + answers) * self.title_cap > room:
            need = max_tokens - room + (1 + answers) * self.title_cap
            raise InputError(
                f"model.max_tokens: {max_tokens} has no room for the template and one item; accepted: {need} or more"
            )
        kept = np.arange(len(texts.values)) - np.repeat(texts.offsets[:-1], lengths) < self.title_cap
        offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, self.title_cap))])
        self.titles = Ragged(offsets, texts.values[kept])
        """The tokens of each item's text, cut to ``title_cap``."""
        self.content = Ragged(offsets, content[kept].astype(np.int64))
        """1 for each token of ``titles`` that is the item's own, 0 for those of the template between."""
        self.titles_cut_share = float(np.mean(lengths > self.title_cap))
        self._room_for_history = room - answers * self.title_cap

    def kept(self, history: Int[np.ndarray, "items"]) -> Int[np.ndarray, "kept"]:
        """The newest items of ``history`` whose texts fit."""
        sizes = self.titles.lengths[history] + len(self.separator)
        total = np.cumsum(sizes[::-1]) - len(self.separator)
        return history[len(history) - int(np.searchsorted(total, self._room_for_history, side="right")) :]

    def lengths(self, history: Ragged, targets: Int[np.ndarray, "rows"] | None = None) -> Int[np.ndarray, "rows"]:
        """Tokens of the prompt that `build` makes of each history (and target), without building it."""
        fits = self._fits(history)
        sizes = np.where(fits, self.titles.lengths[history.values] + len(self.separator), 0)
        found = len(self.prefix) + len(self.suffix) + _sums(sizes, history)
        found -= len(self.separator) * (_sums(fits, history) > 0)
        if targets is not None and len(self.end):
            found += np.where(targets >= 0, self.titles.lengths[targets] + len(self.end), 0)
        return found

    def _fits(self, history: Ragged) -> Bool[np.ndarray, "total"]:
        """True for each item that is `kept`: those that fit together with all that are newer."""
        before = np.concatenate([[0], np.cumsum(self.titles.lengths[history.values] + len(self.separator))])
        with_newer = np.repeat(before[history.offsets[1:]], history.lengths) - before[:-1]
        return np.asarray(with_newer - len(self.separator) <= self._room_for_history)

    def build(self, history: Int[np.ndarray, "items"], target: int = -1) -> Prompt:
        """The prompt for ``history`` (oldest first). A ``target`` of 0 or more is learned: as the answer that the
        sequence ends with where the template has one, else as an item to tell from all others."""
        items = self.kept(np.asarray(history, dtype=np.int64))
        items = items[::-1].copy() if self.newest_first else items
        tokens, slots, order = [self.prefix], [np.full(len(self.prefix), TEMPLATE)], [self._opens(self.prefix, 0)]
        for slot, item in enumerate(items):
            if slot:
                tokens.append(self.separator)
                slots.append(np.full(len(self.separator), TEMPLATE))
                order.append(self._opens(self.separator, slot))
            text = self.titles[item]
            tokens.append(text)
            slots.append(np.where(self.content[item].astype(bool), slot, TEMPLATE))
            order.append(np.full(len(text), slot + 1))
        tokens.append(self.suffix)
        slots.append(np.full(len(self.suffix), TEMPLATE))
        answer = sum(map(len, tokens))
        if target >= 0 and len(self.end):
            tokens += [self.titles[target], self.end]
            slots += [np.full(len(self.titles[target]), TARGET), np.full(len(self.end), TEMPLATE)]
        behind = sum(map(len, tokens)) - sum(map(len, order))
        order.append(np.zeros(behind, dtype=np.int64))
        return Prompt(np.concatenate(tokens), np.concatenate(slots), items, answer, np.concatenate(order), target)

    def random(self, history: int, generator: np.random.Generator) -> Prompt:
        """The prompt for ``history`` items and a target, each drawn from the whole catalogue alike."""
        items = generator.integers(len(self.titles), size=history + 1)
        return self.build(items[:-1], int(items[-1]))

    def _opens(self, piece: Int[np.ndarray, "piece"], before: int) -> Int[np.ndarray, "piece"]:
        """``before`` is the item before the piece; its last tokens belong to the next one."""
        opening = np.arange(len(piece)) >= len(piece) - self.opening
        return np.where(opening, before + 1, before if self.opening else 0)

    def items_dropped_share(self, history: Ragged) -> float:
        """Share of the items in these histories that do not fit into a prompt."""
        if not len(history.values):
            return 0.0
        return 1.0 - int(self._fits(history).sum()) / len(history.values)

    def title_classes(self) -> Int[np.ndarray, "items"]:
        """One number an item; items whose (cut) texts have the same tokens share it."""
        seen: dict[bytes, int] = {}
        return np.array([seen.setdefault(self.titles[i].tobytes(), len(seen)) for i in range(len(self.titles))])


def _sums(values: Int[np.ndarray, "total"], like: Ragged) -> Int[np.ndarray, "rows"]:
    """Sum of the values of each row."""
    before = np.concatenate([[0], np.cumsum(values)])
    return np.diff(before[like.offsets])


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Lists of tokens as one flat array."""
    flat = [token for row in rows for token in row]
    return Ragged(np.concatenate([[0], np.cumsum([len(row) for row in rows])]), np.array(flat, dtype=np.int64))


@dataclass(frozen=True)
class Batch:
    """Prompts of unequal length in one rectangle."""

    tokens: Int[np.ndarray, "batch seq"]
    mask: Int[np.ndarray, "batch seq"]
    """1 for a token, 0 for padding."""
    learned: Int[np.ndarray, "batch seq"]
    """1 for the tokens whose prediction is trained."""


def collate(prompts: Sequence[Prompt], pad: int, *, side: str = "right", loss_on: str = "title") -> Batch:
    """One rectangle: padded on ``side``; trained on the answer (``loss_on: title``) or on all tokens."""
    longest = max(map(len, prompts))
    tokens = np.full((len(prompts), longest), pad, dtype=np.int64)
    mask = np.zeros_like(tokens)
    learned = np.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt) if side == "left" else 0
        stop = start + len(prompt)
        tokens[row, start:stop] = prompt.tokens
        mask[row, start:stop] = 1
        learned[row, start + (prompt.answer if loss_on == "title" else 1) : stop] = 1
    return Batch(tokens, mask, learned)

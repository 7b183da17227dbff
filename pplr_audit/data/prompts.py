"""The one prompt of BIGRec: the same token pieces for training, inference and the attacks.

A prompt is put together from pieces that are tokenized apart (prefix, each title, separators, suffix), so that the
tokens of a title do not depend on its neighbours, and every position is known to be template or title.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import Ragged
from pplr_audit.errors import InputError

PREFIX = '### Instruction:\nName the item that comes next.\n### Input:\n"'
SEPARATOR = '", "'
SUFFIX = '"\n### Response:\n"'
END = '"'

TEMPLATE, TARGET = -1, -2
SHORTEST_CUT = 8
"""Titles are never cut below this many tokens; from there on the oldest items go."""


def prompt_text(titles: list[str], target: str | None = None) -> str:
    """The prompt as text (oldest title first); with ``target``, the whole training sequence without its end token."""
    prompt = PREFIX + SEPARATOR.join(titles) + SUFFIX
    return prompt if target is None else prompt + target + END


@dataclass(frozen=True)
class Prompt:
    """One sequence of tokens and what each of them is."""

    tokens: Int[np.ndarray, "length"]
    slots: Int[np.ndarray, "length"]
    """TEMPLATE, TARGET (a token of the answer's title), or the place in ``items`` whose title the token belongs to."""
    items: Int[np.ndarray, "slots"]
    """The history that the prompt holds, oldest first."""
    answer: int
    """Position of the first token of the answer; the length of the prompt where there is none."""

    def __len__(self) -> int:
        return len(self.tokens)


class Prompts:
    """Builds prompts over one catalogue with one tokenizer, and says what had to be cut.

    Args:
        tokenizer: a transformers tokenizer; ``eos_token_id`` is needed, ``bos_token_id`` is used where there is one.
        titles: the catalogue's titles.
        max_tokens: no sequence, answer included, is longer.
        history: the most items that a prompt is asked to hold.

    Raises:
        InputError: ``max_tokens`` has no room for the template and one item.
    """

    def __init__(self, tokenizer: Any, titles: Sequence[str], *, max_tokens: int, history: int) -> None:
        def encode(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        self.bos = np.array(start, dtype=np.int64)
        self.prefix = np.array(start + encode(PREFIX), dtype=np.int64)
        self.separator = np.array(encode(SEPARATOR), dtype=np.int64)
        self.suffix = np.array(encode(SUFFIX), dtype=np.int64)
        self.end = np.array([*encode(END), tokenizer.eos_token_id], dtype=np.int64)
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
        self.eos = int(tokenizer.eos_token_id)
        self.max_tokens = max_tokens

        whole = tokenizer(list(titles), add_special_tokens=False)["input_ids"]
        lengths = np.array([len(ids) for ids in whole])
        if (lengths == 0).any():
            bad = titles[int(np.argmin(lengths))]
            raise InputError(
                f"model.backbone: its tokenizer gives no token for the title {bad!r}; use another backbone"
            )
        room = max_tokens - len(self.prefix) - len(self.suffix) - len(self.end)
        longest = max(SHORTEST_CUT, room // (history + 1) - len(self.separator))
        self.title_cap = int(min(longest, lengths.max()))
        if 2 * self.title_cap > room:
            need = max_tokens - room + 2 * self.title_cap
            raise InputError(
                f"model.max_tokens: {max_tokens} has no room for the template and one item; accepted: {need} or more"
            )
        cut = np.minimum(lengths, self.title_cap)
        self.titles = Ragged(
            np.concatenate([[0], np.cumsum(cut)]),
            np.concatenate([np.array(ids[: self.title_cap], dtype=np.int64) for ids in whole]),
        )
        self.titles_cut_share = float(np.mean(lengths > self.title_cap))
        self._room_for_history = room - self.title_cap

    def kept(self, history: Int[np.ndarray, "items"]) -> Int[np.ndarray, "kept"]:
        """The newest items of ``history`` whose titles fit."""
        sizes = self.titles.lengths[history] + len(self.separator)
        total = np.cumsum(sizes[::-1]) - len(self.separator)
        return history[len(history) - int(np.searchsorted(total, self._room_for_history, side="right")) :]

    def build(self, history: Int[np.ndarray, "items"], target: int = -1) -> Prompt:
        """The prompt for ``history`` (oldest first); a ``target`` of 0 or more adds the answer."""
        items = self.kept(np.asarray(history, dtype=np.int64))
        pieces, slots = [self.prefix], [np.full(len(self.prefix), TEMPLATE)]
        for slot, item in enumerate(items):
            if slot:
                pieces.append(self.separator)
                slots.append(np.full(len(self.separator), TEMPLATE))
            pieces.append(self.titles[item])
            slots.append(np.full(len(self.titles[item]), slot))
        pieces.append(self.suffix)
        slots.append(np.full(len(self.suffix), TEMPLATE))
        answer = sum(map(len, pieces))
        if target >= 0:
            pieces += [self.titles[target], self.end]
            slots += [np.full(len(self.titles[target]), TARGET), np.full(len(self.end), TEMPLATE)]
        return Prompt(np.concatenate(pieces), np.concatenate(slots), items, answer)

    def items_dropped_share(self, history: Ragged) -> float:
        """Share of the items in these histories that do not fit into a prompt."""
        if not len(history.values):
            return 0.0
        kept = sum(len(self.kept(history[row])) for row in range(len(history)))
        return 1.0 - kept / len(history.values)

    def title_classes(self) -> Int[np.ndarray, "items"]:
        """One number an item; items whose (cut) titles have the same tokens share it."""
        seen: dict[bytes, int] = {}
        return np.array([seen.setdefault(self.titles[i].tobytes(), len(seen)) for i in range(len(self.titles))])


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

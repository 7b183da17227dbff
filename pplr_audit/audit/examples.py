"""Examples for the report: the same few victims at three cuts, their history and next item beside what was recovered.

Rows are numbered at random and the lowest are shown, so that a reader sees neither the best nor the worst.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.sealed_guess import SealedGuess
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.data.dataset import Catalogue
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.attack import Guess

VICTIMS = 2
LABELS = 6
"""Victims whose next item is shown; it takes one line."""


def examples(
    cells: Sequence[Cell], harness: Harness, catalogue: Catalogue, tokenizer: Any, store: Store
) -> list[dict[str, Any]]:
    """The same victims for every cut of a channel, at the shallowest, the middle and the deepest cut."""
    shown = []
    for cell in _chosen(cells):
        if not SealedGuess.exists(store, cell.slug):
            continue
        guess = SealedGuess.open(store, cell.slug).guess
        for truth in harness.truths(cell).values():
            if not truth.answered(guess):
                continue
            if isinstance(truth, HistoryTruth):
                for row in _victims(truth, guess, VICTIMS):
                    said = _history(row, guess, truth, catalogue, tokenizer)
                    shown.append(_example(cell, "history", row, truth, harness, said))
            elif isinstance(truth, LabelTruth):
                for row in _victims(truth, guess, LABELS):
                    shown.append(_example(cell, "label", row, truth, harness, _label(row, guess, truth, catalogue)))
    return shown


def _chosen(cells: Iterable[Cell]) -> list[Cell]:
    by_channel: dict[tuple[str, str, str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.front is not None or cell.back is not None:
            by_channel.setdefault(_series(cell), []).append(cell)
    chosen = []
    for found in by_channel.values():
        last = max(cell.round for cell in found)
        found = sorted((cell for cell in found if cell.round == last), key=lambda c: (c.front or 0, c.back or 0))
        chosen += [found[place] for place in sorted({0, len(found) // 2, len(found) - 1})]
    return chosen


def _series(cell: Cell) -> tuple[str, str, str, str, str]:
    return cell.attack, cell.settings, cell.adversary, cell.knowledge, cell.channel


def _victims(truth: HistoryTruth | LabelTruth, guess: Guess, count: int) -> list[int]:
    return [row for row in sorted(truth.users)[:count] if row in guess.arrays["rows"]]


def _example(
    cell: Cell, secret: str, row: int, truth: HistoryTruth | LabelTruth, harness: Harness, said: dict[str, Any]
) -> dict[str, Any]:
    return {
        "attack": cell.attack,
        "settings": json.loads(cell.settings),
        "channel": str(cell.channel),
        "cut": {"front": cell.front, "back": cell.back},
        "client": harness.rows.client_of(truth.users[row]),
        "row": row,
        "secret": secret,
        "knowledge": cell.knowledge,
        **said,
    }


def _history(row: int, guess: Guess, truth: HistoryTruth, catalogue: Catalogue, tokenizer: Any) -> dict[str, Any]:
    """Slot by slot, then the whole text as it was read."""
    true, guessed, hits = truth.side_by_side(guess, row)
    prompt = truth.prompts[row]
    place = _place(guess, row)
    offsets = guess.arrays["token_offsets"]
    read = guess.arrays["tokens"][offsets[place] : offsets[place + 1]]
    inside = np.flatnonzero(prompt.slots >= 0)
    span = slice(int(inside[0]), int(inside[-1]) + 1)
    return {
        "slots": [_slot(catalogue, t, g, bool(hit)) for t, g, hit in zip(true, guessed, hits, strict=True)],
        "truth_text": tokenizer.decode(prompt.tokens[span]),
        "guess_text": tokenizer.decode(read[span]),
    }


def _label(row: int, guess: Guess, truth: LabelTruth, catalogue: Catalogue) -> dict[str, Any]:
    """The next item beside the first guess; items of one title are one."""
    true, guessed = truth.targets[row], int(guess.arrays["labels"][_place(guess, row), 0])
    hit = guessed >= 0 and bool(truth.title_class[guessed] == truth.title_class[true])
    return {"slots": [_slot(catalogue, true, guessed, hit)], "truth_text": "", "guess_text": ""}


def _slot(catalogue: Catalogue, true: int, guessed: int, hit: bool) -> dict[str, Any]:
    return {"truth": catalogue.titles[true], "guess": catalogue.titles[guessed] if guessed >= 0 else "", "hit": hit}


def _place(guess: Guess, row: int) -> int:
    return int(np.flatnonzero(guess.arrays["rows"] == row)[0])

"""Examples for the report: the same few victims at three cuts, what is true of them beside what was recovered.

Rows are numbered at random and the lowest are shown, so that a reader sees neither the best nor the worst.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.sealed_guess import SealedGuess
from pplr_audit.audit.truth.protocol import Example
from pplr_audit.data.dataset import Catalogue
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.defense import ALL


def examples(
    cells: Sequence[Cell], harness: Harness, catalogue: Catalogue, tokenizer: Any, store: Store
) -> list[dict[str, Any]]:
    """The same victims for every cut of a channel, at the shallowest, the middle and the deepest cut."""
    shown = []
    for cell in _chosen(cells):
        if not SealedGuess.exists(store, cell.slug):
            continue
        guess = SealedGuess.open(store, cell.slug).guess
        for secret, truth in harness.truths(cell).items():
            if truth.answered(guess):
                shown += [
                    _document(cell, secret, _whose(cell, harness, example), example)
                    for example in truth.examples(guess, catalogue, tokenizer)
                ]
    return shown


def _whose(cell: Cell, harness: Harness, example: Example) -> str:
    """The client of a row; a sum is of all."""
    return ALL if cell.channel == Channel.AGGREGATE else harness.rows.client_of(example.user)


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


def _document(cell: Cell, secret: str, client: str, example: Example) -> dict[str, Any]:
    """Return one entry of ``examples`` in the evidence."""
    return {
        "attack": cell.attack,
        "settings": json.loads(cell.settings),
        "channel": str(cell.channel),
        "cut": {"front": cell.front, "back": cell.back},
        "client": client,
        "row": example.row,
        "secret": secret,
        "knowledge": cell.knowledge,
        "slots": example.slots,
        "truth_text": example.truth_text,
        "guess_text": example.guess_text,
    }

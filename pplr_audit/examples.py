"""Recovered histories side by side with the truth, for the report: a few victims at a few cuts."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pplr_audit.cells import Cell
from pplr_audit.data.dataset import Catalogue
from pplr_audit.exposure import Exposure
from pplr_audit.findings import HistoryTruth
from pplr_audit.runs.store import Store
from pplr_audit.views import Guess

VICTIMS = 2


def examples(
    cells: Sequence[Cell], exposure: Exposure, catalogue: Catalogue, tokenizer: Any, store: Store
) -> list[dict[str, Any]]:
    """The same victims for every cut of a channel, at the shallowest, the middle and the deepest cut."""
    shown = []
    for cell in _chosen(cells):
        path = f"guesses/{cell.slug}.safetensors"
        if not store.exists(path):
            continue
        truth = exposure.truths(cell).get("history")
        guess = Guess({n: a for n, a in store.read_arrays(path).items() if not n.startswith("control")})
        if not isinstance(truth, HistoryTruth) or not truth.answered(guess):
            continue
        for row in sorted(truth.users)[:VICTIMS]:
            if row in guess.arrays["rows"]:
                shown.append(_example(cell, row, guess, truth, exposure, catalogue, tokenizer))
    return shown


def _chosen(cells: Iterable[Cell]) -> list[Cell]:
    by_channel: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.front is not None:
            by_channel.setdefault((cell.attack, cell.adversary, cell.channel), []).append(cell)
    chosen = []
    for found in by_channel.values():
        last = max(cell.round for cell in found)
        found = sorted((cell for cell in found if cell.round == last), key=lambda cell: cell.front or 0)
        chosen += [found[place] for place in sorted({0, len(found) // 2, len(found) - 1})]
    return chosen


def _example(
    cell: Cell, row: int, guess: Guess, truth: HistoryTruth, exposure: Exposure, catalogue: Catalogue, tokenizer: Any
) -> dict[str, Any]:
    true, guessed, hits = truth.beside(guess, row)
    prompt = truth.prompts[row]
    place = int(np.flatnonzero(guess.arrays["rows"] == row)[0])
    offsets = guess.arrays["token_offsets"]
    read = guess.arrays["tokens"][offsets[place] : offsets[place + 1]]
    inside = np.flatnonzero(prompt.slots >= 0)
    span = slice(int(inside[0]), int(inside[-1]) + 1)
    return {
        "attack": cell.attack,
        "channel": str(cell.channel),
        "cut": {"front": cell.front, "back": cell.back},
        "client": exposure.client_of(truth.users[row]),
        "row": row,
        "slots": [
            {"truth": catalogue.titles[t], "guess": catalogue.titles[g] if g >= 0 else "", "hit": bool(hit)}
            for t, g, hit in zip(true, guessed, hits, strict=True)
        ],
        "truth_text": tokenizer.decode(prompt.tokens[span]),
        "guess_text": tokenizer.decode(read[span]),
    }

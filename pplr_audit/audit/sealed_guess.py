"""An attack's answer as it lies in the run directory: sealed before any truth is opened, checked when it is read.

``guesses/<cell>.safetensors`` holds the answer, those of the control runs (``control0/…``, ``reserve0/…``), and which
row crossed in which step (``view/…``). The event ``guess_sealed`` in ``events.jsonl`` holds the SHA-256 of the whole
file and the seconds that the attack took. Nothing in the file depends on time, so the same answer always has the
same hash.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pplr_audit.errors import InputError
from pplr_audit.runs import tensors
from pplr_audit.runs.parsing import MEND, parsed, understood
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.view import View

EVENT = "guess_sealed"
_ROWS, _STEPS = "view/rows", "view/steps"
_CONTROL = re.compile(r"(control|reserve)(\d+)/(.+)")


@dataclass(frozen=True)
class SealedGuess:
    """One cell's sealed answer."""

    guess: Guess
    controls: tuple[Guess, ...]
    """Answers to views in which there was nothing to find."""
    steps: Mapping[int, int]
    """Row to the step of the round in which it crossed; empty where an earlier version sealed the answer."""
    seconds: float
    """Wall time of the attack, without its controls."""
    on_reserve: tuple[Guess, ...] = ()
    """Answers to updates on users of the reserve."""

    @staticmethod
    def exists(store: Store, slug: str) -> bool:
        """True if the cell called ``slug`` has an answer."""
        return store.exists(_path(slug))

    @staticmethod
    def seal(
        store: Store,
        slug: str,
        guess: Guess,
        controls: Sequence[Guess],
        crossed: View[Any] | Sequence[tuple[int, int]],
        seconds: float,
        on_reserve: Sequence[Guess] = (),
    ) -> "SealedGuess":
        """Write the answers and their hash, and return them as they are read again.

        Args:
            crossed: row and step of each record of the view, or the view itself.
        """
        places = [(r.row, r.step) for r in crossed.records] if isinstance(crossed, View) else crossed
        arrays = dict(guess.arrays)
        for kind, answers in (("control", controls), ("reserve", on_reserve)):
            for number, control in enumerate(answers):
                arrays |= {f"{kind}{number}/{name}": array for name, array in control.arrays.items()}
        first: dict[int, int] = {}  # the step of a row that crossed several times is that of the first
        for row, step in places:
            first.setdefault(row, step)
        arrays[_ROWS], arrays[_STEPS] = np.array([*first]), np.array([*first.values()])
        data = store.pack(arrays, {"facts": json.dumps(guess.facts, allow_nan=False)})
        # The event comes first: killed in between, the attack runs again and the later event of the cell counts.
        store.event(EVENT, cell=slug, sha256=hashlib.sha256(data).hexdigest(), seconds=round(seconds, 6))
        store.write_bytes(_path(slug), data)
        return _unpacked(data, seconds, store.root / _path(slug))

    @staticmethod
    def open(store: Store, slug: str) -> "SealedGuess":
        """Read the answer of the cell called ``slug`` after comparing it with the hash that sealed it.

        Raises InputError that names the file where it is missing, damaged, or not what was sealed.
        """
        path = _path(slug)
        data = store.read_bytes(path)
        file = store.root / path
        seals = [event for event in store.events() if event.get("kind") == EVENT and event.get("cell") == slug]
        if not seals:
            raise InputError(f"{file} was never sealed: events.jsonl has no event {EVENT!r} of it; {MEND}")
        if seals[-1].get("sha256") != hashlib.sha256(data).hexdigest():
            raise InputError(f"{file} is damaged: it does not have the hash by which it was sealed; {MEND}")
        return _unpacked(data, seals[-1].get("seconds"), file)


def _path(slug: str) -> str:
    return f"guesses/{slug}.safetensors"


def _unpacked(data: bytes, seconds: Any, file: Path) -> SealedGuess:
    """The parts of a sealed file. An earlier version wrote ``seconds`` into the file.

    Raises InputError that names the file where it does not hold them.
    """
    arrays, metadata = tensors.unpack_arrays(data, file), tensors.unpack_metadata(data, file)
    own = {name: array for name, array in sorted(arrays.items()) if "/" not in name}
    dealt: dict[tuple[str, int], dict[str, Any]] = {}
    with understood(file):
        for name, array in arrays.items():
            if match := _CONTROL.fullmatch(name):
                dealt.setdefault((match[1], int(match[2])), {})[match[3]] = array
        controls, on_reserve = (
            tuple(Guess(dealt[place]) for place in sorted(dealt) if place[0] == kind) for kind in ("control", "reserve")
        )
        steps = dict(zip(arrays[_ROWS].tolist(), arrays[_STEPS].tolist(), strict=True)) if _STEPS in arrays else {}
        spent = float(metadata["seconds"] if seconds is None else seconds)
        if not 0 <= spent < math.inf:
            raise ValueError(f"seconds are {spent}")
        facts = parsed(metadata["facts"].encode(), file)
    return SealedGuess(Guess(own, facts), controls, steps, spent, on_reserve)

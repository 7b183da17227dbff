"""A guess is what was sealed, or it is refused by name; its hash holds no time."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.run_cell import run_cell
from pplr_audit.audit.sealed_guess import SealedGuess
from pplr_audit.errors import InputError
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record, View

CELL = Cell("stub", "{}", "server", "base", Channel.FRONT_ACTIVATIONS, 1, None, 3, "none")
PATH = f"guesses/{CELL.slug}.safetensors"
GUESS = Guess({"rows": np.array([0, 1]), "labels": np.array([[3], [1]])}, {"epochs": 4})
CONTROLS = (Guess({"rows": np.array([0])}), Guess({"rows": np.array([1])}))
VIEW = View("server", CELL.channel, 1, None, "none", tuple(Record(r, "a", 3, 2 * r, torch.zeros(1, 1)) for r in (0, 1)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "run", "name: x\n", "0" * 64) as store:
        yield store


def contents(sealed: SealedGuess) -> Any:
    guesses = [({n: a.tolist() for n, a in g.arrays.items()}, g.facts) for g in (sealed.guess, *sealed.controls)]
    return guesses, dict(sealed.steps), sealed.seconds


def test_what_is_opened_is_what_was_sealed(store: Store) -> None:
    sealed = SealedGuess.seal(store, CELL.slug, GUESS, CONTROLS, VIEW, 1.25)
    assert contents(SealedGuess.open(store, CELL.slug)) == contents(sealed)
    assert sealed.steps == {0: 0, 1: 2}
    assert sealed.seconds == 1.25
    assert [control.arrays["rows"].tolist() for control in sealed.controls] == [[0], [1]]


def test_ten_controls_keep_their_order(store: Store) -> None:
    controls = [Guess({"rows": np.array([number])}) for number in range(11)]
    SealedGuess.seal(store, CELL.slug, GUESS, controls, VIEW, 1.0)
    assert [int(c.arrays["rows"][0]) for c in SealedGuess.open(store, CELL.slug).controls] == list(range(11))


def test_the_same_answer_has_the_same_hash_however_long_it_took(store: Store) -> None:
    for seconds in (1.25, 3.5):
        SealedGuess.seal(store, CELL.slug, GUESS, CONTROLS, VIEW, seconds)
    first, second = (event for event in store.events() if event["kind"] == "guess_sealed")
    assert first["sha256"] == second["sha256"] == hashlib.sha256((store.root / PATH).read_bytes()).hexdigest()
    assert (first["seconds"], second["seconds"]) == (1.25, 3.5)


def other_answer(store: Store) -> None:
    """Put another answer in its place as the store writes any file, so that its checksum fits."""
    arrays = {**store.read_arrays(PATH), "labels": np.array([[1], [3]])}
    store.write_tensors(PATH, arrays, store.read_metadata(PATH))


def test_an_answer_that_was_exchanged_after_it_was_sealed_is_refused_by_name(store: Store) -> None:
    SealedGuess.seal(store, CELL.slug, GUESS, CONTROLS, VIEW, 1.0)
    other_answer(store)
    with pytest.raises(InputError, match=rf"{CELL.slug}.safetensors is damaged: .* hash by which it was sealed"):
        SealedGuess.open(store, CELL.slug)


class Untouched:
    """Surroundings of a cell whose attack has answered; the truth must not be opened for an answer that is refused."""

    name, secret, channels, controls = "stub", "label", frozenset({CELL.channel}), 2

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")

    def truths(self, cell: Cell) -> Any:
        return {}


def test_a_cell_is_not_scored_by_an_answer_that_was_exchanged(store: Store) -> None:
    SealedGuess.seal(store, CELL.slug, GUESS, CONTROLS, VIEW, 1.0)
    other_answer(store)
    with pytest.raises(InputError, match=f"{CELL.slug}.safetensors is damaged"):
        run_cell(CELL, Untouched(), Untouched(), store, budget=9, seed=0)
    assert not store.exists(f"cells/{CELL.slug}.json")


def test_an_answer_without_its_seal_is_refused_by_name(store: Store) -> None:
    SealedGuess.seal(store, CELL.slug, GUESS, CONTROLS, VIEW, 1.0)
    log = store.root / "events.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if "guess_sealed" not in line))
    with pytest.raises(InputError, match=rf"{CELL.slug}.safetensors was never sealed"):
        SealedGuess.open(store, CELL.slug)


def test_the_later_seal_of_a_cell_counts(store: Store) -> None:
    store.event("guess_sealed", cell=CELL.slug, sha256="0" * 64, seconds=9.0)  # of a call that was killed after it
    SealedGuess.seal(store, CELL.slug, GUESS, CONTROLS, VIEW, 1.0)
    assert SealedGuess.open(store, CELL.slug).seconds == 1.0


def test_an_answer_sealed_by_an_earlier_version_still_opens(store: Store) -> None:
    """Its seconds stand in the file and the event has none; the oldest do not say in which steps rows crossed."""
    arrays = {"rows": np.array([0]), "labels": np.array([[3]]), "control0/rows": np.array([0])}
    data = store.pack(arrays, {"seconds": "2.500000", "facts": json.dumps({"epochs": 4})})
    store.event("guess_sealed", cell=CELL.slug, sha256=hashlib.sha256(data).hexdigest())
    store.write_bytes(PATH, data)
    sealed = SealedGuess.open(store, CELL.slug)
    assert sealed.guess.arrays["labels"].tolist() == [[3]]
    assert (sealed.seconds, dict(sealed.steps), sealed.guess.facts) == (2.5, {}, {"epochs": 4})
    assert len(sealed.controls) == 1


@pytest.mark.parametrize("data", [b"", b"\x10\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_sealed_file_that_cannot_be_read_is_refused_by_name(store: Store, data: bytes) -> None:
    store.event("guess_sealed", cell=CELL.slug, sha256=hashlib.sha256(data).hexdigest(), seconds=1.0)
    store.write_bytes(PATH, data)
    with pytest.raises(InputError, match=f"{CELL.slug}.safetensors: does not hold what a run writes there"):
        SealedGuess.open(store, CELL.slug)

"""Shared decoding of all inverters: from each word's fit at each position to tokens, items and labels.

An inverter learns a `Reading` for each client and round. All are learned before the first row is read, so that whether
the budget is enough for them does not depend on the order of the rows; what was learned is kept for the other cells and
the controls (`Knowledge.fitted`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pplr_audit.attacks.decoding.copies import Copies
from pplr_audit.attacks.decoding.crossings import by_row, doubts_of, once
from pplr_audit.attacks.decoding.titles import DEPTH, LABELS, TitleReader
from pplr_audit.attacks.learners.drift import Undone, undone
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, When
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View

ANSWERED = frozenset({Channel.FRONT_ACTIVATIONS, Channel.BACK_GRADIENTS})
"""Channels of a training sequence, which holds its answer where the template has a place for one."""
Words = Int[np.ndarray, "words"]
"""Words of `TitleReader.vocabulary`."""


@dataclass(frozen=True)
class Reading:
    """An inversion that was learned."""

    fit: Callable[[Float[Tensor, "length hidden"]], Float[Tensor, "length words"]]
    """Function that tells how well each word that a prompt can hold stands at each position; higher is better."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the report on the inversion."""
    drifts: Mapping[int, Undone] = field(default_factory=dict)
    """Takes off by how much the client's front had moved from the copy, by the step before which known plaintext
    crossed; empty where none did."""

    def by(self, step: int, crossed: Float[Tensor, "length hidden"]) -> tuple[Float[np.ndarray, "length words"], bool]:
        """Return the fit of words to what crossed in a step, and whether the drift is taken off: where the words are
        surer so.
        """
        plain = self.fit(crossed).numpy()
        if not self.drifts:
            return plain, False
        back = self.fit(self.drifts[nearest_step(self.drifts, step)](crossed)).numpy()
        doubts = [float(-fit.max(1).mean()) for fit in (plain, back)]
        return (back, True) if doubts[1] < doubts[0] else (plain, False)


class Inversion(Protocol):
    """The part of an attack that `read` needs."""

    comparable: bool
    """True if the fits of two inversions compare, so that the surer one explains an encoder's record better."""

    def learned(
        self, client: str, round_: int, layer: int, knowledge: Knowledge, words: Words, budget: Budget,
        when: When = "start",
    ) -> Reading:  # fmt: skip
        """Return the fit for a client's h_l at ``layer`` in a round, by the copy of ``when``.

        Raises NotApplicable or BudgetExhausted.
        """
        ...


def read(attack: Inversion, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
    """The history of each row, and its label where a view of training holds it.

    Raises:
        NotApplicable: nothing crossed, what crossed is not finite, or there is nothing to learn from.
        BudgetExhausted: the time is up.
    """
    front = require_records(view, knowledge)
    reader = TitleReader(knowledge.prompts)
    readings = learned_of(attack, view, front, knowledge, reader, budget)
    facts: dict[str, dict[str, Any]] = {}
    for (client, _), copies in readings.items():
        for when, reading in copies.items():
            for name, value in reading.facts.items():
                facts.setdefault(name if when == "start" else f"{name}_{when}", {})[client] = value
    rows, taken = by_row(view.records), Copies(knowledge, front, view.records)

    def fits() -> Iterator[Float[np.ndarray, "length words"]]:
        for place, crossings in enumerate(rows.values()):
            budget.check(place, len(rows))
            yield best_read(readings, crossings, taken)

    guess = answered(once(view), reader, fits(), facts)
    return Guess({**guess.arrays, **_recommended(view, readings, reader, guess)}, {**facts, **taken.facts})


def _recommended(
    view: View, readings: Mapping[tuple[str, int], Mapping[When, Reading]], reader: TitleReader, guess: Guess
) -> dict[str, np.ndarray]:
    """Return the titles that the model generated, as they are read; nothing where it generated none.

    What was read of the history is not recommended.
    """
    if all(record.generated is None for record in view.records):
        return {}
    found = np.full((len(view.records), LABELS), -1, dtype=np.int64)
    for place, record in enumerate(view.records):
        if record.generated is None:
            continue
        fit = readings[record.client, record.round]["start"].fit(torch.cat([record.tensor, record.generated]).float())
        titles = reader.generated(fit[len(record.tensor) :].numpy(), record.row)
        slots = guess.arrays["items"][slice(*guess.arrays["slot_offsets"][place : place + 2]), 0]
        titles = titles[~np.isin(titles, slots)]
        found[place, : len(titles)] = titles
    return {"recommended": found}


def best_read(
    readings: Mapping[tuple[str, int], Mapping[When, Reading]], crossings: Sequence[Record], copies: Copies
) -> Float[np.ndarray, "length words"]:
    """Return the fit of words to a row, by the crossing and the copy that explain it best."""
    found = []
    for each in crossings:
        own, crossed = readings[each.client, each.round], each.tensor.float()
        found.append({when: reading.by(each.step, crossed) for when, reading in own.items()})
    doubts = [doubts_of({when: fit for when, (fit, _) in of.items()}) for of in found]
    place, when = copies.best(crossings, doubts)
    fit, undone_for_it = found[place][when]
    copies.count(when, crossings[place], undone=undone_for_it)
    return fit


def learned_of(
    attack: Inversion, view: View, front: int, knowledge: Knowledge, reader: TitleReader, budget: Budget
) -> dict[tuple[str, int], dict[When, Reading]]:
    """Return what is learned from each copy of the models of a view, by client and round."""
    steps: dict[tuple[str, int], set[int]] = {}
    for record in view.records:
        steps.setdefault((record.client, record.round), set()).add(record.step)

    def learned(client: str, round_: int, when: When) -> Reading:
        reading = attack.learned(client, round_, front, knowledge, reader.vocabulary, budget, when)
        public = {each.step: each for each in knowledge.plaintext(client, round_)} if knowledge.plaintext else {}
        near = sorted({nearest_step(public, step) for step in steps[client, round_]}) if public else []
        model = knowledge.copies_of(client, round_)[when]
        return replace(reading, drifts={s: undone(public[s], model, front, knowledge, budget) for s in near})

    wanted = {
        (client, round_): [
            when
            for when in knowledge.copies_of(client, round_)
            if when == "start" or knowledge.base.causal or attack.comparable
        ]
        for client, round_ in sorted(steps)
    }
    knowledge.artifacts.ahead([partial(learned, *place, when) for place, copies in wanted.items() for when in copies])
    return {place: {when: learned(*place, when) for when in copies} for place, copies in wanted.items()}


def nearest_step(steps: Iterable[int], step: int) -> int:
    """Return the one of ``steps`` that is nearest to ``step``, of two as near the earlier one."""
    return min(steps, key=lambda each: (abs(each - step), each))


def require_records(view: View, knowledge: Knowledge) -> int:
    """The front that a view is of. Raises NotApplicable as `require_readable` does, and where there is none."""
    if view.front is None:
        raise NotApplicable("the channel does not depend on a front")
    require_readable(view, knowledge)
    return view.front


def require_readable(view: View, knowledge: Knowledge) -> None:
    """Raises NotApplicable where there is nothing to read, or what the known model cannot have made."""
    if not view.records:
        raise NotApplicable("nothing crossed that belongs to a victim")
    most, wide = knowledge.prompts.max_tokens, knowledge.embeddings.shape[1]
    for record in view.records:
        for tensor in (record.tensor, *record.also_reads.values()):
            length, width = tensor.shape
            if width != wide:
                raise NotApplicable(f"what crossed of row {record.row} is {width} wide, the known model {wide}")
            if length > most:
                raise NotApplicable(
                    f"what crossed of row {record.row} has {length} positions, more than model.max_tokens ({most})"
                )
            if not bool(tensor.isfinite().all()):
                raise NotApplicable(f"what crossed of row {record.row} is not finite")


def answered(
    view: View, reader: TitleReader, fits: Iterable[Float[np.ndarray, "length words"]], facts: Mapping[str, Any]
) -> Guess:
    """Tokens, items and labels of each record, from how well each word stands at each of its positions."""
    tokens, claimed, slots, labels = [], [], [], []
    for record, fit in zip(view.records, fits, strict=True):
        tokens.append(reader.vocabulary[fit.argmax(1)])
        found = reader.read(fit, row=record.row)
        claimed.append(found.claimed)
        slots.append(found.items)
        labels.append(found.labels)
    rows = [record.row for record in view.records]
    labeled = view.channel in ANSWERED and reader.answers
    return Guess(packed(rows, tokens, claimed, slots, labels if labeled else None), facts)


def packed(
    rows: Sequence[int],
    tokens: Sequence[Int[np.ndarray, "length"]],
    claimed: Sequence[Bool[np.ndarray, "length"]],
    slots: Sequence[Int[np.ndarray, "slots depth"]],
    labels: Sequence[Int[np.ndarray, "labels"]] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of a `Guess`: of each row its tokens, which of them it claims as words of titles, its ranked items,
    and its ranked labels where there are any."""
    arrays = {
        "rows": np.array(rows), "token_offsets": _offsets(tokens), "tokens": np.concatenate(tokens),
        "claimed": np.concatenate(claimed),
        "slot_offsets": _offsets(slots),
        "items": np.concatenate([np.empty((0, DEPTH), dtype=np.int64), *(each.reshape(-1, DEPTH) for each in slots)]),
    }  # fmt: skip
    if labels is not None:
        arrays["labels"] = np.array([np.pad(e, (0, LABELS - len(e)), constant_values=-1) for e in labels])
    return arrays


def require_whole(attack: str, **settings: tuple[object, int]) -> None:
    """Settings with the least that is accepted of each. Raises InputError for what is no whole number, or is less."""
    for name, (value, least) in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{attack}: {name} is {value!r} (accepted: a whole number, {least} or more)")


def _offsets(pieces: Sequence[np.ndarray]) -> Int[np.ndarray, "pieces+1"]:
    """Return where each piece begins, and where the last one ends, when they stand one behind the other."""
    return np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])

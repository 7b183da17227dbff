"""The attribute attack tells what activations carry, also several values, and nothing where they carry nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.attacks.activation.attribute import Attribute
from pplr_audit.audit.run_attack import run_attack
from pplr_audit.audit.truth.attribute import AttributeTruth
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View

USERS, HIDDEN = 120, 24


def values_of(count: int) -> dict[int, str]:
    """Of each row; the row's number says nothing of it."""
    drawn = np.random.default_rng(8).permutation(np.arange(USERS) % count)
    return {row: f"value {value}" for row, value in enumerate(drawn)}


def known(values: Mapping[int, str]) -> Knowledge:
    nothing: Any = None
    return Knowledge("front", nothing, torch.zeros(1, 1), nothing, {}, (0,), 3, 3, known_attributes=dict(values))


def view_of(values: Mapping[int, str], strength: float) -> View:
    """Each position is noise, and of each value a direction of its own."""
    generator = torch.Generator().manual_seed(2)
    records = []
    for row in range(USERS):
        hidden = torch.randn(4 + row % 5, HIDDEN, generator=generator)
        hidden[:, int(values[row].split()[1])] += strength
        records.append(Record(row, f"client-{row % 2}", 1, 0, hidden))
    return View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", tuple(records))


def truth_of(values: Mapping[int, str], folds: int = 5) -> AttributeTruth:
    by_row = {row: place % folds for place, row in enumerate(sorted(values, key=lambda row: (values[row], row)))}
    same = {row: f"client-{row % 2}" for row in range(USERS)}
    held = {row: [row % 10] for row in range(USERS)}
    return AttributeTruth("kind", values, by_row, {row: row + 500 for row in range(USERS)}, same, held, 10)


def answer(values: Mapping[int, str], view: View) -> Guess:
    """In all turns."""
    return run_attack(Attribute("kind"), view, [known(told) for told in truth_of(values).known_by_turn], 60)


def half(values: Mapping[int, str]) -> dict[int, str]:
    return {row: value for row, value in values.items() if row < USERS // 2}


@pytest.mark.parametrize("count", [2, 3])
def test_it_tells_the_values_that_activations_carry(count: int) -> None:
    values = values_of(count)
    guess = answer(values, view_of(values, 2.0))
    assert sorted(guess.arrays["rows"].tolist()) == list(range(USERS)), "everybody is asked for"
    area, right = truth_of(values).score(guess, seed=0)
    assert area.estimate.low > 0.85
    assert right.estimate.low > right.baseline
    assert set(area.detail["auc_by_value"]) == set(values.values())


def test_nobody_is_answered_for_by_who_learned_from_it() -> None:
    values = values_of(2)
    view, (told, *_) = view_of(values, 1.0), truth_of(values).known_by_turn
    guess = Attribute("kind").run(view, known(told), Budget(60))
    assert set(guess.arrays["rows"].tolist()) == set(values) - set(told)
    # What crossed of the others of the same fold, and their values, change nothing.
    first, *others = guess.arrays["rows"].tolist()
    alone = replace(view, records=tuple(record for record in view.records if record.row not in others))
    (found,) = Attribute("kind").run(alone, known(told), Budget(60)).arrays["values"]
    np.testing.assert_allclose(found, guess.arrays["values"][guess.arrays["rows"].tolist().index(first)], atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_it_tells_nothing_where_the_labels_are_shuffled(count: int) -> None:
    """The negative control: the same activations, the values dealt to other users."""
    values = values_of(count)
    dealt = dict(zip(values, np.random.default_rng(4).permutation(list(values.values())).tolist(), strict=True))
    area, right = truth_of(dealt).score(answer(dealt, view_of(values, 2.0)), seed=0)
    assert area.estimate.low < 0.5 < area.estimate.high
    assert right.estimate.low <= right.baseline


def test_it_tells_nothing_of_a_user_from_what_crossed_of_another() -> None:
    values = values_of(2)
    shuffled = view_of(values, 2.0).shuffled(np.random.default_rng(0))
    area, _ = truth_of(values).score(answer(values, shuffled), seed=0)
    assert area.estimate.low < 0.5 < area.estimate.high


def test_rows_of_which_nobody_knows_the_value_change_nothing() -> None:
    values = values_of(2)
    view, fewer = view_of(values, 1.0), {row: value for row, value in half(values).items() if row >= 6}
    whole = Attribute("kind").run(view, known(fewer), Budget(60))
    narrow = View("server", view.channel, 1, None, "none", view.records[6:])
    without = Attribute("kind").run(narrow, known(fewer), Budget(60))
    np.testing.assert_allclose(whole.arrays["values"][6:], without.arrays["values"], atol=1e-6)


def test_it_says_when_it_cannot_answer() -> None:
    values = values_of(2)
    told, view = half(values), view_of(values, 1.0)
    with pytest.raises(NotApplicable, match="nothing crossed that belongs"):
        Attribute("kind").run(View("server", view.channel, 1, None, "none", ()), known(told), Budget(60))
    for too_little in ({}, {0: "value 0"}, dict.fromkeys(range(40), "value 0"), {**told, 99_999: "value 2"}):
        with pytest.raises(NotApplicable, match="too little of what crossed belongs to users whose kind is known"):
            Attribute("kind").run(view, known(too_little), Budget(60))
    with pytest.raises(NotApplicable, match="kind is not known beforehand"):
        Attribute("kind").run(view, known(values), Budget(60))
    view.records[0].tensor[0, 0] = float("nan")
    with pytest.raises(NotApplicable, match="row 0 is not finite"):
        Attribute("kind").run(view, known(told), Budget(60))
    with pytest.raises(BudgetExhausted):
        Attribute("kind").run(view_of(values, 1.0), known(told), Budget(-1.0))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "name"), ({"name": 3}, "name"), ({"name": "a", "seed": -1}, "seed"),
        *(({"name": "a", "folds": folds}, "folds") for folds in (1, 11, 0, 2.0, True, "all")),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"attribute: {named} is"):
        Attribute(**settings)

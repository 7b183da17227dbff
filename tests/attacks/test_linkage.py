"""Linkage finds the rows of one user where users have something of their own, and nothing where they have not."""

from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.attacks.activation.linkage import Linkage
from pplr_audit.audit.truth.linkage import LinkageTruth
from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View

USERS, HIDDEN = 60, 16
UNKNOWN: Any = None


def rows() -> tuple[list[int], list[int]]:
    """Of the newer and of the older windows."""
    drawn = np.random.default_rng(7).permutation(2 * USERS).tolist()
    return drawn[:USERS], drawn[USERS:]


def view_of(strength: float, *, rounds: tuple[int, int] = (2, 1), shift: float = 0.0) -> View:
    """Every position is noise about what is the user's own; all of a round are moved by ``shift``, a client's by 5."""
    generator = torch.Generator().manual_seed(3)
    own = torch.randn(USERS, HIDDEN, generator=generator)
    records = {}
    for side, of_side in enumerate(rows()):
        for user, row in enumerate(of_side):
            hidden = strength * own[user] + torch.randn(4 + row % 3, HIDDEN, generator=generator)
            hidden[:, 0] += 5.0 * (user % 2) + shift * side
            records[row] = Record(row, f"client-{user % 2}", rounds[side], 0, hidden)
    return View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", tuple(records[row] for row in sorted(records)))


def truth() -> LinkageTruth:
    newer, older = rows()
    blank = np.zeros(4, dtype=np.int64)
    prompts = {
        row: Prompt(np.array([1, 2 + row, 3, 4]), blank + TEMPLATE + 1, np.array([row]), 4, blank)
        for row in (*newer, *older)
    }
    clients = [f"client-{user % 2}" for user in range(USERS)]
    return LinkageTruth(range(100, 100 + USERS), clients, newer, older, prompts)


def attacked(view: View) -> Guess:
    return Linkage().run(view, UNKNOWN, Budget(60))


def test_it_finds_users_who_have_something_of_their_own() -> None:
    (area,) = truth().score(attacked(view_of(1.0)), seed=0)
    assert area.estimate.low > 0.9
    assert area.baseline == 0.5
    assert len(area.per_user) == area.estimate.n == USERS


def test_what_all_of_a_round_have_in_common_does_not_matter() -> None:
    plain, moved = (truth().score(attacked(view_of(1.0, shift=by)), seed=0)[0] for by in (0.0, 50.0))
    assert plain.estimate.value == pytest.approx(moved.estimate.value, abs=1e-3)


def test_a_single_round_is_enough() -> None:
    (area,) = truth().score(attacked(view_of(1.0, rounds=(2, 2))), seed=0)
    assert area.estimate.low > 0.9


def test_it_finds_nothing_where_users_have_nothing_of_their_own() -> None:
    """The negative control; that clients differ does not count."""
    (area,) = truth().score(attacked(view_of(0.0)), seed=0)
    assert area.estimate.low < 0.5 < area.estimate.high


def test_it_finds_nothing_where_rows_are_dealt_to_others() -> None:
    shuffled = [view_of(1.0).shuffled(np.random.default_rng(seed)) for seed in range(5)]
    values = [truth().score(attacked(view), seed=0)[0].estimate.value for view in shuffled]
    assert abs(float(np.mean(values)) - 0.5) < 0.06


def test_every_two_rows_of_a_client_are_scored_once() -> None:
    view = view_of(1.0)
    guess = attacked(view)
    client = {record.row: record.client for record in view.records}
    pairs = {
        frozenset(pair) for pair in zip(guess.arrays["first"].tolist(), guess.arrays["second"].tolist(), strict=True)
    }
    assert len(pairs) == len(guess.arrays["scores"]) == 2 * (USERS * (USERS - 1) // 2)
    assert all(len({client[row] for row in pair}) == 1 for pair in pairs)
    assert np.abs(guess.arrays["scores"]).max() <= 1 + 1e-9


def test_it_says_when_it_cannot_answer() -> None:
    view = view_of(1.0)
    for records in ((), view.records[:1]):
        with pytest.raises(NotApplicable, match="no client has two rows"):
            attacked(View("server", view.channel, 1, None, "none", records))
    view.records[3].tensor[0, 0] = float("inf")
    with pytest.raises(NotApplicable, match="row 3 is not finite"):
        attacked(view)
    with pytest.raises(BudgetExhausted):
        Linkage().run(view_of(1.0), UNKNOWN, Budget(-1.0))


def test_rows_that_are_all_alike_are_no_more_one_s_than_another_s() -> None:
    same = tuple(Record(row, "a", 1, 0, torch.ones(3, HIDDEN)) for row in range(2 * USERS))
    (area,) = truth().score(attacked(View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", same)), seed=0)
    assert area.estimate.value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("value", [0, -1.0, True, "1", float("nan"), float("inf")])
def test_settings_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="linkage: ridge is"):
        Linkage(value)

"""An attribute is read from the update of a client that is one user, and nothing from another client's update."""

from typing import Any

import numpy as np
import pytest

from pplr_audit.attacks.update.update_attribute import UpdateAttribute
from pplr_audit.data.prompts import ragged
from pplr_audit.data.samples import Samples
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model import Budget, Guess, Knowledge, NotApplicable
from tests.attacks.update.clients import Clients

ATTACK = UpdateAttribute("side", folds=2)
USERS, OTHERS, ITEMS = 24, 60, 48
Users = tuple[list[list[int]], list[str]]


def users(count: int, seed: int) -> Users:
    """Histories with an answer, and on which side of the catalogue most of a user's items lie."""
    generator = np.random.default_rng(seed)
    sides = [str(side) for side in generator.permutation(np.resize(["left", "right"], count))]
    drawn = [generator.integers(6, size=4) + (0 if side == "left" else 24) for side in sides]
    return [each.tolist() for each in drawn], sides


@pytest.fixture(scope="module")
def clients(model: Recommender) -> Clients:
    items, _ = users(USERS, 1)
    built = [[model.prompts.build(np.array(own[:-1]), own[-1])] for own in items]
    return Clients(model, {f"client-{place:02d}": own for place, own in enumerate(built)})


def known(clients: Clients, **fields: Any) -> Knowledge:
    items, sides = users(OTHERS, 2)
    others = Samples(np.arange(OTHERS), ragged([own[:-1] for own in items]), np.array([own[-1] for own in items]))
    return clients.knowledge(**{"auxiliary": "matched", "others": others, "others_attributes": tuple(sides), **fields})


def right(guess: Guess) -> float:
    """Share of the clients whose likelier value is theirs."""
    _, sides = users(USERS, 1)
    named = np.array(["left", "right"])[guess.arrays["values"].argmax(1)]
    return float(np.mean([sides[row] == name for row, name in zip(guess.arrays["rows"], named, strict=True)]))


def test_the_attribute_is_read_from_single_users_updates(clients: Clients) -> None:
    guess = ATTACK.run(clients.view(), known(clients), Budget(60))
    assert sorted(guess.arrays["rows"]) == list(range(USERS))
    assert right(guess) > 0.8
    assert guess.facts["simulated_users"] == OTHERS


def test_updates_of_others_say_nothing(clients: Clients) -> None:
    shuffled = clients.view().shuffled(np.random.default_rng(3))
    assert abs(right(ATTACK.run(shuffled, known(clients), Budget(60))) - 0.5) < 0.3


def test_clients_whose_value_is_known_in_a_turn_are_not_answered_about(clients: Clients) -> None:
    told = {row: users(USERS, 1)[1][row] for row in range(10)}
    guess = ATTACK.run(clients.view(), known(clients, known_attributes=told), Budget(60))
    assert sorted(guess.arrays["rows"]) == list(range(10, USERS))


def test_it_says_why_it_does_not_apply(clients: Clients) -> None:
    view, sides = clients.view(), users(OTHERS, 2)[1]
    with pytest.raises(NotApplicable, match="no users of the reserve"):
        ATTACK.run(view, known(clients, others=None), Budget(60))
    few = ["" if side == "left" and place > 5 else side for place, side in enumerate(sides)]
    with pytest.raises(NotApplicable, match=r"5 or more of each value are needed, and there are left: \d, right: 30"):
        ATTACK.run(view, known(clients, others_attributes=tuple(few)), Budget(60))
    with pytest.raises(NotApplicable, match="does not know the training's recipe"):
        ATTACK.run(view, known(clients, recipe=None), Budget(60))
    with pytest.raises(InputError, match="update_attribute: name is ''"):
        UpdateAttribute()
    with pytest.raises(InputError, match=r"update_attribute: users is 3 \(accepted: a whole number, 10 or more\)"):
        UpdateAttribute("side", users=3)

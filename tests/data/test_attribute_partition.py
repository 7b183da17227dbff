"""Clients by an attribute of their users."""

from dataclasses import replace

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data.population import populate
from pplr_audit.data.split import split
from pplr_audit.data.synthetic import market
from pplr_audit.errors import InputError

MARKET = market(scenario.Market(), 0)
SPLIT = split(MARKET, "leave_one_out")


def people(dataset=MARKET, attribute="age_group", **data):
    return populate(dataset, SPLIT, scenario.Data(partition=f"attribute:{attribute}", **data), 0)


def test_every_value_is_a_client_the_commonest_first():
    who = people()
    ages = MARKET.attributes["age_group"]
    counts = sorted(((ages.count(age), age) for age in set(ages)), reverse=True)
    assert who.clients == tuple(f"age_group-{age.replace(' ', '-')}" for _, age in counts)
    for client, (_, age) in enumerate(counts):
        assert {ages[user] for user in np.flatnonzero(who.client_of == client)} == {age}


def test_members_and_non_members_of_a_value_share_their_client():
    who = people()
    ages = np.array(MARKET.attributes["age_group"])
    for age in set(ages):
        assert len(set(who.client_of[(ages == age) & (who.client_of >= 0)])) == 1
    assert 0.4 < who.member[who.audited == 1].mean() < 0.6


def test_rare_values_share_the_last_client():
    who = people(clients=2)
    assert who.clients == (who.clients[0], "age_group-other")
    ages = MARKET.attributes["age_group"]
    rare = {ages[user] for user in np.flatnonzero(who.client_of == 1)}
    assert len(rare) == len(set(ages)) - 1


def test_a_value_that_is_called_like_the_rest_is_not_taken_for_it():
    some = tuple(("other", "other", "a", "b", "c")[user % 5] for user in range(len(MARKET.users)))
    who = people(replace(MARKET, attributes={"x": some}), "x", clients=3)
    assert who.clients == ("x-other", "x-a", "x-other-2")
    for client, values in enumerate(({"other"}, {"a"}, {"b", "c"})):
        assert {some[user] for user in np.flatnonzero(who.client_of == client)} == values


def test_users_whose_value_is_not_known_are_a_value_of_their_own():
    some = tuple("" if user % 3 == 0 else value for user, value in enumerate(MARKET.attributes["age_group"]))
    assert "age_group-unknown" in people(replace(MARKET, attributes={"age_group": some})).clients


def test_names_of_clients_can_stand_in_a_path():
    some = tuple(f"../{'a' if user % 2 else 'b'}/<b>" for user in range(len(MARKET.users)))
    assert sorted(people(replace(MARKET, attributes={"x": some}), "x").clients) == ["x-..-a--b-", "x-..-b--b-"]


def test_an_attribute_that_is_not_there_or_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"data\.partition: synthetic has no attribute 'shoe' \(accepted: .*age"):
        people(attribute="shoe")
    same = replace(MARKET, attributes={"x": ("1",) * len(MARKET.users)})
    with pytest.raises(InputError, match=r"all users of synthetic have the same x, '1'"):
        people(same, "x")

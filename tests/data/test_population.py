"""Clients, audited users and members."""

from dataclasses import replace

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data import population
from pplr_audit.data.dataset import Ragged
from pplr_audit.data.population import named, populate, toss
from pplr_audit.data.ragged import keep, row_of
from pplr_audit.data.split import split
from pplr_audit.data.synthetic import drawn, market
from pplr_audit.errors import InputError
from pplr_audit.scenario.seeds import derive

MARKET = market(scenario.Market(), 0)
SPLIT = split(MARKET, "leave_one_out")
PARTITIONS = ["kmeans", "random", "per_user"]


def people(parts=SPLIT, seed=0, **data):
    return populate(MARKET, parts, scenario.Data(**data), seed)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_who_is_neither_audited_nor_in_reserve_trains_and_every_client_has_a_member(partition):
    who = people(partition=partition)
    assert (who.member[(who.audited == 0) & (who.reserve == 0)] == 1).all()
    assert (who.client_of[who.member == 1] >= 0).all()
    assert set(who.client_of[who.member == 1]) == set(range(len(who.clients)))
    assert len(who.clients) == (5 if partition != "per_user" else who.member.sum())


@pytest.mark.parametrize(("wanted", "audited"), [(2, 2), (100, 100), (800, 480)])
def test_as_many_are_audited_as_asked_for_but_four_in_five_at_most(wanted, audited):
    assert people(audit_users=wanted, reserve=0).audited.sum() == audited


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_same_seed_gives_the_same_people_and_another_gives_others(partition):
    one, same, other = (people(partition=partition, seed=seed) for seed in (0, 0, 1))
    for field in ("client_of", "audited", "member", "reserve"):
        assert np.array_equal(getattr(one, field), getattr(same, field))
        assert not np.array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("partition", ["kmeans", "random"])
def test_another_coin_changes_members_but_no_assignment(partition, monkeypatch):
    one = people(partition=partition)
    monkeypatch.setattr(
        population, "derive", lambda seed, *names: derive(seed, *names, *(["again"] if names[0] == "coin" else []))
    )
    other = people(partition=partition)
    assert not np.array_equal(one.member, other.member)
    assert np.array_equal(one.client_of, other.client_of)
    assert np.array_equal(one.audited, other.audited)


def test_the_coin_is_fair_in_every_client_and_clients_toss_apart():
    client_of = np.repeat(np.arange(5), 2000)
    audited = np.ones(10_000, dtype=bool)
    audited[::10] = False
    member = toss(client_of, audited, 0)
    assert member[~audited].all()
    tosses = [member[audited & (client_of == client)] for client in range(5)]
    for one in tosses:
        assert abs(one.mean() - 0.5) < 4 * np.sqrt(0.25 / len(one))
    assert len({one.tobytes() for one in tosses}) == 5


def test_a_client_tosses_the_same_whatever_the_others_hold():
    client_of, audited = np.array([0, 1, 0, 1, 0, 1] * 50), np.ones(300, dtype=bool)
    alone = toss(client_of[client_of == 0], audited[client_of == 0], 0)
    assert np.array_equal(toss(client_of, audited, 0)[client_of == 0], alone)


def test_held_out_items_have_no_influence():
    one = people()
    shuffled = np.random.default_rng(0).permutation(len(MARKET.catalogue))
    valid, test = (Ragged(part.offsets, shuffled[part.values]) for part in (SPLIT.valid, SPLIT.test))
    other = people(replace(SPLIT, valid=valid, test=test))
    for field in ("client_of", "audited", "member", "reserve"):
        assert np.array_equal(getattr(one, field), getattr(other, field))


def test_the_rule_is_fitted_outside_the_audit():
    # With one audited user's items swapped for another's, nobody else's client may change.
    one = people()
    victim = int(np.flatnonzero(one.audited)[0])
    mine = row_of(SPLIT.train) == victim
    values = SPLIT.train.values.copy()
    values[mine] = np.random.default_rng(0).choice(len(MARKET.catalogue), mine.sum(), replace=False)
    other = people(replace(SPLIT, train=Ragged(SPLIT.train.offsets, values)))
    assert np.array_equal(np.delete(one.client_of, victim), np.delete(other.client_of, victim))


def test_two_users_with_the_same_items_share_a_client_member_or_not():
    first = people()
    values, offsets = SPLIT.train.values.copy(), SPLIT.train.offsets
    outside = np.flatnonzero(first.audited == 0)
    for twin in np.flatnonzero(first.audited)[:40]:
        lengths = SPLIT.train.lengths
        model = next(user for user in outside if lengths[user] == lengths[twin])
        values[offsets[twin] : offsets[twin + 1]] = SPLIT.train[model]
    who = people(replace(SPLIT, train=Ragged(offsets, values)))
    rows = {}
    for user in range(len(MARKET.users)):
        rows.setdefault(values[offsets[user] : offsets[user + 1]].tobytes(), set()).add(int(who.client_of[user]))
    assert all(len(clients) == 1 for clients in rows.values())


def test_clients_of_kmeans_are_about_taste():
    dataset, law = drawn(scenario.Market(users=2000), 0)
    who = populate(dataset, split(dataset, "leave_one_out"), scenario.Data(audit_users=400), 0)
    means = np.stack([law.taste[who.client_of == client].mean(axis=0) for client in range(5)])
    assert (means.max(axis=1) > 0.4).all()
    assert set(means.argmax(axis=1)) == set(range(5))


def test_users_with_too_few_items_take_no_part():
    wanted = np.ones(len(SPLIT.train.values), dtype=bool)
    wanted[row_of(SPLIT.train) < 3] = False
    wanted[SPLIT.train.offsets[1]] = True
    for partition in PARTITIONS:
        who = people(replace(SPLIT, train=keep(SPLIT.train, wanted)), partition=partition)
        assert who.client_of[:3].tolist() == [-1, -1, -1]
        assert who.member[:3].sum() == who.audited[:3].sum() == 0


def test_per_user_clients_are_the_users_who_train():
    who = people(partition="per_user")
    trains = np.flatnonzero(who.member)
    assert who.client_of[trains].tolist() == list(range(len(trains)))
    assert (who.client_of[who.member == 0] == -1).all()


def test_names_are_of_one_width():
    assert named(2) == ("client-0", "client-1")
    assert named(10)[-1] == "client-9"
    assert named(12)[9:] == ("client-09", "client-10", "client-11")


@pytest.mark.parametrize("partition", ["kmeans", "random"])
def test_more_clients_than_users_outside_the_audit_are_refused(partition):
    with pytest.raises(
        InputError, match=r"data\.clients: 121 clients for 120 participating users.*accepted: at most 120"
    ):
        people(partition=partition, clients=121)


def test_more_clients_than_different_users_are_refused():
    same = np.zeros_like(SPLIT.train.values)
    with pytest.raises(InputError, match=r"data\.clients: 5 clients, but .* 1 different"):
        people(replace(SPLIT, train=Ragged(SPLIT.train.offsets, same)))


@pytest.mark.parametrize("users", [4, 8, 20])
def test_a_handful_of_users_is_enough(users):
    few = Ragged(SPLIT.train.offsets[: users + 1], SPLIT.train.values[: SPLIT.train.offsets[users]])
    source = replace(MARKET, users=MARKET.users[:users])
    who = populate(source, replace(SPLIT, train=few), scenario.Data(clients=2, audit_users=2), 0)
    assert set(who.client_of) == {0, 1}
    assert who.audited.sum() == 2


def test_a_source_where_nobody_has_enough_items_is_refused():
    nothing = keep(SPLIT.train, np.zeros(len(SPLIT.train.values), dtype=bool))
    with pytest.raises(InputError, match=r"600 users of synthetic 0 have 2 training items or more.*accepted"):
        people(replace(SPLIT, train=nothing))


def test_a_client_that_ends_without_a_member_is_refused(monkeypatch):
    monkeypatch.setattr(population, "toss", lambda client_of, audited, seed: client_of != 3)
    with pytest.raises(InputError, match=r"data\.clients: client-3 has no user who trains.*accepted"):
        people()

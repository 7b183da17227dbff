"""The reserve: users who train in no audited training, drawn so that nothing else that is drawn is shifted."""

from dataclasses import fields, replace

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data import population
from pplr_audit.data.allocation import EVERYONE, allotted
from pplr_audit.data.dataset import Population
from pplr_audit.data.population import populate
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.ragged import keep
from pplr_audit.data.split import split
from pplr_audit.data.synthetic import market
from pplr_audit.errors import InputError

MARKET = market(scenario.Market(), 0)
SPLIT = split(MARKET, "leave_one_out")
PARTITIONS = ["kmeans", "random", "per_user", "attribute:gender"]
USERS = len(MARKET.users)


def people(seed: int = 0, **data: object) -> Population:
    return populate(MARKET, SPLIT, scenario.Data.model_validate(data), seed)


def prepared(seed: int = 0, **data: object) -> PrivateData:
    return prepare(scenario.Data.model_validate(data), seed)


def test_a_tenth_is_held_in_reserve_where_nothing_is_said() -> None:
    assert scenario.Data().reserve == 0.1
    assert people(partition="random").reserve.sum() == USERS / 10


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("share", [0.1, 0.35, 0.8])
def test_every_user_is_in_one_group_and_each_client_gives_its_share(partition: str, share: float) -> None:
    who = people(partition=partition, reserve=share)
    groups = who.groups()
    assert set(groups) == {"members", "non_members", "reserve"}
    assert (np.sum([*groups.values()], axis=0) == 1).all(), "all users of this market take part"
    if partition == "per_user":
        assert who.reserve.sum() == round(share * USERS)
        assert (who.client_of[who.reserve == 1] == -1).all()
        return
    for client in range(len(who.clients)):
        mine = who.client_of == client
        assert who.reserve[mine].sum() == round(share * mine.sum())
        assert (who.member[mine & (who.audited == 0) & (who.reserve == 0)] == 1).any(), "somebody always trains"


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("wanted", [100, 800])
def test_a_reserve_shifts_no_client_no_audit_and_no_coin_of_whoever_is_left(partition: str, wanted: int) -> None:
    without, having = (people(partition=partition, audit_users=wanted, reserve=share) for share in (0, 0.1))
    left = having.reserve == 0
    assert without.reserve.sum() == 0
    assert np.array_equal(having.audited[left], without.audited[left])
    assert np.array_equal(having.member[left], without.member[left])
    if partition != "per_user":
        assert having.clients == without.clients
        assert np.array_equal(having.client_of, without.client_of)


def test_where_enough_users_are_outside_the_audit_it_stays_as_large_as_asked() -> None:
    assert people(audit_users=100).audited.sum() == 100
    without, having = (people(audit_users=800, reserve=share) for share in (0, 0.1))
    for client in range(5):
        mine = having.client_of == client
        left = mine & (having.reserve == 0)
        taken = mine & (having.reserve == 1) & (without.audited == 1)
        assert having.audited[mine].sum() == without.audited[mine].sum() - taken.sum()
        small_enough = having.audited[left].sum() == left.sum() * 4 // 5
        assert small_enough or taken.sum() == having.reserve[mine].sum(), "else no other user was taken"


def test_no_user_of_the_reserve_is_audited_or_trains_and_the_seed_draws_it() -> None:
    one, same, other = (people(seed=seed) for seed in (0, 0, 1))
    assert not (one.reserve & (one.member | one.audited)).any()
    assert np.array_equal(one.reserve, same.reserve)
    assert not np.array_equal(one.reserve, other.reserve)


def test_each_client_draws_its_own_and_uniformly() -> None:
    client_of, audited = np.repeat(np.arange(2), 500), np.zeros(1000, dtype=bool)
    audited[::2] = True
    drawn = np.array([population._reserve(client_of, audited, 0.3, seed) for seed in range(200)])
    assert (drawn[:, :500].sum(axis=1) == 150).all()
    assert (drawn[:, 500:].sum(axis=1) == 150).all()
    assert (drawn[:, :500] != drawn[:, 500:]).any()
    outside = drawn[:, ~audited].mean(axis=0)
    # Each of 250 users outside the audit is drawn with the same probability; the bound is five deviations of 200 draws.
    expected = outside.mean()
    assert (abs(outside - expected) < 5 * np.sqrt(expected * (1 - expected) / 200)).all()


def test_users_with_too_few_items_are_in_no_group() -> None:
    wanted = np.ones(len(SPLIT.train.values), dtype=bool)
    wanted[: SPLIT.train.offsets[3]] = False
    who = populate(MARKET, replace(SPLIT, train=keep(SPLIT.train, wanted)), scenario.Data(reserve=0.8), 0)
    assert not np.any([group[:3] for group in who.groups().values()])


@pytest.mark.parametrize(
    ("data", "left"),
    [
        ({"reserve": 0.999}, r"none of the \d+ users of client-0"),
        ({"reserve": 0.96, "clients": 120, "partition": "random"}, "none of the 5 users of client-000"),
        ({"reserve": 0.999, "partition": "per_user"}, "1 to train"),
        ({"reserve": 0.996, "clients": 2, "partition": "random"}, "0 to audit"),
    ],
)  # fmt: skip
def test_a_reserve_that_leaves_too_few_is_refused_with_its_field_and_numbers(
    data: dict[str, object], left: str
) -> None:
    with pytest.raises(InputError) as refused:
        people(**data)
    message = str(refused.value)
    assert message.startswith(f"data.reserve: a share of {data['reserve']:g} takes ")
    assert f"of {USERS} participating users" in message
    assert "(accepted: a smaller share; 0 for no reserve)" in message
    assert "\n" not in message
    with pytest.raises(InputError, match=left):
        people(**data)
    people(**data | {"reserve": 0})


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, True, "half"])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(ValueError, match="reserve"):
        scenario.Data.model_validate({"reserve": share})


SETTINGS = [
    {},
    {"samples": "all", "history": 4},
    {"partition": "random", "clients": 3, "reserve": 0.3},
    {"partition": "attribute:gender"},
    {"partition": "per_user", "reserve": 0.5},
]


@pytest.mark.parametrize("data", SETTINGS)
def test_coins_tossed_again_give_what_preparing_with_them_would(
    data: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    private = prepared(**data)
    monkeypatch.setattr(population, "toss", lambda client_of, audited, seed: _again(client_of, audited, seed))
    wanted = prepared(**data)
    assert not np.array_equal(private.population.member, wanted.population.member)
    monkeypatch.setattr("pplr_audit.data.prepare.load", lambda *_: pytest.fail("data is read again"))
    again = private.with_members(wanted.population.member == 1)
    _same(again, wanted)
    _same(again.with_members(private.population.member == 1), private)


def test_coins_are_tossed_again_before_few_shot_and_pooling() -> None:
    private = prepared()
    pooled = allotted(private, shots=20, pooled=True, seed=0)
    _same(pooled.with_members(private.population.member == 1), private)
    again = allotted(pooled.with_members(pooled.population.member == 1), shots=20, pooled=True, seed=0)
    assert set(again.samples) == {EVERYONE}
    _same(again, pooled)


def test_a_mask_that_makes_a_member_of_the_reserve_is_refused_and_so_is_any_other_that_no_coins_give() -> None:
    private = prepared()
    who, members = private.population, private.population.member == 1
    always = int(np.flatnonzero((who.audited == 0) & members)[0])
    for user, said in ((int(private.reserve[0]), "is of the reserve"), (always, "is outside the audit")):
        mask = members.copy()
        mask[user] = not mask[user]
        with pytest.raises(InputError, match=rf"members: user {user} {said}"):
            private.with_members(mask)
    with pytest.raises(InputError, match=r"each of the 600 users expected, got bool of shape \(599,\)"):
        private.with_members(members[:-1])
    with pytest.raises(InputError, match="got int64"):
        private.with_members(who.member)


def test_a_mask_that_leaves_a_client_without_a_member_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    private = prepared(partition="random")
    # A client may be audited whole where its users are few.
    audited = np.where(private.population.reserve == 1, 0, 1)
    private = replace(private, population=replace(private.population, audited=audited))
    with pytest.raises(InputError, match=r"data\.clients: client-2 has no user who trains, of 5 clients and 600 part"):
        private.with_members((private.population.member == 1) & (private.population.client_of != 2))


def _again(client_of: np.ndarray, audited: np.ndarray, seed: int) -> np.ndarray:
    return ~audited | (np.random.default_rng([seed, 7]).random(len(audited)) < 0.5)


def _same(one: PrivateData, other: PrivateData) -> None:
    for field in fields(Population):
        assert np.array_equal(getattr(one.population, field.name), getattr(other.population, field.name)), field.name
    assert one.holders == other.holders
    assert np.array_equal(one.trained, other.trained)
    assert one.section == other.section
    assert list(one.samples) == list(other.samples)
    for client, samples in one.samples.items():
        its = other.samples[client]
        assert np.array_equal(samples.users, its.users)
        assert np.array_equal(samples.targets, its.targets)
        assert np.array_equal(samples.history.offsets, its.history.offsets)
        assert np.array_equal(samples.history.values, its.history.values)

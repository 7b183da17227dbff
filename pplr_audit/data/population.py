"""Clients of the users, the reserve, and the coins that decide membership before anything is trained."""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset, Population, Split
from pplr_audit.data.partition import ATTRIBUTE, assign, by_attribute
from pplr_audit.data.ragged import take
from pplr_audit.errors import InputError
from pplr_audit.scenario.seeds import derive

FEWEST = 2
"""TRAIN items a user needs to take part: a history of one and its next item."""
AUDITED_SHARE = (4, 5)
"""Largest share of participating users that is audited, four in five: the others fit the partition and always train."""


def populate(dataset: Dataset, split: Split, data: scenario.Data, seed: int) -> Population:
    """Clients, audited users, members and the reserve. Depends on TRAIN items and, for its draws, on ``seed`` alone.

    1. Users with fewer than two TRAIN items take no part: client -1, in none of the groups.
    2. Of the others ``data.audit_users`` are audited, but at most four fifths of them (rounded down), chosen uniformly.
    3. One rule, fitted on users outside the audit, gives every participating user a client (see ``partition.assign``).
    4. Each client tosses a fair coin for each of its audited users: heads trains, tails stays out. All others train.
    5. Each client draws its share ``data.reserve`` of its users (rounded), who then neither train nor are audited. They
       come from outside the audit, as long as at most four fifths of the client's users who are left are audited.

    The reserve is drawn last and by a generator of its own: the client, and for all who stay audited the coin, is the
    same with any reserve.

    ``per_user`` has no clients to fit: a user who trains is a client, and the reserve is drawn among all. An audited
    non-member there has client -1, as a user of the reserve has.

    Raises InputError if fewer than two users take part, if ``data.clients`` is more than the participating users
    outside the audit, if a client ends without a member, or if the reserve leaves too few users.
    """
    taking_part = np.flatnonzero(split.train.lengths >= FEWEST)
    if len(taking_part) < 2:
        raise InputError(
            f"data: of the {len(dataset.users)} users of {dataset.name} {len(taking_part)} have {FEWEST} training "
            "items or more (accepted: at least 2 such users)"
        )
    audited = _audited(len(taking_part), data.audit_users, seed)
    alone = data.partition == "per_user"
    clients, client_of = _clients(dataset, split, taking_part, ~audited, data, seed)
    member = toss(client_of, audited, seed)
    reserve = _reserve(np.zeros_like(client_of) if alone else client_of, audited, data.reserve, seed)
    _require_left(client_of, audited, reserve, () if alone else clients, data.reserve)
    drawn = Population(
        clients=clients,
        client_of=_spread(client_of, taking_part, len(dataset.users), -1),
        audited=_spread(audited & ~reserve, taking_part, len(dataset.users), 0),
        member=_spread(member & ~reserve, taking_part, len(dataset.users), 0),
        reserve=_spread(reserve, taking_part, len(dataset.users), 0),
    )
    return with_members(drawn, drawn.member == 1, alone=alone)


def with_members(population: Population, members: Bool[np.ndarray, "users"], *, alone: bool) -> Population:
    """Return the population with other coins: ``members`` is True for each user who trains.

    Args:
        alone: each user who trains is a client (``partition: per_user``).

    Raises:
        InputError: the mask has another shape, says of a user without a coin other than the population does (the
            reserve never trains), or leaves a client without a member.
    """
    if members.shape != population.member.shape or members.dtype != np.bool_:
        raise InputError(
            f"members: true or false for each of the {len(population.member)} users expected, got {members.dtype} of "
            f"shape {members.shape}"
        )
    wrong = np.flatnonzero((population.audited == 0) & (members != (population.member == 1)))
    if len(wrong):
        user = int(wrong[0])
        group = (
            "is of the reserve, which never trains" if population.reserve[user]
            else "is outside the audit and always trains" if population.member[user]
            else "has too few items to take part"
        )  # fmt: skip
        raise InputError(f"members: user {user} {group} (accepted: other coins for audited users only)")
    clients, client_of = population.clients, population.client_of
    if alone:
        clients = named(int(members.sum()))
        client_of = np.where(members, np.cumsum(members) - 1, -1)
    empty = np.flatnonzero(np.bincount(client_of[members], minlength=len(clients)) == 0)
    if len(empty) or not clients:
        who = clients[int(empty[0])] if len(empty) else "every client"
        raise InputError(
            f"data.clients: {who} has no user who trains, of {len(clients)} clients and "
            f"{sum(int(group.sum()) for group in population.groups().values())} participating users (accepted: fewer "
            "clients, or fewer data.audit_users)"
        )
    return replace(population, clients=clients, client_of=client_of, member=members.astype(np.int64))


def _clients(
    dataset: Dataset,
    split: Split,
    taking_part: Int[np.ndarray, "participating"],
    fitted: Bool[np.ndarray, "participating"],
    data: scenario.Data,
    seed: int,
) -> tuple[tuple[str, ...], Int[np.ndarray, "participating"]]:
    """The clients' names and the client of each participating user; of ``per_user`` everyone is one, without a name."""
    if data.partition == "per_user":
        return (), np.arange(len(taking_part))
    if data.partition.startswith(ATTRIBUTE):
        return by_attribute(dataset, taking_part, data.partition.removeprefix(ATTRIBUTE), data.clients)
    train = take(split.train, taking_part)
    client_of = assign(train, fitted, len(dataset.catalogue), data.clients, data.partition, seed)
    return named(data.clients), client_of


def toss(
    client_of: Int[np.ndarray, "users"], audited: Bool[np.ndarray, "users"], seed: int
) -> Bool[np.ndarray, "users"]:
    """Toss the coins: True for everyone outside the audit and for audited users whose client's coin fell heads."""
    member = ~audited
    mine = np.flatnonzero(audited)
    mine = mine[np.argsort(client_of[mine], kind="stable")]
    holders, starts = np.unique(client_of[mine], return_index=True)
    for client, users in zip(holders, np.split(mine, starts[1:]), strict=True):
        coin = np.random.default_rng(derive(seed, "coin", int(client)))
        member[users] = coin.random(len(users)) < 0.5
    return member


def _reserve(
    client_of: Int[np.ndarray, "users"], audited: Bool[np.ndarray, "users"], share: float, seed: int
) -> Bool[np.ndarray, "users"]:
    """Draw ``share`` of each client's users, rounded: of audited users only as many as would be more than four fifths
    of those who are left. So a client keeps a user outside the audit if it has one and keeps anybody.
    """
    reserve = np.zeros(len(audited), dtype=bool)
    for client in np.unique(client_of).tolist():
        mine = np.random.default_rng(derive(seed, "reserve", client)).permutation(np.flatnonzero(client_of == client))
        tossed, others = mine[audited[mine]], mine[~audited[mine]]
        count = round(share * len(mine))
        most = (len(mine) - count) * AUDITED_SHARE[0] // AUDITED_SHARE[1]
        over = min(count, max(0, len(tossed) - most))
        reserve[tossed[:over]] = True
        reserve[others[: count - over]] = True
    return reserve


def _require_left(
    client_of: Int[np.ndarray, "users"],
    audited: Bool[np.ndarray, "users"],
    reserve: Bool[np.ndarray, "users"],
    clients: tuple[str, ...],
    share: float,
) -> None:
    """Raises InputError where the reserve leaves no user in a client, or fewer than two to train or to audit."""
    if not reserve.any():
        return
    left = ~reserve
    had, has = (np.bincount(users, minlength=len(clients)) for users in (client_of, client_of[left]))
    few = [f"none of the {had[at]} users of {name}" for at, name in enumerate(clients) if had[at] and not has[at]]
    if left.sum() < 2:
        few.append(f"{left.sum()} to train")
    if (audited & left).sum() < 2 <= audited.sum():
        few.append(f"{(audited & left).sum()} to audit")
    if few:
        raise InputError(
            f"data.reserve: a share of {share:g} takes {reserve.sum()} of {len(reserve)} participating users and "
            f"leaves {few[0]} (accepted: a smaller share; 0 for no reserve)"
        )


def named(count: int) -> tuple[str, ...]:
    """``client-0`` and on; of more than ten all numbers are of one width.

    >>> named(11)[1]
    'client-01'
    """
    width = len(str(count - 1))
    return tuple(f"client-{number:0{width}d}" for number in range(count))


def _audited(participating: int, wanted: int, seed: int) -> Bool[np.ndarray, "users"]:
    chosen = np.zeros(participating, dtype=bool)
    rng = np.random.default_rng(derive(seed, "audit"))
    most = participating * AUDITED_SHARE[0] // AUDITED_SHARE[1]
    chosen[rng.choice(participating, min(wanted, most), replace=False)] = True
    return chosen


def _spread(
    values: Int[np.ndarray, "participating"] | Bool[np.ndarray, "participating"],
    users: Int[np.ndarray, "participating"],
    count: int,
    otherwise: Literal[-1, 0],
) -> Int[np.ndarray, "users"]:
    spread = np.full(count, otherwise, dtype=np.int64)
    spread[users] = values
    return spread

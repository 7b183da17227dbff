"""Clients of the users, and the coins that decide membership before anything is trained."""

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
    """Clients, audited users and members. Depends on TRAIN items alone, and on nothing but ``seed`` for its draws.

    1. Users with fewer than two TRAIN items take no part: client -1, not audited, no member.
    2. Of the others ``data.audit_users`` are audited, but at most four fifths of them (rounded down), chosen uniformly;
       ``audited`` of the result says how many.
    3. One rule, fitted on users outside the audit, gives every participating user a client (see ``partition.assign``).
    4. Each client tosses a fair coin for each of its audited users: heads trains, tails stays out. All others train.

    ``per_user`` has no clients to fit: a participating user is a client. One that stays out leaves no client behind, so
    an audited non-member there has client -1, and is told from a user who takes no part by ``audited``.

    Raises InputError if fewer than two users take part, if ``data.clients`` is more than the participating users
    outside the audit, or if a client ends without a member.
    """
    taking_part = np.flatnonzero(split.train.lengths >= FEWEST)
    if len(taking_part) < 2:
        raise InputError(
            f"data: of the {len(dataset.users)} users of {dataset.name} {len(taking_part)} have {FEWEST} training "
            "items or more (accepted: at least 2 such users)"
        )
    audited = _audited(len(taking_part), data.audit_users, seed)
    if data.partition == "per_user":
        member = toss(np.arange(len(taking_part)), audited, seed)
        client_of = np.where(member, np.cumsum(member) - 1, -1)
        count = int(member.sum())
        clients = named(count)
    else:
        if data.partition.startswith(ATTRIBUTE):
            clients, client_of = by_attribute(
                dataset, taking_part, data.partition.removeprefix(ATTRIBUTE), data.clients
            )
        else:
            train = take(split.train, taking_part)
            client_of = assign(train, ~audited, len(dataset.catalogue), data.clients, data.partition, seed)
            clients = named(data.clients)
        member = toss(client_of, audited, seed)
    count = len(clients)
    empty = np.flatnonzero(np.bincount(client_of[member], minlength=count) == 0)
    if len(empty) or not count:
        who = clients[int(empty[0])] if len(empty) else "every client"
        raise InputError(
            f"data.clients: {who} has no user who trains, of {count} clients and {len(taking_part)} participating "
            "users (accepted: fewer clients, or fewer data.audit_users)"
        )
    return Population(
        clients=clients,
        client_of=_spread(client_of, taking_part, len(dataset.users), -1),
        audited=_spread(audited, taking_part, len(dataset.users), 0),
        member=_spread(member, taking_part, len(dataset.users), 0),
    )


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

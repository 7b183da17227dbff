"""Partition of users into clients: one rule for every user, fitted on users outside the audit."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from pplr_audit.data.dataset import Dataset, Ragged
from pplr_audit.errors import InputError
from pplr_audit.scenario.seeds import derive

FACTORS = 8
"""Dimensions of the embeddings (fewer where there are fewer users or items)."""
FITTED = 50_000
"""Users that k-means looks at, at most, drawn by the seed; its centroids are means of thousands either way."""
RESTARTS = 5
"""Starts of k-means, of which the tightest is kept."""


ATTRIBUTE = "attribute:"
OTHER = "other"


def by_attribute(
    dataset: Dataset, users: Int[np.ndarray, "participating"], attribute: str, clients: int
) -> tuple[tuple[str, ...], Int[np.ndarray, "participating"]]:
    """One client for each value of an attribute, commonest first, and the client of each of ``users``.

    Where there are more values than ``clients``, the rarer ones share the last client. A user of whom the source does
    not say the value has the value ``unknown``. The rule looks at nothing else, so it is one for all users.

    Raises InputError for an attribute that the source does not have, or of which all users have one value.
    """
    if attribute not in dataset.attributes:
        known = ", ".join(dataset.attributes) or "none: it has no attributes"
        raise InputError(f"data.partition: {dataset.name} has no attribute {attribute!r} (accepted: {known})")
    of_all = dataset.attributes[attribute]
    of_users = [of_all[user] or "unknown" for user in users.tolist()]
    counts = Counter(of_users)
    values = sorted(counts, key=lambda value: (-counts[value], value))
    if len(values) < 2:
        raise InputError(
            f"data.partition: all users of {dataset.name} have the same {attribute}, {values[0]!r} (accepted: an "
            "attribute with two values or more)"
        )
    alone = values if len(values) <= clients else values[: clients - 1]
    shared = [] if alone is values else [OTHER]
    place = {value: at for at, value in enumerate(alone)}
    return client_names(attribute, [*alone, *shared]), np.array([place.get(value, len(alone)) for value in of_users])


def client_names(attribute: str, values: Sequence[str]) -> tuple[str, ...]:
    """Names that can stand in a path: letters, digits and a few signs; a number where two would be the same.

    >>> client_names("age", ["25-34", "50+/x", "50+ x"])
    ('age-25-34', 'age-50--x', 'age-50--x-2')
    """
    names: list[str] = []
    for value in values:
        name = plain = re.sub(r"[^0-9A-Za-z._-]", "-", f"{attribute}-{value}")[:40]
        number = 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return tuple(names)


def assign(
    train: Ragged,
    fitted: Bool[np.ndarray, "users"],
    items: int,
    clients: int,
    how: str,
    seed: int,
) -> Int[np.ndarray, "users"]:
    """The client, in [0, clients), of each row of ``train``; ``items`` is the size of the catalogue.

    ``kmeans`` (PPLR: k-means on the user embeddings of a matrix factorization): item factors are the right singular
    vectors of the TRAIN matrix of the ``fitted`` users, both margins scaled; a user, any user, is the sum of the
    weighted factors of the own TRAIN items, scaled to length 1; the client is the nearest of the centroids that
    k-means finds among the ``fitted`` users.
    ``random``: everyone is dealt out in a random order, so that sizes differ by one at most.

    Nothing depends on which users train: neither argument says who is a member.
    Raises InputError if there are more clients than fitted users, or than different tastes among them.
    """
    outside = int(fitted.sum())
    if clients > outside:
        raise InputError(
            f"data.clients: {clients} clients for {outside} participating users outside the audit "
            f"(accepted: at most {outside}, or fewer data.audit_users)"
        )
    if how == "random":
        turn: np.ndarray = np.random.default_rng(derive(seed, "partition")).permutation(len(train))
        return turn % clients
    # Sums in another order on another number of threads would make other clients of the same seed.
    with threadpool_limits(1):
        return _by_taste(train, fitted, items, clients, outside, seed)


def _by_taste(
    train: Ragged, fitted: Bool[np.ndarray, "users"], items: int, clients: int, outside: int, seed: int
) -> Int[np.ndarray, "users"]:
    """The nearest of the centroids that k-means finds among the users who may be known."""
    points = _embeddings(train, fitted, items, seed)
    known = points[fitted]
    if len(known) > FITTED:
        known = known[
            np.random.default_rng(derive(seed, "partition", "fitted")).choice(len(known), FITTED, replace=False)
        ]
    different = len(np.unique(known, axis=0))
    if different < clients:
        raise InputError(
            f"data.clients: {clients} clients, but the {outside} participating users outside the audit have only "
            f"{different} different tastes (accepted: that many at most)"
        )
    model = KMeans(clients, n_init=RESTARTS, random_state=derive(seed, "partition") % 2**32)
    centroids = model.fit(known).cluster_centers_
    # One rule for all, the fitted users among them: not the labels that k-means gave them, but the nearest centroid.
    nearest: np.ndarray = ((centroids**2).sum(axis=1) - 2 * points @ centroids.T).argmin(axis=1)
    return nearest


def _embeddings(
    train: Ragged, fitted: Bool[np.ndarray, "users"], items: int, seed: int
) -> Float[np.ndarray, "users factors"]:
    ones = np.ones(len(train.values), dtype=np.float32)
    matrix = csr_array((ones, train.values.astype(np.int32), train.offsets), shape=(len(train), items))
    known = matrix[np.flatnonzero(fitted)]
    # Dividing by the root of both margins keeps the popular items and the busy users from being the first factor.
    weight = (1 / np.sqrt(np.maximum(known.sum(axis=0), 1))).astype(np.float32)
    busy = (1 / np.sqrt(np.maximum(known.sum(axis=1), 1))).astype(np.float32)
    known.data *= weight[known.indices] * np.repeat(busy, np.diff(known.indptr))
    count = min(FACTORS, *known.shape)
    _, _, factors = randomized_svd(known, count, random_state=derive(seed, "partition", "factors") % 2**32)
    points = matrix @ (weight[:, None] * factors.T)
    # A user of items that nobody outside the audit has stays at the origin.
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    scaled: np.ndarray = points / np.where(lengths > 0, lengths, 1)
    return scaled

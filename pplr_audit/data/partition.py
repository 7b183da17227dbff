"""Which client holds a user: one rule for every user, fitted on users outside the audit."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd

from pplr_audit.data.dataset import Ragged
from pplr_audit.errors import InputError
from pplr_audit.seeds import derive

FACTORS = 8
"""Dimensions of the embeddings (fewer where there are fewer users or items)."""
RESTARTS = 5
"""Starts of k-means, of which the tightest is kept."""


def assign(
    train: Ragged,
    fitted: Bool[np.ndarray, "users"],
    items: int,
    clients: int,
    how: Literal["kmeans", "random"],
    seed: int,
) -> Int[np.ndarray, "users"]:
    """The client, in [0, clients), of each row of ``train``; ``items`` is the size of the catalogue.

    ``kmeans`` (PPLR: k-means on the user embeddings of a matrix factorisation): item factors are the right singular
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
    points = _embeddings(train, fitted, items, seed)
    known = points[fitted]
    if len(np.unique(known, axis=0)) < clients:
        raise InputError(
            f"data.clients: {clients} clients, but the {outside} participating users outside the audit have only "
            f"{len(np.unique(known, axis=0))} different tastes (accepted: that many at most)"
        )
    model = KMeans(clients, n_init=RESTARTS, random_state=derive(seed, "partition") % 2**32)
    centroids = model.fit(known).cluster_centers_
    # One rule for all, the fitted users among them: not the labels that k-means gave them, but the nearest centroid.
    distances = ((points[:, None, :] - centroids[None]) ** 2).sum(axis=2)
    nearest: np.ndarray = distances.argmin(axis=1)
    return nearest


def _embeddings(
    train: Ragged, fitted: Bool[np.ndarray, "users"], items: int, seed: int
) -> Float[np.ndarray, "users factors"]:
    ones = np.ones(len(train.values))
    matrix = csr_array((ones, train.values, train.offsets), shape=(len(train), items))
    known = matrix[np.flatnonzero(fitted)]
    # Dividing by the root of both margins keeps the popular items and the busy users from being the first factor.
    weight = 1 / np.sqrt(np.maximum(known.sum(axis=0), 1))
    known = known.multiply(weight).multiply(1 / np.sqrt(np.maximum(known.sum(axis=1), 1))[:, None])
    count = min(FACTORS, *known.shape)
    _, _, factors = randomized_svd(csr_array(known), count, random_state=derive(seed, "partition", "factors") % 2**32)
    points = matrix.multiply(weight).tocsr() @ factors.T
    # A user of items that nobody outside the audit has stays at the origin.
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    scaled: np.ndarray = points / np.where(lengths > 0, lengths, 1)
    return scaled

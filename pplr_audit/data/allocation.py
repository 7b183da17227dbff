"""Allocation of the samples that a strategy trains on: few-shot subsets, and everybody's data in one place."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prepare import PrivateData
from pplr_audit.data.samples import Samples
from pplr_audit.scenario.seeds import derive

EVERYONE = "everyone"
"""The one client that holds all samples where a strategy pools them."""


def allotted(private: PrivateData, *, shots: int | None, pooled: bool, seed: int) -> PrivateData:
    """Return the data with ``shots`` samples left to train on, at one place where they are ``pooled``.

    Pooling comes last, so that a pooled training has the very samples of the federated ones.
    """
    samples, trained = private.samples, private.trained
    if shots is not None:
        kept = few(samples, shots, seed)
        samples = {client: samples[client].take(rows) for client, rows in kept.items() if len(rows)}
        trained = trained & _last_kept(private, kept)
    holders = {client: private.holders[client] for client in samples}
    if pooled:
        holders = dict.fromkeys(samples, EVERYONE)
        samples = {EVERYONE: joined(samples)}
    return replace(private, samples=samples, trained=trained, holders=holders)


def few(samples: Mapping[str, Samples], shots: int, seed: int) -> dict[str, Int[np.ndarray, "kept"]]:
    """The rows that each client trains on, in their old order: ``shots`` in all, or all where there are no more.

    Each client gives its share (largest remainders, ties by name) and draws its rows with a seed of its own.
    """
    names = sorted(samples)
    sizes = np.array([len(samples[name]) for name in names])
    exact = sizes * min(1.0, shots / sizes.sum())
    quota = np.floor(exact + 1e-9).astype(np.int64)
    missing = min(shots, int(sizes.sum())) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    kept = {}
    for name, size, count in zip(names, sizes, quota, strict=True):
        drawn = np.random.default_rng(derive(seed, "shots", name)).permutation(size)[:count]
        kept[name] = np.sort(drawn)
    return {name: kept[name] for name in samples}


def _last_kept(private: PrivateData, kept: Mapping[str, Int[np.ndarray, "kept"]]) -> Bool[np.ndarray, "users"]:
    """True for each user whose last training sample, the membership candidate, is kept."""
    result = np.zeros(len(private.trained), dtype=bool)
    for client, rows in kept.items():
        users = private.samples[client].users
        last = np.append(users[1:] != users[:-1], True)  # samples of one user stand together, in time order
        result[users[rows[last[rows]]]] = True
    return result


def joined(samples: Mapping[str, Samples]) -> Samples:
    """One client's samples after the other's, in alphabetical order."""
    parts = [samples[name] for name in sorted(samples)]
    lengths = np.concatenate([part.history.lengths for part in parts])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    history = Ragged(offsets, np.concatenate([part.history.values for part in parts]))
    return Samples(
        np.concatenate([part.users for part in parts]), history, np.concatenate([part.targets for part in parts])
    )

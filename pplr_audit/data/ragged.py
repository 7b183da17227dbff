"""Ragged rows put together and taken apart, without a Python loop over their values."""

import numpy as np
from jaxtyping import Bool, Int

from pplr_audit.data.dataset import Ragged


def group(rows: Int[np.ndarray, "total"], values: Int[np.ndarray, "total"], count: int) -> Ragged:
    """``count`` rows, of which row ``rows[i]`` holds ``values[i]``; within a row the order given is kept.

    >>> group(np.array([1, 0, 1]), np.array([7, 8, 9]), 3).values.tolist()
    [8, 7, 9]
    """
    offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=count)))).astype(np.int64)
    return Ragged(offsets, values[np.argsort(rows, kind="stable")].astype(np.int64))


def row_of(ragged: Ragged) -> Int[np.ndarray, "total"]:
    """The row that each value stands in."""
    return np.repeat(np.arange(len(ragged)), ragged.lengths)


def keep(ragged: Ragged, wanted: Bool[np.ndarray, "total"]) -> Ragged:
    """The same rows with only the ``wanted`` values; a row may end empty."""
    before = np.concatenate(([0], np.cumsum(wanted)))
    return Ragged(before[ragged.offsets].astype(np.int64), ragged.values[wanted])


def take(ragged: Ragged, rows: Int[np.ndarray, "taken"]) -> tuple[Ragged, Int[np.ndarray, "kept"]]:
    """Only these rows, in this order, and where in ``ragged.values`` each of their values stood."""
    lengths = ragged.lengths[rows]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    shift = ragged.offsets[rows] - offsets[:-1]
    positions = np.arange(offsets[-1]) + np.repeat(shift, lengths)
    return Ragged(offsets, ragged.values[positions]), positions

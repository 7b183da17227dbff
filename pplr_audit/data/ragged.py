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


def slices(source: Ragged, starts: Int[np.ndarray, "rows"], stops: Int[np.ndarray, "rows"]) -> Ragged:
    """Rows cut out of the flat values: row i is ``source.values[starts[i]:stops[i]]``.

    >>> slices(Ragged(np.array([0, 5]), np.arange(5)), np.array([1, 0]), np.array([3, 1])).values
    array([1, 2, 0])
    """
    offsets, positions = _positions(starts, stops - starts)
    return Ragged(offsets, source.values[positions])


def take(ragged: Ragged, rows: Int[np.ndarray, "taken"]) -> Ragged:
    """Only these rows, in this order."""
    return slices(ragged, ragged.offsets[:-1][rows], ragged.offsets[1:][rows])


def places(ragged: Ragged, rows: Int[np.ndarray, "taken"]) -> Int[np.ndarray, "kept"]:
    """Return the places in ``ragged.values`` of the values of these rows, row after row."""
    return _positions(ragged.offsets[:-1][rows], ragged.lengths[rows])[1]


def _positions(
    starts: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"]
) -> tuple[Int[np.ndarray, "bounds"], Int[np.ndarray, "kept"]]:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return offsets, np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)

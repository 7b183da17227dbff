"""Recorded tensors on disk until they are asked for: what crossed at every layer is more than memory should hold."""

import os
import tempfile
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pplr_audit.errors import NO_SPACE, RunError
from pplr_audit.threat_model.view import Record

_Held = tuple[Record, int, tuple[int, ...], np.dtype]


class Spool:
    """Records under keys, in the order in which they came. Its file has no name and goes with the process.

    Args:
        folder: where there is room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._size = folder, 0
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # as long as the spool itself
        self._held: dict[Hashable, list[_Held]] = {}

    def put(self, key: Hashable, record: Record) -> None:
        """Keep a record. Raises RunError where there is no room for it."""
        values = record.tensor.detach().contiguous().numpy()
        at, rest = self._size, memoryview(values.tobytes())
        self._size += len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise RunError(
                f"{self._folder}: what crossed cannot be kept: {error.strerror}; what was there is whole, the same"
                " command continues"
            ) from None
        bare = replace(record, tensor=torch.empty(0))
        self._held.setdefault(key, []).append((bare, at, values.shape, values.dtype))

    @property
    def keys(self) -> Collection[Hashable]:
        """The keys under which there is something."""
        return self._held.keys()

    def records(self, key: Hashable) -> list[Record]:
        """The records of a key; nobody else has their tensors, so they may be changed."""
        return [self._read(entry) for entry in self._held.get(key, [])]

    def each(self, key: Hashable) -> Iterator[Record]:
        """The records of a key, one at a time."""
        return (self._read(entry) for entry in self._held.get(key, []))

    def stream(self, key: Hashable, rows: Sequence[int]) -> Iterator[Record]:
        """The first record of some rows of a key, in this order, one at a time."""
        held = {entry[0].row: entry for entry in reversed(self._held.get(key, []))}
        return (self._read(held[row]) for row in rows)

    def _read(self, entry: _Held) -> Record:
        bare, at, shape, kind = entry
        size = kind.itemsize * int(np.prod(shape))
        values = np.frombuffer(bytearray(os.pread(self._file.fileno(), size, at)), kind)
        return replace(bare, tensor=torch.from_numpy(values.reshape(shape)))

"""Recorded tensors on disk until they are asked for: what crossed at every layer is more than memory should hold."""

import os
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pplr_audit.views import Record

_Held = tuple[Record, int, tuple[int, ...], np.dtype]


class Spool:
    """Records under keys, in the order in which they came. Its file has no name and goes with the process.

    Args:
        folder: where there is room.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # as long as the spool itself
        self._held: dict[Hashable, list[_Held]] = {}

    def put(self, key: Hashable, record: Record) -> None:
        """Keep a record."""
        values = record.tensor.detach().contiguous().numpy()
        at = self._file.seek(0, os.SEEK_END)
        self._file.write(values.tobytes())
        bare = replace(record, tensor=torch.empty(0))
        self._held.setdefault(key, []).append((bare, at, values.shape, values.dtype))

    def records(self, key: Hashable) -> list[Record]:
        """The records of a key; nobody else has their tensors, so they may be changed."""
        return [self._read(entry) for entry in self._held.get(key, [])]

    def stream(self, key: Hashable, rows: Sequence[int]) -> Iterator[Record]:
        """The records of some rows of a key, in this order, one at a time."""
        held = {entry[0].row: entry for entry in self._held.get(key, [])}
        return (self._read(held[row]) for row in rows)

    def _read(self, entry: _Held) -> Record:
        bare, at, shape, kind = entry
        self._file.flush()
        size = kind.itemsize * int(np.prod(shape))
        values = np.frombuffer(bytearray(os.pread(self._file.fileno(), size, at)), kind)
        return replace(bare, tensor=torch.from_numpy(values.reshape(shape)))

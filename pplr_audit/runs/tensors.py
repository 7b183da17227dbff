"""Tensors to bytes and back, by safetensors: the same tensors give the same bytes, and nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pplr_audit.runs.parsing import parsed, shaped, understood

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, Any]

_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors reads no longer one."""


def pack(tensors: "Mapping[str, Array | Tensor]", metadata: Mapping[str, str]) -> bytes:
    """The bytes of one safetensors file. NumPy arrays and torch tensors may be mixed; shapes and types are kept."""
    import numpy as np

    if all(isinstance(value, np.ndarray) for value in tensors.values()):
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        return _sorted_metadata(save(arrays, dict(metadata) or None))
    import torch
    from safetensors.torch import save as save_torch

    # A copy, because safetensors refuses tensors that share memory, and a slice would drag its whole storage along.
    copies = {name: torch.as_tensor(value).detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return _sorted_metadata(save_torch(copies, dict(metadata) or None))


def unpack(data: bytes, file: Path | str) -> "dict[str, Tensor]":
    """The torch tensors in ``data``, on the CPU. Raises InputError that names ``file`` where there are none to read."""
    from safetensors.torch import load

    with _readable(data, file):
        tensors: dict[str, Tensor] = load(data)
    return tensors


def unpack_arrays(data: bytes, file: Path | str) -> "dict[str, Array]":
    """The NumPy arrays in ``data``. Raises InputError, also for a type that NumPy lacks (bfloat16)."""
    from safetensors.numpy import load

    with _readable(data, file):
        arrays: dict[str, Array] = load(data)
    return arrays


def unpack_metadata(data: bytes, file: Path | str) -> dict[str, str]:
    """The strings that were written beside the tensors. Raises InputError that names ``file``."""
    return shaped(_header(data, file).get("__metadata__", {}), dict[str, str], file)


def _header(data: bytes, file: Path | str) -> dict[str, Any]:
    """The names, types and places of the tensors, and the metadata."""
    size = int.from_bytes(data[:8], "little")
    with understood(file):
        if len(data) < 8 or size > min(len(data) - 8, _LARGEST_HEADER):
            raise ValueError("its header is cut off")
    return parsed(data[8 : 8 + size], file)


@contextmanager
def _readable(data: bytes, file: Path | str) -> Iterator[None]:
    """safetensors checks types, sizes and places before it takes memory; what it refuses is said of the file."""
    from safetensors import SafetensorError

    _header(data, file)
    with understood(file):
        try:
            yield
        except SafetensorError as error:
            raise ValueError(error) from error


def _sorted_metadata(data: bytes) -> bytes:
    """Put the metadata in order: safetensors writes it in an order that changes from call to call."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if "__metadata__" not in header:
        return data
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]

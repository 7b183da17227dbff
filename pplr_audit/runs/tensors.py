"""Tensors to bytes and back, by safetensors: the same tensors give the same bytes, and nothing is ever unpickled."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, Any]


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


def unpack(data: bytes) -> "dict[str, Tensor]":
    """The torch tensors in ``data``, on the CPU."""
    from safetensors.torch import load

    tensors: dict[str, Tensor] = load(data)
    return tensors


def unpack_arrays(data: bytes) -> "dict[str, Array]":
    """The NumPy arrays in ``data``; a type that NumPy lacks (bfloat16) is not readable this way."""
    from safetensors.numpy import load

    arrays: dict[str, Array] = load(data)
    return arrays


def unpack_metadata(data: bytes) -> dict[str, str]:
    """The strings that were written beside the tensors."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


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

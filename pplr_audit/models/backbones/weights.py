"""The weights of a model folder: compared by their headers with what config.json describes, then read.

Nothing is built before the headers agree: neither a config that asks for more than the files hold, nor files that hold
something else, cost more than a look. The tensors are handed to the library by name; it opens no file itself.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from pplr_audit.errors import InputError, visible
from pplr_audit.models.architectures import Architecture
from pplr_audit.models.backbones import transformers_api as library
from pplr_audit.models.backbones.config import one_line
from pplr_audit.models.backbones.folder import INDEX, ModelFolder

READ = ("F64", "F32", "F16", "BF16")
"""The number formats that weights are read in."""
MOST = 100_000
"""Tensors in one file; the largest published models have a few thousand."""
BUFFERS = 1 << 30
"""Bytes of tables that a model may make for itself, such as GPT-2's mask of all its positions."""
OLD = {"gamma": "weight", "beta": "bias"}
"""Names that the first BERTs had for the parts of a norm."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, by the file's header."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str


def load_model(folder: ModelFolder, kind: Architecture, config: PreTrainedConfig) -> PreTrainedModel:
    """The model in float32.

    Raises:
        InputError: a file is missing or no safetensors, a tensor is missing, misshapen or unexpected, or a value is
            not finite.
    """
    stored = _stored(folder)
    shape = _outlined(folder, kind, config, stored)
    wanted = _matched(folder, kind, shape, stored)
    try:
        model = library.of_tensors(config, _tensors(wanted))
    except Exception as error:  # whatever the layer that fits least raises
        raise InputError(f"{folder.path}: no model can be built from config.json: {one_line(error)}") from None
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{folder.path}: values that are not finite in *.safetensors, tensor {name}")
    return model


def _stored(folder: ModelFolder) -> dict[str, Stored]:
    """Every tensor in the folder's weight files, by its name there."""
    found: dict[str, Stored] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt") as opened:  # which checks the header against the file's length
                names = opened.keys()
                if len(names) > MOST:
                    raise InputError(f"{path}: holds {len(names)} tensors (accepted: up to {MOST})")
                for name in names:
                    part = opened.get_slice(name)
                    if name in found:
                        raise InputError(f"{folder.path}: tensor {visible(name[:120])} is in two files")
                    found[name] = Stored(path, name, tuple(part.get_shape()), part.get_dtype())
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read as safetensors: {one_line(error)}") from None
    return found


def _files(folder: ModelFolder) -> list[Path]:
    whole = folder.file("model.safetensors")
    if whole is not None:
        return [whole]
    index, place = folder.read_json(INDEX), folder.path / INDEX
    if index is None:
        raise folder.without_weights()
    listed = index.get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise InputError(f"{place}: no weight_map can be read")
    paths = []
    for name in sorted(set(listed.values())):
        path = folder.file(name) if Path(name).name == name else None
        if path is None:
            raise InputError(f"{place}: {visible(name[:120])!r} is no file of this folder")
        paths.append(path)
    return paths


def _outlined(
    folder: ModelFolder, kind: Architecture, config: PreTrainedConfig, stored: Mapping[str, Stored]
) -> PreTrainedModel:
    """The model without values, of which only sizes are known."""
    said, held = config.num_hidden_layers, _layers(kind, stored)
    if said != held:
        raise InputError(
            f"{folder.path}: config.json says {said} blocks (num_hidden_layers), and *.safetensors holds {held}"
        )
    try:
        with torch.device("meta"):
            model = library.from_config(config)
    except Exception as error:  # a config with impossible sizes ends in whatever the layer built first raises
        raise InputError(f"{folder.path}: no model can be built from config.json: {one_line(error)}") from None
    tables = sum(table.numel() * table.element_size() for table in model.buffers())
    if tables > BUFFERS:
        raise InputError(f"{folder.path / 'config.json'}: the model needs {tables:,} bytes beside its weights")
    return model


def _layers(kind: Architecture, stored: Iterable[str]) -> int:
    """Count the blocks of the tensors, by the highest number in their names."""
    numbered = re.compile(rf"(?:^|\.){re.escape(kind.blocks)}\.(\d{{1,9}})\.")
    return max((int(found[1]) + 1 for found in map(numbered.search, stored) if found), default=0)


def _matched(
    folder: ModelFolder, kind: Architecture, model: PreTrainedModel, stored: Mapping[str, Stored]
) -> dict[str, Stored]:
    """Return the stored tensor for each tensor of the model. Raises InputError for one too many or too few."""
    prefix = model.base_model_prefix + "."
    expected: dict[str, Tensor] = model.state_dict(keep_vars=True)
    ours = {name.removeprefix(prefix): name for name in expected}
    found: dict[str, Stored] = {}
    unexpected = []
    for name, tensor in stored.items():
        short = name.removeprefix(prefix)
        stem, _, last = short.rpartition(".")
        short = short if short in ours or last not in OLD else f"{stem}.{OLD[last]}"
        if short in ours:
            if ours[short] in found:
                raise InputError(f"{folder.path}: two tensors in *.safetensors are {ours[short]}")
            found[ours[short]] = tensor
        elif short.split(".")[0] not in kind.heads and not f".{short}".endswith(kind.constants or ("\0",)):
            unexpected.append(name)
    missing = [name for group in _tied(expected) if not found.keys() & group for name in sorted(group)]
    misshapen = [name for name, tensor in found.items() if tensor.shape != tuple(expected[name].shape)]
    for word, names in (("missing", missing), ("misshapen", misshapen), ("unexpected", unexpected)):
        if names:
            first = sorted(names)[0]
            raise InputError(
                f"{folder.path}: {len(names)} tensors are {word} in *.safetensors, the first: {visible(first[:120])}"
                + (f" {list(found[first].shape)}, expected {list(expected[first].shape)}" if names is misshapen else "")
            )
    other = [tensor for tensor in found.values() if tensor.kind not in READ]
    if other:
        raise InputError(
            f"{folder.path}: tensor {visible(other[0].name[:120])} is of type {other[0].kind} (accepted:"
            f" {', '.join(READ)}); quantized weights are not read"
        )
    return found


def _tied(expected: Mapping[str, Tensor]) -> list[set[str]]:
    """The names of one parameter together: a value for one of them is enough."""
    groups: dict[int, set[str]] = {}
    for name, tensor in expected.items():
        groups.setdefault(id(tensor), set()).add(name)
    return list(groups.values())


def _tensors(wanted: Mapping[str, Stored]) -> dict[str, Tensor]:
    by_file: dict[Path, list[str]] = {}
    for name, tensor in wanted.items():
        by_file.setdefault(tensor.file, []).append(name)
    found: dict[str, Tensor] = {}
    for path, names in by_file.items():
        with safe_open(path, framework="pt") as opened:
            for name in names:  # copied, or the model would change with its file, which is mapped into memory
                found[name] = opened.get_tensor(wanted[name].name).to(torch.float32, copy=True)
    return found

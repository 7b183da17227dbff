"""A recording of another system, read and checked as a whole before anything is written or attacked."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pplr_audit.audit.imported.manifest import (
    ADAPTERS,
    LONGEST_NAME,
    MANIFEST,
    OBSERVATIONS,
    TRUTH,
    Manifest,
    TrueRow,
    TruthFile,
    bytes_of,
    said_of,
    understood_as,
)
from pplr_audit.audit.imported.updates import require_fit, require_whole
from pplr_audit.audit.plan import WITHOUT_TRUNK
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.runs.files import read_file
from pplr_audit.runs.tensors import unpack
from pplr_audit.threat_model.adversaries import readable_by
from pplr_audit.threat_model.channels import OF_ADAPTERS, Channel

ACCEPTED = ("float32", "float64", "float16", "bfloat16")
"""Types of tensors."""
Parts = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Recording:
    """A recording, its model, and the truth about it where it is known."""

    manifest: Manifest
    text: str
    """The manifest as it was read."""
    digest: str
    """SHA-256 over the manifest, which holds those of all files, and over the model."""
    model: Recommender
    sequences: Mapping[int, Tensor]
    """Tensor that crossed of a row at the cut; empty for updates."""
    updates: Mapping[int, Mapping[str, Tensor]]
    """Tensors by name that crossed of a row; empty for sequences."""
    adapters: Parts
    """Adapters that the adversary has, by client."""
    truth: Mapping[int, TrueRow] | None
    prompts: Mapping[int, list[Prompt]]
    """The true sequences of each row as the template has them; empty without a truth."""

    @property
    def channel(self) -> Channel:
        return Channel(self.manifest.channel)

    @property
    def newest(self) -> int:
        """The last round; of updates it is the one that is asked about."""
        return max(each.round for each in self.manifest.observations)

    @cached_property
    def clients(self) -> Mapping[int, str]:
        """Each row's client, as the recording or else the truth says; empty where neither does."""
        told = {row: true.client for row, true in (self.truth or {}).items()}
        return {each.row: each.client or told.get(each.row) or "" for each in self.manifest.observations}


def read(folder: Path) -> Recording:
    """Read a recording.

    Raises InputError, one line that names the file and the field, for whatever is missing, altered, of another shape or
    type, or does not fit the model.
    """
    file = folder / MANIFEST
    with said_of(file):
        data = read_file(folder, MANIFEST)
    manifest = understood_as(Manifest, data, file)
    for field, wrong in _wrong(manifest):
        raise InputError(f"{file}: {field}: {wrong}")
    for name in (TRUTH, ADAPTERS):
        if (folder / name).exists() and name not in manifest.files:
            raise InputError(f"{file}: files: {name} lies in the folder and is not listed")
    held: dict[str, bytes] = {name: bytes_of(folder, name, listed) for name, listed in manifest.files.items()}
    tensors: dict[str, dict[str, Tensor]] = {
        name: _tensors(held[name], folder / name) for name in (OBSERVATIONS, ADAPTERS) if name in held
    }
    truth = understood_as(TruthFile, held[TRUTH], folder / TRUTH) if TRUTH in held else None
    titles = tuple(manifest.catalogue)
    ids = tuple(str(item) for item in range(len(titles)))
    catalogue = Catalogue(ids, titles, ("",) * len(titles))
    try:
        model = build(
            manifest.model, catalogue, history=manifest.history, seed=manifest.seed, training=manifest.training
        )
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if model.parts.front + model.parts.back == model.layers and manifest.channel not in WITHOUT_TRUNK:
        raise InputError(f"{file}: model.cut: no block is left for the server, so no {manifest.channel} cross")
    sequences, updates = _observed(manifest, model, tensors[OBSERVATIONS], folder / OBSERVATIONS)
    adapters = _adapters(manifest, model, tensors.get(ADAPTERS, {}), folder / ADAPTERS)
    rows, prompts = (None, {}) if truth is None else _true(manifest, model, truth, folder / TRUTH)
    digest = hashlib.sha256(data + model.digest.encode()).hexdigest()
    return Recording(manifest, data.decode(), digest, model, sequences, updates, adapters, rows, prompts)


def _wrong(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield fields that are right one by one and wrong together, with what is wrong."""
    for name in ("backbone", "cut"):
        if name not in manifest.model.model_fields_set:
            yield f"model.{name}", "is required"
    if manifest.model.recommender != "bigrec":
        yield "model.recommender", f"{manifest.model.recommender} cannot be imported (accepted: bigrec)"
    if OBSERVATIONS not in manifest.files:
        yield "files", f"{OBSERVATIONS} is missing"
    if manifest.channel not in readable_by(manifest.adversary):
        yield "channel", f"{manifest.adversary} does not see {manifest.channel}"
    of_updates, rows, first = manifest.channel in OF_ADAPTERS, set[int](), manifest.observations[0].round
    for place, each in enumerate(manifest.observations):
        at = f"observations[{place}]"
        if each.row in rows:
            yield f"{at}.row", f"{each.row} stands there twice"
        rows.add(each.row)
        if each.client not in manifest.clients and not (of_updates and not each.client):
            yield f"{at}.client", f"{each.client!r} is not among clients"
        if of_updates == (each.length is not None):
            yield f"{at}.length", "is for sequences, and an update has none" if of_updates else "is required"
        if not of_updates and each.round != first:
            yield f"{at}.round", f"{each.round}, where the first is of {first} (sequences of one round each recording)"


def _tensors(data: bytes, file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, each of finite numbers, in float32."""
    with said_of(file):
        found = unpack(data, file)
    for name, tensor in found.items():
        if len(name) > LONGEST_NAME:
            raise InputError(f"{file}: a tensor has a name of {len(name):,} characters (accepted: {LONGEST_NAME})")
        if _type(tensor) not in ACCEPTED:
            raise InputError(f"{file}: {name!r}: {_type(tensor)} (accepted: {', '.join(ACCEPTED)})")
        if not tensor.numel() or not bool(torch.isfinite(tensor.float()).all()):
            raise InputError(f"{file}: {name!r}: is empty, or holds numbers that are not finite")
    return {name: tensor.float() for name, tensor in found.items()}


def _observed(
    manifest: Manifest, model: Recommender, tensors: Mapping[str, Tensor], file: Path
) -> tuple[dict[int, Tensor], dict[int, dict[str, Tensor]]]:
    """Return sequences and updates by row, one of both empty."""
    hidden = int(model.whole.model.config.hidden_size)
    sequences, updates, known = dict[int, Tensor](), dict[int, dict[str, Tensor]](), set[str]()
    if manifest.channel not in OF_ADAPTERS:
        for each in manifest.observations:
            key, shape = str(each.row), (each.length, hidden)
            if key not in tensors:
                raise InputError(f"{file}: {key!r} is missing, which {MANIFEST} lists as a row")
            if tuple(tensors[key].shape) != shape:
                raise InputError(
                    f"{file}: {key!r}: shape {[*tensors[key].shape]}; {MANIFEST} and the model say {[*shape]}"
                )
            sequences[each.row] = tensors[key]
            known.add(key)
    else:
        held = model.whole.held_by_client(model.parts.front, model.parts.back)
        crosses = {n: v for n, v in model.initial.items() if (n in held) == (manifest.channel == "client_update")}
        by_row: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            row, _, name = key.partition("/")
            by_row.setdefault(row, {})[name] = tensor
        for each in manifest.observations:
            if str(each.row) not in by_row:
                raise InputError(f"{file}: no tensor is called '{each.row}/NAME', and {MANIFEST} lists that row")
            own = updates[each.row] = by_row[str(each.row)]
            require_whole(own, crosses, f"{each.row}/", file)
            known |= {f"{each.row}/{name}" for name in own}
    if more := sorted(tensors.keys() - known):
        raise InputError(f"{file}: {more[0]!r} is of no row that {MANIFEST} lists")
    return sequences, updates


def _adapters(manifest: Manifest, model: Recommender, tensors: Mapping[str, Tensor], file: Path) -> Parts:
    """Return the adapters by client, each with all tensors of the front."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        client, _, name = key.partition("/")
        if client not in manifest.clients:
            raise InputError(f"{file}: {key!r}: {client!r} is not among clients (accepted: CLIENT/NAME)")
        found.setdefault(client, {})[name] = tensor
    for client, own in found.items():
        require_fit(own, model.initial, f"{client}/", file)
        if missing := sorted(model.whole.held_by_client(model.parts.front, 0) - own.keys()):
            raise InputError(f"{file}: {client + '/' + missing[0]!r} of the front is missing")
    return found


def _true(
    manifest: Manifest, model: Recommender, truth: TruthFile, file: Path
) -> tuple[dict[int, TrueRow], dict[int, list[Prompt]]]:
    """Return the truth by row, and its sequences as the template has them; each as long as what crossed."""
    newest = max(each.round for each in manifest.observations)
    asked = {each.row: each for each in manifest.observations if each.round == newest}
    rows, prompts, of_updates = dict[int, TrueRow](), dict[int, list[Prompt]](), manifest.channel in OF_ADAPTERS
    for place, each in enumerate(truth.rows):
        at = f"{file}: rows[{place}]"
        if each.row in rows or each.row not in asked:
            raise InputError(
                f"{at}.row: {each.row} {'stands there twice' if each.row in rows else 'is not asked about'}"
            )
        if each.client is not None and each.client not in manifest.clients:
            raise InputError(f"{at}.client: {each.client!r} is not among clients")
        if each.client is not None and asked[each.row].client not in ("", each.client):
            raise InputError(f"{at}.client: {each.client!r}, where {MANIFEST} says {asked[each.row].client!r}")
        if not of_updates and len(each.samples) > 1:
            raise InputError(f"{at}.samples: {len(each.samples)}; one sequence crossed of this row")
        for sample in each.samples:
            if max(*sample.items, sample.target or 0) >= len(manifest.catalogue):
                raise InputError(f"{at}.samples: an item that the catalogue of {len(manifest.catalogue)} does not have")
            if len(sample.items) > manifest.history:
                raise InputError(f"{at}.samples: {len(sample.items)} items; history says at most {manifest.history}")
        build = model.prompts.build
        made = [build(np.array(s.items), -1 if s.target is None else s.target) for s in each.samples]
        if not of_updates and len(made[0]) != asked[each.row].length:
            raise InputError(
                f"{at}: its items give a prompt of {len(made[0])} tokens, and {asked[each.row].length} crossed"
            )
        rows[each.row], prompts[each.row] = each, made
    if missing := sorted(asked.keys() - rows.keys()):
        raise InputError(f"{file}: rows: row {missing[0]} is missing")
    return rows, prompts


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

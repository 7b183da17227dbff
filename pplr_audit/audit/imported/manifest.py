"""The two JSON files of a recording as they are checked: ``recording.json`` and, where it is known, ``truth.json``.

A recording comes from a stranger. Its files have fixed names, so no path stands in it but that of the backbone; each is
read no further than the manifest says, and has to have the SHA-256 that it says.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import psutil
from pydantic import Field, ValidationError

from pplr_audit.errors import InputError
from pplr_audit.runs.files import TooLarge, read_file
from pplr_audit.runs.parsing import Malformed, parsed
from pplr_audit.scenario.messages import dotted
from pplr_audit.scenario.schema import Model, Section, Training

MANIFEST, TRUTH = "recording.json", "truth.json"
OBSERVATIONS, ADAPTERS = "observations.safetensors", "adapters.safetensors"
LONGEST_NAME = 500
"""Characters of a tensor's name, or of a field's in a message."""
Name = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Round = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Read = TypeVar("Read", bound=Section)


class Listed(Section):
    """A file of the recording."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(strict=True, ge=1)]


class Seen(Section):
    """One observation; its tensors are named by its row."""

    row: Number
    """Number that it goes by; it should say nothing."""
    client: Annotated[str, Field(max_length=200)] = ""
    """Its client; empty where the adversary does not know it, of an update."""
    round: Round
    step: Annotated[int, Field(strict=True, ge=-1, lt=2**31)] = -1
    """Local step within the round, from 0; -1 where that is not known, and for updates."""
    length: Annotated[int, Field(strict=True, ge=1, lt=2**31)] | None = None
    """Positions of a sequence, without padding; of an update none."""


class Manifest(Section):
    """All that is said of a recording."""

    schema_: Literal["pplr-audit/recording/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    model: Model
    """The section of a scenario: backbone, template, adapter, cut."""
    history: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    """Most items in a prompt."""
    catalogue: Annotated[list[Name], Field(min_length=2)]
    """Titles; an item is known by its place here."""
    training: Training | None = None
    """The section of a scenario, as far as it is known."""
    adversary: Literal["server", "trunk_host", "aggregator"]
    """The party who recorded."""
    channel: Literal["front_activations", "inference_activations", "client_update", "trunk_update"]
    defense: Name = "none"
    """The defense that what crossed went through."""
    clients: Annotated[tuple[Name, ...], Field(min_length=1)]
    observations: Annotated[list[Seen], Field(min_length=1)]
    files: dict[Literal["observations.safetensors", "adapters.safetensors", "truth.json"], Listed]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    """Seed that controls are dealt and intervals are drawn by."""


class TrueSample(Section):
    """Items of one sequence, the oldest first, and the one that it is trained to answer with."""

    items: Annotated[list[Number], Field(min_length=1)]
    target: Number | None = None


class TrueRow(Section):
    """The truth about one row."""

    row: Number
    user: Number
    client: Name | None = None
    """The client of an update, where the recording does not say it."""
    samples: Annotated[list[TrueSample], Field(min_length=1)]
    """The one sequence that crossed, or all that the client of an update trained on."""


class TruthFile(Section):
    """The truth about all rows that are asked about."""

    schema_: Literal["pplr-audit/recording-truth/1"] = Field(alias="schema")
    rows: Annotated[list[TrueRow], Field(min_length=1)]


@contextmanager
def said_of(file: Path) -> Iterator[None]:
    """Say of a recording's file what a reader of runs says of a run's."""
    try:
        yield
    except Malformed as error:
        raise InputError(f"{file}: {error.what} (docs/recordings.md says what stands there)") from None
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; a recording has {MANIFEST} and all files that it lists") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def bytes_of(folder: Path, name: str, listed: Listed) -> bytes:
    """Return the bytes of a listed file. Raises InputError where they are not those that the manifest speaks of."""
    file = folder / name
    data = b""
    with said_of(file), suppress(TooLarge):
        data = read_file(folder, name, min(listed.bytes, psutil.virtual_memory().total))
    if len(data) != listed.bytes or hashlib.sha256(data).hexdigest() != listed.sha256:
        raise InputError(f"{file}: truncated or altered: its size or SHA-256 is not the one that {MANIFEST} says")
    return data


def understood_as(kind: type[Read], data: bytes, file: Path) -> Read:
    """Return the values in ``data``. Raises InputError that names the file and the field."""
    with said_of(file):
        parsed(data, file)  # what JSON lets through: keys that stand there twice, numbers that are none
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{file}: {dotted(first['loc'])[:LONGEST_NAME]}: {first['msg']}") from None

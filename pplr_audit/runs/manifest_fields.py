"""The fields of a run's manifest, as they are checked whoever wrote it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

_Name = Annotated[str, Field(min_length=1)]


class _Plugin(BaseModel, extra="forbid"):
    kind: Literal["attacks", "defenses", "strategies", "readers"]
    name: _Name
    package: _Name
    version: _Name


class _Processor(BaseModel):
    capability: str
    model: str
    instructions: list[str]
    limits: dict[str, str]


class _Compute(BaseModel, extra="forbid"):
    threads: Annotated[int, Field(ge=1, le=1024)]
    chosen: _Name
    processor: _Processor
    libraries: dict[str, str]


class Manifest(BaseModel):
    """The fields of the manifest that are relied on; there may be more."""

    schema_: str = Field(alias="schema")
    digest: _Name
    created: _Name
    inputs: dict[str, str | int] | None = None
    seconds: dict[str, Annotated[float, Field(ge=0, le=1e24)]] = {}
    extensions: list[dict[str, Any]] = []
    plugins: list[_Plugin] = []
    compute: list[_Compute] = []
    redact: bool = False

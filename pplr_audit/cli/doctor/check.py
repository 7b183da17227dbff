"""One thing that was looked at, and what trying to import told."""

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "optional", "warning", "failed"]
"""``optional``: not there and not needed; ``warning``: the main job runs, something else may not; ``failed``: it does
not run."""


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and what to do about it (nothing where it is ok)."""

    group: str
    name: str
    state: State
    found: str
    advice: str = ""


@dataclass
class Trial:
    """What was tried: module, or ``module:attribute``, to what went wrong (nothing where it imports)."""

    errors: dict[str, str] = field(default_factory=dict)
    accelerator: dict[str, Any] = field(default_factory=dict)
    """``names`` of the GPUs and ``bfloat16``, or ``error``."""

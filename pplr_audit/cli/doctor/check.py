"""One thing that was looked at, and what trying to import told."""

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "optional", "warning", "failed"]
"""``optional``: not there and not needed; ``warning``: the main job runs, something else may not; ``failed``: it does
not run."""


@dataclass(frozen=True)
class Check:
    """One check: its subject, its status, what was found, and what to do about it (empty where it is ok)."""

    group: str
    name: str
    state: State
    found: str
    advice: str = ""


@dataclass
class Trial:
    """Results of imports: from module, or ``module:attribute``, to the error (empty where it imports)."""

    errors: dict[str, str] = field(default_factory=dict)
    accelerator: dict[str, Any] = field(default_factory=dict)
    """``names`` of the GPUs and ``bfloat16``, or ``error``."""

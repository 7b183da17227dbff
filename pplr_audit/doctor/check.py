"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

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

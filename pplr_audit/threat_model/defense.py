"""The protocol of defenses: what acts on a crossing."""

from typing import Protocol, runtime_checkable

import torch

from pplr_audit.threat_model.channels import Crossing


@runtime_checkable
class Defense(Protocol):
    """Something that changes what crosses. A defense is a value: parameters in, one verb, a crossing out.

    ``holds_against`` names the adversaries its formal guarantee binds (empty where it has none).
    """

    name: str
    holds_against: frozenset[str]

    def apply(self, crossing: Crossing, generator: torch.Generator) -> Crossing:
        """Return what the receiver gets instead of ``crossing``. Draws randomness from ``generator`` alone."""
        ...

"""No defense: everything crosses as it is."""

import torch

from pplr_audit.threat_model.channels import Crossing


class Undefended:
    """The identity, so that an undefended run is one more row of the plan."""

    name = "none"
    holds_against: frozenset[str] = frozenset()

    def apply(self, crossing: Crossing, generator: torch.Generator) -> Crossing:
        del generator
        return crossing

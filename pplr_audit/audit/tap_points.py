"""Places at which channels are tapped: which side of the cut, which layer, which phase."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pplr_audit.threat_model.channels import OF_ADAPTERS, Channel

Side = Literal["front", "back"]


OF_TRAINING: Mapping[Channel, tuple[Literal["activation", "gradient"], Side]] = {
    Channel.FRONT_ACTIVATIONS: ("activation", "front"), Channel.TRUNK_ACTIVATIONS: ("activation", "back"),
    Channel.BACK_GRADIENTS: ("gradient", "back"), Channel.TRUNK_GRADIENTS: ("gradient", "front"),
}  # fmt: skip
"""Kind of tensor that crosses in a training step, and the side of the trunk at which it does."""


SIDES: Mapping[Channel, frozenset[Side]] = {
    **{channel: frozenset[Side]({side}) for channel, (_, side) in OF_TRAINING.items()},
    Channel.INFERENCE_ACTIVATIONS: frozenset({"front"}), Channel.INFERENCE_OUTPUT: frozenset({"back"}),
    **{channel: frozenset[Side]({"front", "back"}) for channel in OF_ADAPTERS},
}  # fmt: skip
"""Sides of the cut that a channel depends on: one that depends on k alone is computed and attacked once a k, not once a
(k, m)."""


OF_THE_TRAINED = frozenset({Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT, Channel.MODEL_OUTPUT})
"""Channels of the trained models; the others are of a round."""


Phase = Literal["training", "serving", "queries"]


def phase_of(channel: Channel) -> Phase:
    """Return the phase in which a channel carries something."""
    if channel == Channel.MODEL_OUTPUT:
        return "queries"
    return "serving" if channel in OF_THE_TRAINED else "training"


@dataclass(frozen=True)
class Trace:
    """One tap at layer l from 0 to L: h_l or dLoss/dh_l of private sequences, h_l of the public catalogue, or h_l of
    what a served model generated.
    """

    kind: Literal["activation", "gradient", "catalogue", "generated"]
    layer: int

"""The channels: everything that can cross the wire. Imports nothing of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor


class Channel(StrEnum):
    """One kind of thing that one party sends another, in the order of one split step, one round, and serving."""

    FRONT_ACTIVATIONS = "front_activations"
    TRUNK_ACTIVATIONS = "trunk_activations"
    BACK_GRADIENTS = "back_gradients"
    TRUNK_GRADIENTS = "trunk_gradients"
    METADATA = "metadata"
    TRUNK_UPDATE = "trunk_update"
    CLIENT_UPDATE = "client_update"
    STATUS = "status"
    AGGREGATE = "aggregate"
    PERSONAL_MODEL = "personal_model"
    MODEL_OUTPUT = "model_output"
    INFERENCE_ACTIVATIONS = "inference_activations"
    INFERENCE_OUTPUT = "inference_output"


OF_ADAPTERS = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.PERSONAL_MODEL, Channel.AGGREGATE})
"""Channels that carry a part of an adapter, once a round; which part, the cut says."""


ONCE_A_ROUND = OF_ADAPTERS | {Channel.STATUS}
"""Channels that carry something once a round, which a training stores in the rounds that are kept."""


@dataclass(frozen=True)
class Crossing:
    """One message: what crossed, whose it is, and when.

    ``tensors`` hold what the receiver got, that is after every defense. ``step`` counts local steps within the round,
    from 0; it is -1 for what crosses once a round.
    """

    channel: Channel
    client: str
    round: int
    step: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    forward: int = 0
    """Number of the forward pass within the step that it belongs to, from 0; nearly always there is one."""

    @property
    def wire_bytes(self) -> int:
        """Bytes of the payload as it stands in memory (no framing, no compression)."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

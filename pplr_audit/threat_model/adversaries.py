"""The adversaries, the channels that each sees, and the secrets they are after."""

from collections.abc import Mapping
from typing import Literal

from pplr_audit.threat_model.channels import Channel

Secret = Literal["history", "label", "membership", "attribute", "linkage"]


SEES: Mapping[str, frozenset[Channel]] = {
    "trunk_host": frozenset(
        {
            Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.TRUNK_GRADIENTS,
            Channel.METADATA, Channel.TRUNK_UPDATE, Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT,
        }
    ),
    "aggregator": frozenset({Channel.CLIENT_UPDATE, Channel.STATUS, Channel.PERSONAL_MODEL}),
    "outsider": frozenset({Channel.MODEL_OUTPUT}),
}  # fmt: skip
"""Channels that each adversary sees by itself."""


def channels_of(adversary: str) -> frozenset[Channel]:
    """Every channel that ``adversary`` sees; ``server`` is trunk host and aggregator in one, as in PPLR.

    ``malicious_server`` sees no more, but chooses what it sends.
    """
    if adversary in ("server", "malicious_server"):
        return SEES["trunk_host"] | SEES["aggregator"]
    return SEES[adversary]

"""The adversaries, the channels that each sees, and the secrets they are after."""

from collections.abc import Mapping
from typing import Literal

from pplr_audit.threat_model.channels import Channel

Secret = Literal[
    "history", "label", "membership", "attribute", "linkage", "items", "targets", "owner", "recommendation"
]  # fmt: skip
"""Secrets that attacks are after; `questions` says what each of them asks."""


SEES: Mapping[str, frozenset[Channel]] = {
    "trunk_host": frozenset(
        {
            Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.TRUNK_GRADIENTS,
            Channel.METADATA, Channel.TRUNK_UPDATE, Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT,
        }
    ),
    "aggregator": frozenset({Channel.CLIENT_UPDATE, Channel.STATUS, Channel.PERSONAL_MODEL}),
    "peer": frozenset({Channel.TRUNK_ACTIVATIONS, Channel.PERSONAL_MODEL, Channel.MODEL_OUTPUT}),
    "outsider": frozenset({Channel.MODEL_OUTPUT}),
}  # fmt: skip
"""Channels that each adversary sees by itself. A peer sees what crosses of its own alone: the trunk activations of its
users, its own personal models, and what its own personal model answers."""


def channels_of(adversary: str) -> frozenset[Channel]:
    """Every channel that ``adversary`` sees; ``server`` is trunk host and aggregator in one, as in PPLR, and can ask
    the models that it made and holds whatever an outsider could ask.

    ``malicious_server`` sees no more, but chooses what it sends. The sum of what somebody sees one by one is not named;
    see `readable_by`.
    """
    if adversary in ("server", "malicious_server"):
        return SEES["trunk_host"] | SEES["aggregator"] | {Channel.MODEL_OUTPUT}
    return SEES[adversary]


def readable_by(adversary: str) -> frozenset[Channel]:
    """Every channel that ``adversary`` can read: whoever sees each update can also read their sum by itself."""
    sees = channels_of(adversary)
    return sees | {Channel.AGGREGATE} if Channel.CLIENT_UPDATE in sees else sees

"""Leaves the server the sum of the clients' updates, and none of them."""

from collections.abc import Mapping

from torch import Tensor

from pplr_audit.threat_model import Channel, Defense, Turn


class Sums(Defense):
    """The sum as secure aggregation would reveal it, without its cryptography."""

    name = "sums"
    acts = frozenset({"sum"})
    removes = frozenset({Channel.CLIENT_UPDATE})
    holds_against = frozenset({"aggregator"})

    def sum(self, updates: Mapping[str, Mapping[str, Tensor]], turn: Turn) -> Mapping[str, Tensor]:
        first, *others = updates.values()
        return {name: sum((other[name] for other in others), value) for name, value in first.items()}

"""Time that a client waits for the wire: bytes over bandwidth, and a round trip wherever one side waits.

Training is a conversation: the client waits for h_{L-m} before it can go on with its own last blocks, and for
dLoss/dh_k before it can step. So directions do not overlap, and what crosses in both adds up over one bandwidth. Not
counted: arithmetic, on either side, framing, and other clients.
"""

import math
from dataclasses import dataclass

STEP_TRIPS = 2
"""Forward: h_k up, h_{L-m} down. Backward: dLoss/dh_{L-m} up, dLoss/dh_k down."""
ROUND_TRIPS = 1
"""The update and the loss up, the personal model down, once a round."""


@dataclass(frozen=True)
class WireSpeed:
    """One link between a client and the server, the same in both directions."""

    bits_per_second: float
    round_trip_seconds: float

    def seconds(self, size: float, trips: float) -> float:
        """Return the seconds for ``size`` bytes in so many exchanges, each of which waits for its answer."""
        return 8 * size / self.bits_per_second + trips * self.round_trip_seconds


def steps(samples: int, batch: int, epochs: int) -> int:
    """Steps of one client in a round; the last batch of an epoch may be smaller.

    >>> steps(1024, 16, 2), steps(17, 16, 1)
    (128, 2)
    """
    return epochs * math.ceil(samples / batch)


def request_trips(generated: int, beams: int = 1) -> int:
    """Exchanges of a served request: one a pass of the generation, and one to embed the title that it gave.

    With several beams the prompt is read in a pass of its own. An encoder generates nothing and answers in one. That
    beams are reordered is said along with the next pass.

    >>> request_trips(12), request_trips(12, beams=4), request_trips(0)
    (13, 14, 1)
    """
    return generated + 1 + (beams > 1)

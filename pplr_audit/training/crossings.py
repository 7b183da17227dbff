"""What crosses once a round, recorded at the server's end of the link in the rounds that are kept for an audit.

Nothing of it can be replayed without training the whole round again. In other rounds nobody listens.
"""

from collections.abc import Collection
from dataclasses import replace

from pplr_audit.threat_model.channels import Crossing
from pplr_audit.training.link import Link
from pplr_audit.training.rounds import Federation, RoundState, train


class RoundRecorder:
    """Keeps what crosses ``link`` once a round, in the ``kept`` rounds alone."""

    def __init__(self, link: Link, kept: Collection[int]) -> None:
        self._link, self._kept = link, frozenset(kept)
        self._found: list[Crossing] = []

    def begin(self, round_: int) -> None:
        """Listen if round ``round_`` is kept, and to nothing if it is not."""
        self._found = []
        self._link.of_rounds = self._record if round_ in self._kept else None

    def taken(self) -> list[Crossing]:
        """Return what crossed since the round began, in order, and stop listening."""
        self._link.of_rounds = None
        return self._found

    def _record(self, crossing: Crossing) -> None:
        tensors = {name: tensor.detach().clone() for name, tensor in crossing.tensors.items()}
        self._found.append(replace(crossing, tensors=tensors))


def crossings_of(federation: Federation, state: RoundState) -> list[Crossing]:
    """Train the round that ``state`` starts and return what crosses once in it, as a recorder would have kept it.

    The federation may hold the clients of ``state`` with other samples. It is left in the middle of nowhere: resume it
    before it is used for anything else.
    """
    federation.resume(state)
    recorder = RoundRecorder(federation.link, [state.round])
    recorder.begin(state.round)
    train(federation, state.round, first=state.round, done=lambda log, following: None)
    return recorder.taken()

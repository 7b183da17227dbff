"""The public catalogue as it crosses: known plaintext.

A client of RecFormer encodes the catalogue by its newest front, in training and, where the table is not frozen, in
serving. Whoever hosts the trunk knows the titles, and so has public words with what this very front made of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.audit.plan import Plan
from pplr_audit.audit.replay.collusion import colluded
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.uncut import UncutModel
from pplr_audit.threat_model.artifacts import digest
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.knowledge import Plaintext, States
from pplr_audit.threat_model.view import Record
from pplr_audit.training.rounds import Federation, RoundState

Keep = Callable[[Trace, Record], None]
"""Called with every record; its tensor is nobody else's."""
MOST = 512
"""Titles that are recorded of an encoding, at most, of all lengths alike."""


def seen_of(catalogue: Sequence[Prompt]) -> list[int]:
    """Return the places of the titles that are recorded."""
    count = min(MOST, len(catalogue))
    return [int(place) for place in np.linspace(0, len(catalogue) - 1, count).round()]


class Titles:
    """Tells which titles a pass is of that encodes the catalogue: each pass takes the next ones.

    Args:
        catalogue: in the order in which it is encoded.
    """

    def __init__(self, catalogue: Sequence[Prompt]) -> None:
        self._lengths, self._wanted = [len(prompt) for prompt in catalogue], set(seen_of(catalogue))
        self._read = Counter[Hashable]()

    def begin(self) -> None:
        """The catalogue is encoded from its first title on when it is encoded next."""
        self._read.clear()

    def of(
        self, at: Hashable, hidden: Float[Tensor, "batch seq hidden"]
    ) -> Iterator[tuple[int, Float[Tensor, "length hidden"]]]:
        """Yield place and states of the recorded titles of the next pass that is seen ``at`` a layer."""
        first = self._read[at]
        self._read[at] += len(hidden)
        for place, states in enumerate(hidden[: max(0, len(self._lengths) - first)], first):
            if place in self._wanted:
                yield place, states[: self._lengths[place]].clone()


def served_titles(
    whole: UncutModel, state: RoundState, clients: Collection[str], layers: Sequence[int], keep: Keep
) -> None:
    """Record h_l of the catalogue at each of ``layers`` where a client's trained model encodes it before it serves."""
    catalogue, seen = whole.task.catalogue, seen_of(whole.task.catalogue)
    titles = [catalogue[place] for place in seen]
    for client in clients if titles else ():
        if not whole.task.fixed and state.encoding(client) is None:
            for place, states in whole.states(titles, layers, state.served(client), serving=True):
                for layer, hidden in states.items():
                    keep(Trace("catalogue", layer), Record(seen[place], client, state.round, -1, hidden))


def received_titles(federation: Federation, front: int, round_: int, clients: Collection[str], keep: Keep) -> None:
    """Record the same at the cut that ran, as it was received; the federation serves the trained models.

    Call it behind the requests: every crossing has a number of its own.
    """
    before, task = federation.link.recorder, federation.task
    for client in federation.clients:
        if client.name not in clients or client.served_model.encoding is not None:
            continue
        titles = Titles(task.catalogue)

        def record(crossing: Crossing, titles: Titles = titles) -> None:
            if crossing.channel == Channel.INFERENCE_ACTIVATIONS:
                for place, hidden in titles.of(front, crossing.tensors["hidden"]):
                    keep(Trace("catalogue", front), Record(place, crossing.client, round_, -1, hidden))

        try:
            federation.link.recorder = record
            with client.served(federation.link).model(catalogue=True) as model:
                task.encode_catalogue(model)
        finally:
            federation.link.recorder = before


def taps_of(plan: Plan, round_: int, catalogue: Sequence[Prompt]) -> frozenset[Trace]:
    """Return all that is looked at in a training round, the catalogue among it where one is encoded."""
    wanted = plan.traces(round_)
    return wanted | {Trace("catalogue", layer) for layer in plan.layers} if wanted and catalogue else wanted


def key_of(trace: Trace, record: Record, colluder: str | None) -> Hashable:
    """Return the key in the spool of what crossed: the catalogue's and a colluding client's are apart from victims'."""
    if trace.kind == "catalogue":
        return (*_of(record.client), record.step, trace.layer)
    return colluded(trace) if record.client == colluder else trace


def plaintext_of(
    client: str, catalogue: Sequence[Prompt], spool: Callable[[], Spool], followed: Callable[[], str]
) -> list[Plaintext]:
    """Return each encoding of the catalogue by a client in a phase and round, the first one first.

    Args:
        spool: answers where what crossed lies.
        followed: answers a hash of all that what crossed of the client follows from.
    """
    rows = seen_of(catalogue)
    prompts = [catalogue[row] for row in rows]
    steps = {key[2] for key in spool().keys if isinstance(key, tuple) and key[:2] == _of(client)}
    follows = followed() if steps else ""

    def states(step: int, layers: Sequence[int]) -> States:
        streams = [spool().stream((*_of(client), step, layer), rows) for layer in layers]
        for place, records in enumerate(zip(*streams, strict=True)):
            yield place, {layer: record.tensor for layer, record in zip(layers, records, strict=True)}

    return [
        Plaintext(step, prompts, digest("catalogue", follows, step), partial(states, step)) for step in sorted(steps)
    ]


def _of(client: str) -> tuple[str, str]:
    return "catalogue", client

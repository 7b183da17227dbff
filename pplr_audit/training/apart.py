"""A client's round, or its answers, in a fork of this process: what that leaves there, and how it is taken over here.

The fork has its own copy of client, server and link. All that a round of local training, or serving, changes in them
comes back, and nothing else does: bytes come out as if it had happened here.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Generic, TypeVar

from pplr_audit.models.recommenders.task import Tally
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.client import Client, LocalModel
from pplr_audit.training.link import Link
from pplr_audit.training.onlooker import Onlooker
from pplr_audit.training.server import Hosted, Server

T = TypeVar("T")


@dataclass(frozen=True)
class Apart:
    """What a client's round left in a fork."""

    loss: float
    seconds: float
    shared: LocalModel
    personal: LocalModel | None
    hosted: Hosted
    sent: Counter[Channel]
    catalogue_bytes: int
    crossings: list[Crossing]
    """Everything that crossed, where somebody records that here."""
    of_rounds: list[Crossing]
    """All that crossed once, where somebody records that here."""
    seen: Any
    """The onlooker's own."""

    def take(self, client: Client, server: Server, link: Link) -> float:
        """Make it the state of these; return the loss."""
        client.shared, client.personal = self.shared, self.personal
        server.take_hosted(client.name, self.hosted)
        link.sent.update(self.sent)
        link.catalogue_bytes += self.catalogue_bytes
        for recorder, crossings in ((link.recorder, self.crossings), (link.of_rounds, self.of_rounds)):
            for crossing in crossings:
                if recorder is not None:
                    recorder(crossing)
        return self.loss


def trained_apart(client: Client, server: Server, link: Link, round_: int, onlooker: Onlooker) -> Apart:
    """Train a client for a round; return all that is another than before. Raises RunError as `Client.train_round`."""
    every: list[Crossing] = []
    of_rounds: list[Crossing] = []

    def keep(crossings: list[Crossing], crossing: Crossing) -> None:
        tensors = {name: tensor.detach().clone() for name, tensor in crossing.tensors.items()}
        crossings.append(replace(crossing, tensors=tensors))

    if link.recorder is not None:
        link.recorder = partial(keep, every)
    if link.of_rounds is not None:
        link.of_rounds = partial(keep, of_rounds)
    sent, catalogue, started = link.sent.copy(), link.catalogue_bytes, time.perf_counter()
    loss, seen = onlooker.train(client, link, round_)
    link.sent.subtract(sent)
    return Apart(
        loss, time.perf_counter() - started, client.shared, client.personal, server.hosted(client.name),
        Counter({channel: count for channel, count in link.sent.items() if count}), link.catalogue_bytes - catalogue,
        every, of_rounds, seen,
    )  # fmt: skip


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What serving users answered in a fork, and what it put through the model and over the link."""

    result: T
    tally: Tally
    sent: Counter[Channel]
    catalogue_bytes: int

    def take(self, link: Link, tally: Tally) -> T:
        """Add the work to what is counted here; return the answer."""
        link.sent.update(self.sent)
        link.catalogue_bytes += self.catalogue_bytes
        for each in fields(Tally):
            setattr(tally, each.name, getattr(tally, each.name) + getattr(self.tally, each.name))
        return self.result


def asked_apart(ask: Callable[[], T], link: Link, tally: Tally) -> Answer[T]:
    """Ask a served model; return the answer with what it took, which ``tally`` and ``link`` count."""
    sent, catalogue, before = link.sent.copy(), link.catalogue_bytes, replace(tally)
    result = ask()
    link.sent.subtract(sent)
    took = {each.name: getattr(tally, each.name) - getattr(before, each.name) for each in fields(Tally)}
    crossed = Counter({channel: count for channel, count in link.sent.items() if count})
    return Answer(result, Tally(**took), crossed, link.catalogue_bytes - catalogue)

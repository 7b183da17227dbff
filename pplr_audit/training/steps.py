"""Gradients of the adapter in each local step of a round, as the server that hosts all blocks would record them.

Undefended, training does not depend on the cut, so the gradients of one round serve every cut: the server's record of
its trunk is the part of them that lies there. A client's gradients never cross; they are taken down here because its
blocks are the trunk's at another cut.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.client import Client
from pplr_audit.training.rounds import Federation, RoundState

Wanted = Callable[[str], bool]
"""Function from the name of a tensor to whether its gradient is taken down."""


class _Enough(Exception):
    """The steps that were asked for are taken."""


def gradients_of(
    federation: Federation, state: RoundState, steps: int, clients: Collection[str], wanted: Wanted
) -> list[Crossing]:  # fmt: skip
    """Train the first ``steps`` local steps of some clients in the round that ``state`` starts; return the gradients.

    They are those that the optimizers get, of each client's shared model. The federation is left in the middle of
    nowhere: resume it before it is used for anything else.
    """
    federation.resume(state)
    found = list[Crossing]()
    for client in federation.training_in(state.round, state.best):
        if client.name in clients:
            found += _of_client(federation, client, state.round, steps, wanted)
    return found


@dataclass
class _Taken:
    """The gradients of a client's steps, by step."""

    steps: int
    wanted: Wanted
    found: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def take(self, step: int, gradients: Mapping[str, Tensor]) -> None:
        own = self.found.setdefault(step, {})
        own.update((name, value.detach().clone()) for name, value in gradients.items() if self.wanted(name))

    def begin(self, step: int) -> None:
        if step >= self.steps:
            raise _Enough

    def record(self, crossing: Crossing) -> None:
        if crossing.channel == Channel.TRUNK_UPDATE and crossing.step >= 0:
            self.take(crossing.step, crossing.tensors)


def _of_client(federation: Federation, client: Client, round_: int, steps: int, wanted: Wanted) -> list[Crossing]:
    plan = client.plan(round_)
    own = len(plan) if client.personal is None else len(plan) // 2  # a personal model's steps come last
    taken, link = _Taken(min(steps, own), wanted), federation.link
    before, detailed = link.recorder, federation.server.detailed
    link.recorder, federation.server.detailed = taken.record, True
    try:
        client.train_round(link, round_, taken.begin, taken.take)
    except _Enough:
        pass
    finally:
        link.recorder, federation.server.detailed = before, detailed
    return [
        Crossing(Channel.TRUNK_UPDATE, client.name, round_, step, tensors)
        for step, tensors in sorted(taken.found.items())
    ]

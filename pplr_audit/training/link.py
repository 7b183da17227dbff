"""The wire between a client and the server: the only thing that the two have in common.

It has two ends. The sender's end codes a message as the defenses in force say, and the bytes of the code are those that
count; the receiver's end decodes it, and a recorder sits there. In one process the autograd graph passes through the
link by `_Across`; the two sides never see each other's graph.

Every crossing has a number of its own, from which defenses draw, so that no two have the same noise. It is told from
others of the same channel, client, round and step by counting. A round counts from 0 whenever its local training
begins, so a replay, or a round that a kill broke off, draws what the round drew. Serving a trained model is no part of
a round: its messages count on within the round that the link is in, that is since a round's local training began or the
federation went back to a stored state. So two requests never share a number, and requests after a kill are numbered as
they would have been.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.models.recommenders.task import Weights
from pplr_audit.threat_model.channels import ONCE_A_ROUND, Channel, Crossing
from pplr_audit.threat_model.defense import ALL, End
from pplr_audit.training.guards import Guards

Recorder = Callable[[Crossing], None]
"""Called with everything that crosses, as the receiver got it. Tensors are not copied: clone what is kept."""


Address = tuple[str, int, int]
"""Client, round and local step of a crossing; step -1 outside of local training."""


@dataclass(frozen=True)
class Wire:
    """Things done to all that crosses a link."""

    recorder: Recorder | None = None


PLAIN = Wire()
"""Nothing is recorded."""


class Host(Protocol):
    """The server's answers. `pplr_audit.training.server.Server` is one host; a network stub is another."""

    def join(self, client: str, samples: int) -> None: ...
    def start_round(self, client: str, round_: int) -> None: ...
    def start_personal(self, client: str, round_: int) -> None: ...
    def forward(
        self, client: str, step: int, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"],
        pass_: int,
    ) -> Float[Tensor, "batch seq hidden"]: ...  # fmt: skip
    def backward(
        self, gradient: Float[Tensor, "batch seq hidden"], pass_: int
    ) -> Float[Tensor, "batch seq hidden"]: ...
    def empty_step(self, client: str, step: int) -> None: ...
    def exchange(self, heard: dict[str, Tensor]) -> dict[str, Tensor]: ...
    def finish_step(self) -> dict[str, Tensor]: ...
    def finish_round(self, client: str, update: dict[str, Tensor] | None, loss: float) -> dict[str, Tensor]: ...
    def take_sum(self, total: dict[str, Tensor]) -> None: ...
    def finish_personal(self, client: str) -> None: ...
    def personal_model(self, client: str) -> dict[str, Tensor]: ...
    def serve(
        self, client: str, session: int | None, hidden: Float[Tensor, "batch seq hidden"],
        mask: Int[Tensor, "batch seq"], weights: Weights,
    ) -> Float[Tensor, "batch seq hidden"]: ...  # fmt: skip
    def open_session(self) -> int: ...
    def reorder(self, session: int, beams: Int[Tensor, "batch"]) -> None: ...


class Link:
    """Codes, counts, decodes and records. ``sent`` holds the bytes that crossed so far, by channel.

    What stays inside the server (`Channel.TRUNK_UPDATE`) is recorded too, since an adversary there sees it, but is no
    traffic and is not counted. Of updates that a defense sums, the bytes are those of `Channel.AGGREGATE`, as which all
    of them together are recorded.

    Args:
        guards: the defenses in force.
    """

    def __init__(self, host: Host, wire: Wire = PLAIN, guards: Guards | None = None) -> None:
        self._host = host
        self._guards = Guards() if guards is None else guards
        self.recorder = wire.recorder
        self.of_rounds: Recorder | None = None
        """Called with what crosses once a round alone."""
        self._numbers = _Numbers()
        self._samples: dict[str, int] = {}
        self._masked: dict[str, dict[str, Tensor]] = {}
        self.sent: Counter[Channel] = Counter()
        self.catalogue_bytes = 0
        """Of what was sent, what encoding the public catalogue took."""

    def restart(self, round_: int) -> None:
        """The federation went back to the start of a round: whatever crosses now is numbered as after that."""
        self._numbers.restart(round_)
        self._masked.clear()

    # What a client says, in the order of the protocol.

    def join(self, client: str, samples: int) -> None:
        """A client says how many training samples it has."""
        got = self._cross(Crossing(Channel.METADATA, client, 0, -1, {"samples": torch.tensor(samples)}))
        self._samples[client] = samples
        self._host.join(client, int(got["samples"]))

    def training(self, client: str, round_: int, *, personal: bool = False, step: int = 0) -> "TrainingSide":
        """Begin local training of a round, of the shared or of the ``personal`` model, with step number ``step``.

        The answer stands for the trunk in the client's model.
        """
        if personal:
            self._host.start_personal(client, round_)
        else:
            self._numbers.begin(client, round_)
            self._host.start_round(client, round_)
        kind = ApartSide if self._guards.act("samples") else TrainingSide
        return kind(self, client, round_, step)

    def upload(self, client: str, round_: int, update: dict[str, Tensor], loss: float) -> None:
        """End a round: what changed in the client's part of its adapter, and its training loss."""
        got: dict[str, Tensor] | None = None
        if self._guards.act("sum"):
            self._mask(client, round_, update)
        else:
            got = self._cross(Crossing(Channel.CLIENT_UPDATE, client, round_, -1, update))
        said = {"loss": torch.tensor(loss, dtype=torch.float64)}
        status = self._cross(Crossing(Channel.STATUS, client, round_, -1, said))
        inside = self._host.finish_round(client, got, float(status["loss"]))
        self._record(Crossing(Channel.TRUNK_UPDATE, client, round_, -1, inside))

    def _mask(self, client: str, round_: int, update: dict[str, Tensor]) -> None:
        """Take an update that the server may read in the sum only, weighted by the client's samples."""
        crossing = Crossing(Channel.CLIENT_UPDATE, client, round_, -1, update)
        got, size = self._carried(crossing, "client")
        self.sent[Channel.AGGREGATE] += size
        weight = self._samples[client]
        self._masked[client] = {name: weight * value.double() for name, value in got.tensors.items()}

    def aggregate(self, round_: int) -> None:
        """End the uploads of a round: where a defense sums them, the server gets the sum now."""
        if self._masked:
            total = self._guards.sum(self._masked, round_)
            self._masked = {}
            self._record(Crossing(Channel.AGGREGATE, ALL, round_, -1, total))
            self._host.take_sum(total)

    def keep_personal(self, client: str) -> None:
        """End the training of a client's personal model. Nothing is uploaded: each side keeps its part."""
        self._host.finish_personal(client)

    def report(self, client: str, round_: int, metric: float) -> None:
        """A client says how good its model is now, by which it decides when to stop."""
        said = {"metric": torch.tensor(metric, dtype=torch.float64)}
        self._cross(Crossing(Channel.STATUS, client, round_, -1, said))

    def download(self, client: str, round_: int) -> dict[str, Tensor]:
        """After the balance: the client's part of its own new model."""
        model = self._host.personal_model(client)
        return self._cross(Crossing(Channel.PERSONAL_MODEL, client, round_, -1, model), "server")

    def serving(
        self, client: str, weights: Weights = "trained", *, catalogue: bool = False, step: tuple[int, int] | None = None
    ) -> "ServingSide":
        """The trunk of a personal model for requests of ``client``'s users, or to encode the ``catalogue``.

        Args:
            step: the round and the step of a local training in which this is done; None outside of one.
        """
        round_, at = (self._numbers.round, -1) if step is None else step
        return ServingSide(self, (client, round_, at), weights, catalogue)

    # What the two sides of the cut call.

    def trunk_forward(
        self, address: Address, pass_: int, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        """Args: pass_: number of the forward pass within the step, from 0."""
        up = self._cross(Crossing(Channel.FRONT_ACTIVATIONS, *address, {"hidden": hidden}, pass_))
        said = self._cross(Crossing(Channel.METADATA, *address, {"mask": mask.to(torch.uint8)}, pass_))
        out = self._host.forward(address[0], address[2], up["hidden"], said["mask"].long(), pass_)
        return self._cross(Crossing(Channel.TRUNK_ACTIVATIONS, *address, {"hidden": out}, pass_), "server")["hidden"]

    def trunk_backward(
        self, address: Address, pass_: int, gradient: Float[Tensor, "batch seq hidden"]
    ) -> Float[Tensor, "batch seq hidden"]:
        up = self._cross(Crossing(Channel.BACK_GRADIENTS, *address, {"gradient": gradient}, pass_))
        out = self._host.backward(up["gradient"], pass_)
        return self._cross(Crossing(Channel.TRUNK_GRADIENTS, *address, {"gradient": out}, pass_), "server")["gradient"]

    def empty_step(self, address: Address) -> None:
        """Tell the server of a step without samples: a mask without rows."""
        self._cross(Crossing(Channel.METADATA, *address, {"mask": torch.zeros(0, 0, dtype=torch.uint8)}))
        self._host.empty_step(address[0], address[2])

    def exchange(self, address: Address, told: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tell the server what a defense has to tell in a step; return what its twin there answers."""
        heard = self._host.exchange(self._cross(Crossing(Channel.METADATA, *address, told)) if told else {})
        return self._cross(Crossing(Channel.METADATA, *address, heard), "server") if heard else {}

    def finish_step(self, client: str, round_: int, step: int) -> None:
        """The client has taken its step; the server takes its own for this client's trunk."""
        inside = self._host.finish_step()
        if inside:
            self._record(Crossing(Channel.TRUNK_UPDATE, client, round_, step, inside))

    def serve(
        self, address: Address, session: int | None, hidden: Float[Tensor, "batch seq hidden"],
        mask: Int[Tensor, "batch total"], weights: Weights,
    ) -> Float[Tensor, "batch seq hidden"]:  # fmt: skip
        fresh = mask[:, -hidden.shape[1] :].to(torch.uint8)  # the server has the mask of what came before
        up = self._cross(Crossing(Channel.INFERENCE_ACTIVATIONS, *address, {"hidden": hidden, "mask": fresh}))
        out = self._host.serve(address[0], session, up["hidden"], up["mask"].long(), weights)
        return self._cross(Crossing(Channel.INFERENCE_OUTPUT, *address, {"hidden": out}), "server")["hidden"]

    def open_session(self) -> int:
        return self._host.open_session()

    def reorder(self, address: Address, session: int, beams: Int[Tensor, "batch"]) -> None:
        """Tell the server which beam each one goes on from; it holds their keys and values."""
        said = self._cross(Crossing(Channel.INFERENCE_ACTIVATIONS, *address, {"beams": beams.to(torch.int32)}))
        self._host.reorder(session, said["beams"].long())

    # The two ends.

    def _cross(self, crossing: Crossing, sender: End = "client") -> dict[str, Tensor]:
        got, size = self._carried(crossing, sender)
        self.sent[crossing.channel] += size
        self._record(got)
        return dict(got.tensors)

    def _carried(self, crossing: Crossing, sender: End) -> tuple[Crossing, int]:
        """Carry a message from its sender to its receiver: what that one gets, and the bytes that crossed."""
        number = self._numbers.next(crossing)
        coded, given = self._guards.encode(crossing, sender, number)
        return self._guards.decode(coded, sender, number, given), coded.wire_bytes

    def _record(self, crossing: Crossing) -> None:
        if self.recorder is not None:
            self.recorder(crossing)
        if self.of_rounds is not None and crossing.round > 0 > crossing.step and crossing.channel in ONCE_A_ROUND:
            self.of_rounds(crossing)


class _Numbers:
    """Counts the crossings of each channel, client, round and step; the module says when it starts again."""

    def __init__(self) -> None:
        self.round = 0
        """The round that the link is in."""
        self._next: dict[str, Counter[tuple[Channel, int, int]]] = {}

    def restart(self, round_: int) -> None:
        self.round = round_
        self._next.clear()

    def begin(self, client: str, round_: int) -> None:
        """A client's local training of a round begins."""
        self.round = round_
        self._next.pop(client, None)

    def next(self, crossing: Crossing) -> int:
        own, address = (
            self._next.setdefault(crossing.client, Counter()),
            (crossing.channel, crossing.round, crossing.step),
        )
        own[address] += 1
        return own[address] - 1


class TrainingSide:
    """The trunk as one client's model sees it during one round of training."""

    def __init__(self, link: Link, client: str, round_: int, step: int) -> None:
        self._link, self._client, self._round, self._step = link, client, round_, step
        self._pass = 0
        # A front without trainable parameters (k = 0) has no graph, but the trunk must get its gradient all the same.
        self._anchor = torch.zeros((), requires_grad=True)

    @property
    def address(self) -> Address:
        """The address of what crosses now."""
        return self._client, self._round, self._step

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        self._pass += 1
        return _Across.apply(hidden, self._anchor, self._link, (self.address, self._pass - 1), mask)  # type: ignore[no-any-return, no-untyped-call]

    def open(self) -> "ServedSession":
        raise RuntimeError("training does not generate")

    def empty_step(self) -> None:
        self._link.empty_step(self.address)

    def finish_step(self) -> None:
        self._link.finish_step(*self.address)
        self._step += 1
        self._pass = 0


class ApartSide(TrainingSide):
    """The same where a defense takes the gradients of single samples: no graph passes through, the client goes back in
    two parts and calls `backward` between them."""

    _crossed: tuple[Tensor, Tensor] | None = None

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        if self._crossed is not None:
            raise RuntimeError("a step with gradients of single samples has one forward pass")
        left = self._link.trunk_forward(self.address, 0, hidden.detach(), mask).detach().requires_grad_()
        self._crossed = hidden, left
        return left

    def crossed(self) -> tuple[Float[Tensor, "batch seq hidden"], Float[Tensor, "batch seq hidden"]]:
        """What the client sent in this step, with its graph, and what it got."""
        assert self._crossed is not None
        return self._crossed

    def backward(self, gradient: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]:
        """Send dLoss_i/dh_{L-m} in row i; return dLoss_i/dh_k."""
        return self._link.trunk_backward(self.address, 0, gradient)

    def exchange(self, told: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._link.exchange(self.address, told)

    def finish_step(self) -> None:
        super().finish_step()
        self._crossed = None


class ServingSide:
    """The trunk as one client's model sees it when it serves a user."""

    def __init__(self, link: Link, address: Address, weights: Weights, catalogue: bool) -> None:
        self._link, self._address, self._weights, self._catalogue = link, address, weights, catalogue

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        before = self._link.sent.total()
        out = self._link.serve(self._address, None, hidden, mask, self._weights)
        self._link.catalogue_bytes += self._catalogue * (self._link.sent.total() - before)
        return out

    def open(self) -> "ServedSession":
        return ServedSession(self._link, self._address, self._weights)


class ServedSession:
    """A generation in progress: the trunk's keys and values stay with the server under a number."""

    def __init__(self, link: Link, address: Address, weights: Weights) -> None:
        self._link, self._address, self._weights = link, address, weights
        self._number = link.open_session()

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch total"]
    ) -> Float[Tensor, "batch seq hidden"]:
        return self._link.serve(self._address, self._number, hidden, mask, self._weights)

    def reorder(self, beams: Int[Tensor, "batch"]) -> None:
        self._link.reorder(self._address, self._number, beams)


class _Across(torch.autograd.Function):
    """Forward: h_k up, h_{L-m} down. Backward: dLoss/dh_{L-m} up, dLoss/dh_k down."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, anchor: Tensor, link: Link, where: tuple[Address, int], mask: Tensor
    ) -> Tensor:
        del anchor
        ctx.link, ctx.where = link, where
        return link.trunk_forward(*where, hidden.detach(), mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.link.trunk_backward(*ctx.where, gradient), None, None, None, None

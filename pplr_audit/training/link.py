"""The wire between a client and the server: the only thing that the two have in common.

Every crossing is one call here that applies the defenses in force, counts the bytes, and may record the tensors. In one
process the autograd graph passes through the link by `_Across`; the two sides never see each other's graph.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.models.recommenders.task import Weights
from pplr_audit.scenario.seeds import derive
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.defense import Defense

Recorder = Callable[[Crossing], None]
"""Called with everything that crosses, as the receiver got it. Tensors are not copied: clone what is kept."""


@dataclass(frozen=True)
class Wire:
    """Things done to all that crosses a link."""

    defenses: Sequence[Defense] = ()
    """Applied one after the other."""
    recorder: Recorder | None = None


PLAIN = Wire()
"""Everything crosses as it was sent, and nothing is recorded."""


class Host(Protocol):
    """The server's answers. `pplr_audit.training.server.Server` is one host; a network stub is another."""

    def join(self, client: str, samples: int) -> None: ...
    def start_round(self, client: str, round_: int) -> None: ...
    def start_personal(self, client: str, round_: int) -> None: ...
    def forward(
        self, client: str, step: int, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]: ...
    def backward(self, gradient: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]: ...
    def finish_step(self) -> dict[str, Tensor]: ...
    def finish_round(self, client: str, update: dict[str, Tensor], loss: float) -> dict[str, Tensor]: ...
    def finish_personal(self, client: str) -> None: ...
    def personal_model(self, client: str) -> dict[str, Tensor]: ...
    def serve(
        self, client: str, session: int | None, hidden: Float[Tensor, "batch seq hidden"],
        mask: Int[Tensor, "batch seq"], weights: Weights,
    ) -> Float[Tensor, "batch seq hidden"]: ...  # fmt: skip
    def open_session(self) -> int: ...
    def reorder(self, session: int, beams: Int[Tensor, "batch"]) -> None: ...


class Link:
    """Applies, counts and records. ``sent`` holds the bytes that crossed so far, by channel.

    What stays inside the server (`Channel.TRUNK_UPDATE`) is recorded too, since an adversary there sees it, but is no
    traffic and is not counted.
    """

    def __init__(self, host: Host, wire: Wire = PLAIN, *, seed: int = 0) -> None:
        self._host = host
        self._defenses = tuple(wire.defenses)
        self._seed = seed
        self.recorder = wire.recorder
        self.sent: Counter[Channel] = Counter()
        self.catalogue_bytes = 0
        """Of what was sent, what encoding the public catalogue took."""

    # What a client says, in the order of the protocol.

    def join(self, client: str, samples: int) -> None:
        """A client says how many training samples it has."""
        got = self._cross(Channel.METADATA, client, 0, -1, samples=torch.tensor(samples))
        self._host.join(client, int(got["samples"]))

    def training(self, client: str, round_: int, *, personal: bool = False, step: int = 0) -> "TrainingSide":
        """Begin local training of a round, of the shared or of the ``personal`` model, with step number ``step``.

        The answer stands for the trunk in the client's model.
        """
        if personal:
            self._host.start_personal(client, round_)
        else:
            self._host.start_round(client, round_)
        return TrainingSide(self, client, round_, step)

    def upload(self, client: str, round_: int, update: dict[str, Tensor], loss: float) -> None:
        """End a round: what changed in the client's part of its adapter, and its training loss."""
        got = self._cross(Channel.CLIENT_UPDATE, client, round_, -1, **update)
        status = self._cross(Channel.STATUS, client, round_, -1, loss=torch.tensor(loss, dtype=torch.float64))
        inside = self._host.finish_round(client, got, float(status["loss"]))
        self._record(Crossing(Channel.TRUNK_UPDATE, client, round_, -1, inside))

    def keep_personal(self, client: str) -> None:
        """End the training of a client's personal model. Nothing is uploaded: each side keeps its part."""
        self._host.finish_personal(client)

    def report(self, client: str, round_: int, metric: float) -> None:
        """A client says how good its model is now, by which it decides when to stop."""
        self._cross(Channel.STATUS, client, round_, -1, metric=torch.tensor(metric, dtype=torch.float64))

    def download(self, client: str, round_: int) -> dict[str, Tensor]:
        """After the balance: the client's part of its own new model."""
        return self._cross(Channel.PERSONAL_MODEL, client, round_, -1, **self._host.personal_model(client))

    def serving(self, client: str, weights: Weights = "trained", *, catalogue: bool = False) -> "ServingSide":
        """The trunk of a personal model for requests of ``client``'s users, or to encode the ``catalogue``."""
        return ServingSide(self, client, weights, catalogue)

    # What the two sides of the cut call.

    def trunk_forward(
        self,
        client: str,
        round_: int,
        step: int,
        hidden: Float[Tensor, "batch seq hidden"],
        mask: Int[Tensor, "batch seq"],
    ) -> Float[Tensor, "batch seq hidden"]:
        up = self._cross(Channel.FRONT_ACTIVATIONS, client, round_, step, hidden=hidden)
        said = self._cross(Channel.METADATA, client, round_, step, mask=mask.to(torch.uint8))
        out = self._host.forward(client, step, up["hidden"], said["mask"].long())
        return self._cross(Channel.TRUNK_ACTIVATIONS, client, round_, step, hidden=out)["hidden"]

    def trunk_backward(
        self, client: str, round_: int, step: int, gradient: Float[Tensor, "batch seq hidden"]
    ) -> Float[Tensor, "batch seq hidden"]:
        up = self._cross(Channel.BACK_GRADIENTS, client, round_, step, gradient=gradient)
        out = self._host.backward(up["gradient"])
        return self._cross(Channel.TRUNK_GRADIENTS, client, round_, step, gradient=out)["gradient"]

    def finish_step(self, client: str, round_: int, step: int) -> None:
        """The client has taken its step; the server takes its own for this client's trunk."""
        inside = self._host.finish_step()
        if inside:
            self._record(Crossing(Channel.TRUNK_UPDATE, client, round_, step, inside))

    def serve(
        self, client: str, session: int | None, hidden: Float[Tensor, "batch seq hidden"],
        mask: Int[Tensor, "batch total"], weights: Weights,
    ) -> Float[Tensor, "batch seq hidden"]:  # fmt: skip
        fresh = mask[:, -hidden.shape[1] :].to(torch.uint8)  # the server has the mask of what came before
        up = self._cross(Channel.INFERENCE_ACTIVATIONS, client, 0, -1, hidden=hidden, mask=fresh)
        out = self._host.serve(client, session, up["hidden"], up["mask"].long(), weights)
        return self._cross(Channel.INFERENCE_OUTPUT, client, 0, -1, hidden=out)["hidden"]

    def open_session(self) -> int:
        return self._host.open_session()

    def reorder(self, client: str, session: int, beams: Int[Tensor, "batch"]) -> None:
        """Tell the server which beam each one goes on from; it holds their keys and values."""
        said = self._cross(Channel.INFERENCE_ACTIVATIONS, client, 0, -1, beams=beams.to(torch.int32))
        self._host.reorder(session, said["beams"].long())

    def _cross(self, channel: Channel, client: str, round_: int, step: int, **tensors: Tensor) -> dict[str, Tensor]:
        crossing = Crossing(channel, client, round_, step, tensors)
        for place, defense in enumerate(self._defenses):
            generator = torch.Generator().manual_seed(
                derive(self._seed, "defense", place, str(channel), client, round_, step) % 2**63
            )
            crossing = defense.apply(crossing, generator)
        self.sent[channel] += crossing.wire_bytes
        self._record(crossing)
        return dict(crossing.tensors)

    def _record(self, crossing: Crossing) -> None:
        if self.recorder is not None:
            self.recorder(crossing)


class TrainingSide:
    """The trunk as one client's model sees it during one round of training."""

    def __init__(self, link: Link, client: str, round_: int, step: int) -> None:
        self._link, self._client, self._round, self._step = link, client, round_, step
        # A front without trainable parameters (k = 0) has no graph, but the trunk must get its gradient all the same.
        self._anchor = torch.zeros((), requires_grad=True)

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        address = (self._client, self._round, self._step)
        return _Across.apply(hidden, self._anchor, self._link, address, mask)  # type: ignore[no-any-return, no-untyped-call]

    def open(self) -> "ServedSession":
        raise RuntimeError("training does not generate")

    def finish_step(self) -> None:
        self._link.finish_step(self._client, self._round, self._step)
        self._step += 1


class ServingSide:
    """The trunk as one client's model sees it when it serves a user."""

    def __init__(self, link: Link, client: str, weights: Weights, catalogue: bool) -> None:
        self._link, self._client, self._weights, self._catalogue = link, client, weights, catalogue

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        before = self._link.sent.total()
        out = self._link.serve(self._client, None, hidden, mask, self._weights)
        self._link.catalogue_bytes += self._catalogue * (self._link.sent.total() - before)
        return out

    def open(self) -> "ServedSession":
        return ServedSession(self._link, self._client, self._weights)


class ServedSession:
    """A generation in progress: the trunk's keys and values stay with the server under a number."""

    def __init__(self, link: Link, client: str, weights: Weights) -> None:
        self._link, self._client, self._weights = link, client, weights
        self._number = link.open_session()

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch total"]
    ) -> Float[Tensor, "batch seq hidden"]:
        return self._link.serve(self._client, self._number, hidden, mask, self._weights)

    def reorder(self, beams: Int[Tensor, "batch"]) -> None:
        self._link.reorder(self._client, self._number, beams)


class _Across(torch.autograd.Function):
    """Forward: h_k up, h_{L-m} down. Backward: dLoss/dh_{L-m} up, dLoss/dh_k down."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, anchor: Tensor, link: Link, address: tuple[str, int, int], mask: Tensor
    ) -> Tensor:
        del anchor
        ctx.link, ctx.address = link, address
        return link.trunk_forward(*address, hidden.detach(), mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.link.trunk_backward(*ctx.address, gradient), None, None, None, None

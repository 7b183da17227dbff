"""The contract of defenses: what one is, where it acts, and what its hooks get and answer.

A defense is a value: parameters in, hooks out. It subclasses `Defense`, names in ``acts`` where it acts, and has the
hooks of those places; all others do nothing. Whatever it must remember goes into `Turn.kept`, which is saved and
resumed with the training, and whatever it draws comes from `Turn.generator`, so that a replay repeats the round.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pplr_audit.threat_model.channels import Channel, Crossing

Act = Literal["sampler", "samples", "gradients", "wire", "updates", "sum"]
"""A place where a defense can act, in the order of a round: drawing batches; making one gradient of those of single
samples; changing gradients before a step; on the wire; on clients' updates at the server, before it mixes them; in
place of the clients' updates, as their sum."""
Unit = Literal["sample", "user", "client", "vector"]
Neighbors = Literal["add_or_remove", "replace"]
End = Literal["client", "server"]
"""One of the two ends of the link."""
ALL = "all"
"""Client of a turn that is about all clients."""


@dataclass(frozen=True)
class Turn:
    """One call of a hook: whose data it is about, when and at which end of the link it is made."""

    client: str
    """`ALL` where the hook is about all clients."""
    round: int
    step: int
    """Local step within the round, from 0; -1 outside of them."""
    end: End
    kept: MutableMapping[str, Tensor]
    """The defense's memory for this client at this end, saved and resumed with the training. Replace its tensors; do
    not change them in place."""
    draw: Callable[[str], torch.Generator]
    batch: int = 0
    """Samples in this step."""
    batch_size: int = 0
    """Samples that a step has in the mean, ``training.batch_size`` or all that there are: gradients are divided by it,
    whatever was drawn."""
    samples: int = 0
    """Samples that the client trains on."""

    def generator(self, name: str = "") -> torch.Generator:
        """Return a fresh generator of this turn. No other turn has it, but for a replay of this one.

        Both ends of one crossing get the same, so that they can share draws without sending them. Under the ``name`` of
        a parameter both ends of the cut get the same, so that noise on gradients does not depend on where the cut lies;
        without a name each end gets its own.
        """
        return self.draw(name)


@runtime_checkable
class PerSample(Protocol):
    """Gradients of single samples at one end of the cut, as its defense makes them."""

    def backward(
        self, output: Float[Tensor, "batch *rest"], gradient: Float[Tensor, "batch *rest"], entered: Tensor | None
    ) -> Tensor | None:
        """Go back from ``output`` once; row i of ``gradient`` is of sample i. Return the gradient at ``entered``.

        A client goes back twice, from the losses to what the server sent and from what it sent to the server: what both
        give for a parameter is added. A new forward pass begins with `clear`.
        """
        ...

    def squared_norms(self) -> Mapping[str, Float[Tensor, "batch"]]:
        """Return the squared L2 norm of each sample's gradient, by parameter."""
        ...

    def weighted_sum(
        self, weights: Float[Tensor, "batch"] | Mapping[str, Float[Tensor, "batch"]]
    ) -> Mapping[str, Tensor]:
        """Return the sum over samples of weight times gradient, by parameter. Weights may differ by parameter."""
        ...

    def clear(self) -> None:
        """Forget the step."""
        ...

    def close(self) -> None:
        """End the local training of a round: take hooks off the model."""
        ...


class Defense:
    """Subclass it, say where it ``acts``, and write the hooks of those places."""

    name: str = ""
    acts: ClassVar[frozenset[Act]] = frozenset()
    """Places where it acts. Each has a hook of the same name, but ``wire``, which has `apply`, or `encode` and
    `decode`; ``samples``, which has `combine`; and ``sampler``, which has `batches`."""
    channels: frozenset[Channel] = frozenset()
    """Channels on which the hooks of ``wire`` are called."""
    removes: frozenset[Channel] = frozenset()
    """Channels that it takes away: whoever saw them sees nothing there. One that leaves only the sum of the updates
    (``sum``) removes ``client_update``, and what remains is ``aggregate``."""
    holds_against: frozenset[str] = frozenset()
    """Adversaries that its formal guarantee binds; empty where it has none."""
    unit: Unit | None = None
    """Unit that its guarantee protects; None where it has none."""
    neighbors: Neighbors | None = None
    """Neighbor relation of its guarantee: two data sets are neighbors if a unit is added or removed, or is another."""
    at_cut: bool | None = None
    """True if what it does to a training depends on where the cut lies, so that each cut needs a training of its own.
    None: so it is where ``channels`` has one that crosses the cut or carries a client's own layers."""

    # Training.

    def batches(
        self, lengths: Int[np.ndarray, "samples"], size: int, generator: np.random.Generator
    ) -> Sequence[Int[np.ndarray, "batch"]]:
        """Draw the rows of each step of one epoch: ceil(samples / size) steps, of which some may be empty.

        Args:
            lengths: tokens of each sample.
            size: ``training.batch_size``.
        """
        raise NotImplementedError

    def per_sample(self, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> PerSample | None:
        """Make what takes gradients of single samples in one end's ``module``; None: the slow one that always works."""
        del module, parameters
        return None

    def tell(self, gradients: PerSample, turn: Turn) -> Mapping[str, Tensor]:
        """Return what this end tells the other one in a step. It crosses as ``metadata`` and is counted."""
        del gradients, turn
        return {}

    def combine(self, gradients: PerSample, heard: Mapping[str, Tensor], turn: Turn) -> Mapping[str, Tensor]:
        """Make the step's gradient, one tensor a parameter of this end, out of those of its samples.

        Args:
            heard: what the other end told; empty where there is none (no trunk).
        """
        raise NotImplementedError

    def gradients(self, gradients: Mapping[str, Tensor], turn: Turn) -> Mapping[str, Tensor]:
        """Return what the optimizer gets in place of this end's ``gradients``, by parameter."""
        raise NotImplementedError

    # The wire.

    def apply(self, crossing: Crossing, turn: Turn) -> Mapping[str, Tensor]:
        """Return what the receiver gets in place of ``crossing``'s tensors: the same names, shapes and types.

        It is `encode` for a defense that changes values and needs nothing undone.
        """
        raise NotImplementedError

    def encode(self, crossing: Crossing, turn: Turn) -> Mapping[str, Tensor]:
        """Return what crosses in place of ``crossing``'s tensors, at the sender. Its bytes are those that count."""
        return self.apply(crossing, turn)

    def decode(self, crossing: Crossing, turn: Turn) -> Mapping[str, Tensor]:
        """Make the sender's tensors again of what crossed: the same names, shapes and types. At the receiver."""
        del turn
        return crossing.tensors

    # Aggregation.

    def updates(self, updates: Mapping[str, Mapping[str, Tensor]], turn: Turn) -> Mapping[str, Mapping[str, Tensor]]:
        """Return what the server mixes in place of the clients' updates, the same clients, names, shapes and types.

        Args:
            updates: by client its whole adapter before the round - after it.
        """
        raise NotImplementedError

    def sum(self, updates: Mapping[str, Mapping[str, Tensor]], turn: Turn) -> Mapping[str, Tensor]:
        """Return all that the server learns of the clients' updates: their sum.

        Args:
            updates: by client the update of its own layers times its number of samples, in float64.
        """
        raise NotImplementedError


def poisson(samples: int, size: int, generator: np.random.Generator) -> list[Int[np.ndarray, "batch"]]:
    """Draw the batches of one epoch by Poisson sampling: each sample is in each step with probability size / samples.

    A step may be empty, and counts. There are as many steps as with batches of ``size``: ceil(samples / size). (Mironov
    et al. 2019, arXiv 1908.10530, section 3.3: the sampler that the accountants of the subsampled Gaussian assume.)

    >>> [len(rows) for rows in poisson(5, 5, np.random.default_rng(0))]  # all of them, always
    [5]
    """
    rate = min(size / samples, 1.0)
    return [np.flatnonzero(generator.random(samples) < rate) for _ in range(-(-samples // size))]

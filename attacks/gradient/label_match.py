"""Label matching: which next item's loss has the gradient that came back over the cut (UnSplit, BiSR's backward part).

What crosses is g = dLoss/dh for the activations h = h_{L-m} that the server had sent. With z(h) what the client's last
layers make of them, the loss is a cross-entropy: what does not depend on the label, less l(z), the logits of the label.
With r = g - d(the first part)/dh, the label is the one whose dl/dh is nearest to -r:

    |r + dl/dh|^2 = |r|^2 + 2 l(dz along r) + |dl/dh|^2

The second term is exact for all labels in one pass, the third is estimated from random directions u, as the mean of
l(dz along u)^2. Of the labels that are best by this the gradient is worked out exactly; the nearest is the answer.

RecFormer's label is one item. BIGRec's is a title at the end of the sequence, the mean over its tokens; where it starts
is not known, so every length that a title has is tried (``training.loss_on: all`` would add the history's own tokens,
which are not known either).

Sources: UnSplit (Erdogan et al. 2022, arXiv 2108.09033) compares the gradients of all labels; BiSR (Chen et al. 2024,
arXiv 2409.00960) optimises soft labels, for which the lines above are the closed form, as the loss is linear in them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.activation.titles import LABELS
from pplr_audit.channels import Channel
from pplr_audit.data.prompts import Prompts
from pplr_audit.errors import InputError
from pplr_audit.views import Budget, Guess, Knowledge, Model, NotApplicable, View

TOGETHER = 1 << 25
"""Elements of z held at once."""
NUDGE = 1e-3
"""Of the length of h, by which it is moved to measure a derivative."""
PROBES = 32
"""Random directions."""

Back = Callable[[Float[Tensor, "batch length hidden"]], Tensor]
"""z(h)."""


class LabelMatch:
    """Ranks the catalogue by how well each item as the label explains the gradient.

    Args:
        shortlist: items whose gradient is worked out exactly.
    """

    name = "label_match"
    secret = "label"
    channels = frozenset({Channel.BACK_GRADIENTS})
    beside = frozenset({Channel.TRUNK_ACTIVATIONS})
    controls = 1

    def __init__(self, shortlist: int = 32) -> None:
        if isinstance(shortlist, bool) or not isinstance(shortlist, int) or shortlist < 1:
            raise InputError(f"label_match: shortlist is {shortlist!r} (accepted: a whole number, 1 or more)")
        self.shortlist = shortlist

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if view.back is None:
            raise NotApplicable("the channel does not depend on a back")
        if not view.records:
            raise NotApplicable("nothing crossed that belongs to a victim")
        layer = knowledge.depth - view.back
        labels = np.full((len(view.records), LABELS), -1, dtype=np.int64)
        left = []
        for place, record in enumerate(view.records):
            budget.check()
            hidden = record.beside[Channel.TRUNK_ACTIVATIONS]
            gradient = record.tensor * record.batch  # the loss is the mean over the batch
            if not bool((gradient.isfinite() & hidden.isfinite()).all()):
                raise NotApplicable(f"what crossed of row {record.row} is not finite")
            back = _back(knowledge.copy(record.client, record.round), layer)
            found, distance = self._ranked(back, hidden, gradient, knowledge.prompts)
            labels[place, : len(found)] = found
            left.append(distance / max(float(gradient.norm()), 1e-30))
        facts = {"shortlist": self.shortlist, "median_distance": float(np.median(left))}
        return Guess({"rows": np.array([record.row for record in view.records]), "labels": labels}, facts)

    def _ranked(
        self, back: Back, hidden: Float[Tensor, "length hidden"], gradient: Float[Tensor, "length hidden"],
        prompts: Prompts,
    ) -> tuple[Int[np.ndarray, "labels"], float]:  # fmt: skip
        """Items, the best first, and how far the gradient of the best is from what crossed."""
        with torch.no_grad():
            logits = back(hidden[None])
        together = max(1, TOGETHER // logits.numel())
        places: list[Place] = [OneItem()] if logits.dim() == 2 else list(title_places(prompts, len(hidden)))
        probes = torch.randn(PROBES, *hidden.shape, generator=torch.Generator().manual_seed(0))
        squares = [torch.zeros(())] * len(places)
        for part in probes.split(together):
            for along in _derivatives(back, hidden, part):
                squares = [s + place.logits(along).square() for s, place in zip(squares, places, strict=True)]
        scores = []
        for start in range(0, len(places), together):
            part = places[start : start + together]
            rest = gradient - _gradients(back, hidden, [place.constant for place in part])
            along = _derivatives(back, hidden, rest)
            scores += [r.square().sum() + 2 * place.logits(dz) for place, r, dz in zip(part, rest, along, strict=True)]
        labels = [(place, label) for place, own in zip(places, scores, strict=True) for label in range(len(own))]
        estimates = torch.cat([own + square / PROBES for own, square in zip(scores, squares, strict=True)])
        order = torch.argsort(estimates, stable=True)[:LABELS].tolist()
        near = [labels[i] for i in order[: self.shortlist]]
        exact = _distances(back, hidden, gradient, near, together)
        ahead = [near[i] for i in np.argsort(exact, kind="stable")]
        ranked = [place.item(label) for place, label in (*ahead, *(labels[i] for i in order[self.shortlist :]))]
        return np.array(ranked, dtype=np.int64), float(exact.min())


class Place(Protocol):
    """Where in z a label stands: the loss is ``constant`` less the label's ``logits``."""

    def constant(self, z: Float[Tensor, "*answers"]) -> Float[Tensor, ""]:
        """What is the same for all labels."""
        ...

    def logits(self, z: Float[Tensor, "*answers"]) -> Float[Tensor, "labels"]:
        """Each label's own."""
        ...

    def item(self, label: int) -> int:
        """Which item the label is."""
        ...


class OneItem:
    """The label is an item of the catalogue."""

    def constant(self, z: Float[Tensor, "items"]) -> Float[Tensor, ""]:
        return z.logsumexp(0)

    def logits(self, z: Float[Tensor, "items"]) -> Float[Tensor, "items"]:
        return z

    def item(self, label: int) -> int:
        return label


class Title:
    """The label is one of the titles with so many tokens, before the end of the template."""

    def __init__(
        self, items: Int[np.ndarray, "labels"], tokens: Int[Tensor, "labels tokens"], end: Int[Tensor, "end"],
        length: int,
    ) -> None:  # fmt: skip
        self._items, self._tokens, self._end = items, tokens, end
        self._count = tokens.shape[1] + len(end)
        self._predicted = torch.arange(length - self._count - 1, length - 1)

    def constant(self, z: Float[Tensor, "length vocab"]) -> Float[Tensor, ""]:
        behind = z[self._predicted[self._tokens.shape[1] :], self._end]
        return (z[self._predicted].logsumexp(1).sum() - behind.sum()) / self._count

    def logits(self, z: Float[Tensor, "length vocab"]) -> Float[Tensor, "labels"]:
        return z[self._predicted[: self._tokens.shape[1]], self._tokens].sum(1) / self._count

    def item(self, label: int) -> int:
        return int(self._items[label])


def title_places(prompts: Prompts, length: int) -> Iterator[Title]:
    """One for each length of a title that a sequence of ``length`` tokens can end with."""
    lengths, end = prompts.titles.lengths, torch.from_numpy(prompts.end)
    around = len(prompts.prefix) + len(prompts.suffix) + len(prompts.end)
    for size in np.unique(lengths):
        if size + around < length:
            items = np.flatnonzero(lengths == size)
            tokens = torch.from_numpy(np.stack([prompts.titles[item] for item in items]))
            yield Title(items, tokens, end, length)


def _back(model: Model, layer: int) -> Back:
    return lambda hidden: model.logits(layer, hidden)


def _gradients(
    back: Back, hidden: Float[Tensor, "length hidden"], values: list[Callable[[Tensor], Tensor]]
) -> Float[Tensor, "values length hidden"]:
    """The gradient of each value of z(h), in one pass."""
    copies = hidden.expand(len(values), -1, -1).clone().requires_grad_()
    with torch.enable_grad():
        z = back(copies)
        total = sum((value(row) for value, row in zip(values, z.unbind(), strict=True)), start=z.new_zeros(()))
        found: Tensor = torch.autograd.grad(total, copies)[0]
    return found


@torch.no_grad()
def _derivatives(
    back: Back, hidden: Float[Tensor, "length hidden"], along: Float[Tensor, "rows length hidden"]
) -> Float[Tensor, "rows *answers"]:
    """The derivative of z(h) along each direction, by central differences."""
    size = along.flatten(1).norm(dim=1).clamp_min(1e-30)
    step = NUDGE * hidden.norm() / size
    moved = step[:, None, None] * along
    found = back(hidden + moved) - back(hidden - moved)
    return found.div((2 * step).reshape(-1, *[1] * (found.dim() - 1)))


def _distances(
    back: Back, hidden: Float[Tensor, "length hidden"], gradient: Float[Tensor, "length hidden"],
    labels: Sequence[tuple[Place, int]], together: int,
) -> Float[np.ndarray, "labels"]:  # fmt: skip
    """How far the exact gradient of each label's loss is from what crossed."""

    def loss(place: Place, label: int) -> Callable[[Tensor], Tensor]:
        return lambda z: place.constant(z) - place.logits(z)[label]

    found = []
    for start in range(0, len(labels), together):
        part = [loss(place, label) for place, label in labels[start : start + together]]
        found.append((_gradients(back, hidden, part) - gradient).flatten(1).norm(dim=1))
    return torch.cat(found).numpy()

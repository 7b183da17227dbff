"""Label matching: finds the next item whose loss has the returned gradient (UnSplit, the backward part of BiSR).

What crosses is g = dLoss/dh for the activations h = h_{L-m} that the server had sent. The server runs its copy of the
client's last layers on h and asks of every label y how far its loss is from having that gradient. Measured from any
loss c whose gradient is known (at first the constant 0), with r = g - grad c and s(u) the slope of a loss along u:

    |g - grad y|^2 = |r|^2 - 2 (s_y - s_c)(r) + |grad y - grad c|^2

The second term is exact for all labels in one pass, the third is estimated as the mean of (s_y - s_c)(u)^2 over random
directions u. Of the labels nearest by this the gradient is worked out exactly; the nearest of those is the next c,
around which the estimate is sharper, until that brings nothing nearer. Labels that are by it more than twice as far as
the nearest are left out then.

Where no label's loss is what came back, as with negatives that the server does not know, the change of the loss with
each item's score is solved for instead (`closed_form`), and taken where it leaves less than half as much unexplained.

A sample crosses once an epoch, with another gradient each time and one label. If a copy explains one crossing exactly,
that one is read. Else a label is as far as the geometric mean of its distances over all crossings (`unexplained`), each
by the copy that explains it better. The turns look for that minimum: to first order it weights each crossing's square
by 1 / |r|^2. The closed form's changes are averaged with the same weights (`pooled`).

RecFormer's label is one item. BIGRec's is a title at the end of the sequence, the mean over its tokens; where it starts
is not known, so titles of every length are tried. With ``training.loss_on: all`` every token of the sequence is a
label, and no item alone explains the gradient: soft labels are optimized (`soft_labels`), which read the history too.

Sources: UnSplit (Erdogan et al. 2022, arXiv 2108.09033) compares the gradients of all labels; BiSR (Chen et al. 2024,
arXiv 2409.00960) optimizes soft labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from pplr_audit.attacks.decoding.crossings import TINY, Taken, by_row, once, pooled, unexplained
from pplr_audit.attacks.decoding.titles import LABELS, TitleReader
from pplr_audit.attacks.decoding.word_scores import answered, require_readable, require_whole
from pplr_audit.attacks.gradient.closed_form import solved
from pplr_audit.attacks.gradient.soft_labels import STEPS, words_of
from pplr_audit.data.prompts import Prompts
from pplr_audit.scoring.ranking import best_first
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Model, When
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View

TOGETHER = 1 << 25
"""Elements of z held at once."""
UNEXPLAINED = 0.5
"""Share of what came back, in units of its norm: where the best label leaves more, a closed form is looked at, too."""
EXACT = 1e-3
"""Share left unexplained up to which no other copy of the model is tried, and no other crossing."""
FAR = 3.0
"""A label whose estimate around the nearest is larger, in units of the square of what that one leaves, is not looked
at: it leaves more than twice as much."""
TURNS = 8
"""Losses to measure from, at the most."""

Back = Callable[[Float[Tensor, "batch length hidden"]], Tensor]
"""z(h): what the last layers make of h."""


class Ranked(NamedTuple):
    """An answer from one crossing or several of a row."""

    items: Int[np.ndarray, "labels"]
    """The best first."""
    distance: float
    """The share of what came back that the best leaves unexplained."""
    clear: int | None = None
    """The label that is the best one, if the next best leaves at least twice as much."""


class LabelMatch:
    """Ranks the catalogue by how well each item as the label explains the gradient.

    Args:
        shortlist: labels whose gradient is worked out exactly in each turn.
        probes: random directions by which the sizes of gradients are estimated.
        steps: of the soft labels of a row, at most (``training.loss_on: all``).
    """

    name = "label_match"
    secret = "label"
    channels = frozenset({Channel.BACK_GRADIENTS})
    also_reads = frozenset({Channel.TRUNK_ACTIVATIONS})
    controls = 1
    every_crossing = True

    def __init__(self, shortlist: int = 16, probes: int = 32, steps: int = STEPS) -> None:
        require_whole("label_match", shortlist=(shortlist, 1), probes=(probes, 1), steps=(steps, 1))
        self.shortlist, self.probes, self.steps = shortlist, probes, steps

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if view.back is None:
            raise NotApplicable("the channel does not depend on a back")
        require_readable(view, knowledge)
        if knowledge.loss_on == "all":
            return self._whole(view, view.back, knowledge, budget)
        rows, taken = by_row(view.records), Taken(view.records)
        answers = np.full((len(rows), LABELS), -1, dtype=np.int64)
        left = []
        for place, crossings in enumerate(rows.values()):
            budget.check(place, len(rows))
            found = self.ranked(crossings, view.back, knowledge, taken)
            answers[place, : len(found.items)] = found.items
            left.append(found.distance)
        facts = {
            "shortlist": self.shortlist, "median_distance": float(np.median(left)), **taken.facts(knowledge),
        }  # fmt: skip
        return Guess({"rows": np.array([*rows]), "labels": answers}, facts)

    def _whole(self, view: View, back: int, knowledge: Knowledge, budget: Budget) -> Guess:
        """The whole sequence, where all of it is trained on."""
        reader, rows, taken = TitleReader(knowledge.prompts), by_row(view.records), Taken(view.records)
        found = []
        for place, crossings in enumerate(rows.values()):
            budget.check(place, len(rows))
            found.append(words_of(crossings, back, knowledge, reader, budget, taken, self.steps))
        facts = {"median_distance": float(np.median([distance for _, distance in found])), **taken.facts(knowledge)}
        return answered(once(view), reader, (fit for fit, _ in found), facts)

    def ranked(self, crossings: Sequence[Record], back: int, knowledge: Knowledge, taken: Taken) -> Ranked:
        """Return the answer where the answer alone is trained on.

        Args:
            crossings: of one row.
            taken: counts the copies and crossings that the answer is from.

        Raises NotApplicable where there is no model to run.
        """
        returned, copies = [], []
        for record in crossings:
            found, own, when = self._by_copies(record, back, knowledge)
            if found.distance <= EXACT or len(crossings) == 1:
                taken.alone(when, record)
                return found
            returned.append(own)
            copies.append(when)
        taken.joined(copies)
        return self._by(returned, knowledge, crossings[0].row)

    def _by_copies(self, record: Record, back: int, knowledge: Knowledge) -> tuple[Ranked, "Returned", When]:
        """The answer from one crossing, by the copy that leaves the least of it unexplained.

        Where one copy tells a label clearly from all others, the next is asked about that label alone.
        """
        best: tuple[Ranked, Returned, When] | None = None
        for when, model in knowledge.copies_of(record.client, record.round).items():
            own = Returned.of(record, model, knowledge.depth - back)
            if best is None or best[0].clear is None:
                found = self._by([own], knowledge, record.row)
            else:
                found = best[0]._replace(distance=own.unexplained_by(best[0].clear, knowledge.prompts))
            if best is None or found.distance < best[0].distance:
                best = found, own, when
            if found.distance <= EXACT:
                break
        assert best is not None
        return best

    def _by(self, crossings: Sequence["Returned"], knowledge: Knowledge, row: int) -> Ranked:
        """Items, the best first, and how much the best leaves unexplained of all crossings of a row."""
        told = [each for each in crossings if each.size]
        if not told:  # every label has a gradient, so nothing is what came back
            return Ranked(np.empty(0, dtype=np.int64), 1.0)
        found = self._ranked(told, knowledge.prompts, row)
        distance = found.distance
        if knowledge.base.causal or distance < UNEXPLAINED:
            return found
        # No label's loss is what came back: perhaps it is another loss of the same scores.
        others = [solved(each.back, each.hidden, each.gradient, wanted=distance / 2) for each in told]
        rest = unexplained([other.distance for other in others])
        if rest > distance / 2:
            return found
        apart = [other.distance * each.size for other, each in zip(others, told, strict=True)]
        change = pooled([other.change for other in others], apart)
        return Ranked(best_first(-change, _order(len(change), row))[:LABELS], rest)

    def _ranked(self, crossings: Sequence["Returned"], prompts: Prompts, row: int) -> Ranked:
        """Return the items by how far their gradients are from what crossed."""
        first = crossings[0]
        with torch.no_grad():
            z = first.back(first.hidden[None])
        together = max(1, TOGETHER // z.numel())
        labels = _labels(z, prompts)
        if not len(labels.items):
            return Ranked(labels.items, 1.0)
        mixed = torch.from_numpy(_order(len(labels.items), row))
        probes = torch.randn(self.probes, *first.hidden.shape, generator=torch.Generator().manual_seed(0))
        along = [
            torch.cat([_slopes(each.back, each.hidden, part, labels) for part in probes.split(together)])
            for each in crossings
        ]
        distances: dict[int, float] = {}
        center, rests, order = None, [each.gradient for each in crossings], torch.empty(0)
        for _ in range(TURNS):
            sizes = [max(float(rest.norm()), TINY) for rest in rests]
            estimates = [
                _squares(each, rest, own, labels, center) * (sizes[0] / size) ** 2
                for each, rest, own, size in zip(crossings, rests, along, sizes, strict=True)
            ]
            short = torch.stack(estimates).sum(0)[mixed]
            order = mixed[torch.argsort(short, stable=True)]
            near = len(order) if center is None else int((short < FAR * len(rests) * sizes[0] ** 2).sum())
            fresh = [label for label in order[:near].tolist() if label not in distances][: self.shortlist]
            for start in range(0, len(fresh), together):
                part = fresh[start : start + together]
                away = [each.gradient - _gradients(each.back, each.hidden, part, labels) for each in crossings]
                norms = [each.flatten(1).norm(dim=1).tolist() for each in away]
                distances |= {label: unexplained(own) for label, *own in zip(part, *norms, strict=True)}
                nearest = min(part, key=distances.__getitem__)
                if center is None or distances[nearest] < distances[center]:
                    center, rests = nearest, [each[part.index(nearest)] for each in away]
            if center not in fresh:
                break
        ahead = sorted(distances, key=distances.__getitem__)
        ranked = ahead + [label for label in order.tolist() if label not in distances]
        nearest, whole = distances[ahead[0]], unexplained([each.size for each in crossings])
        clear = ahead[0] if len(ahead) > 1 and distances[ahead[1]] >= 2 * nearest else None
        return Ranked(labels.items[np.array(ranked[:LABELS])], nearest / whole, clear)


@dataclass(frozen=True)
class Returned:
    """One crossing of a sequence, as a copy of the client's last layers is held against it."""

    back: Back
    hidden: Float[Tensor, "length hidden"]
    gradient: Float[Tensor, "length hidden"]
    """The gradient of the sequence's own loss, that came back."""

    @classmethod
    def of(cls, record: Record, model: Model, layer: int) -> "Returned":
        """Args: ``layer``: the one that the copy is entered at."""
        gradient = record.tensor * record.batch  # the loss is the mean over the batch
        return cls(partial(model.logits, layer), record.also_reads[Channel.TRUNK_ACTIVATIONS], gradient)

    @property
    def size(self) -> float:
        return float(self.gradient.norm())

    def unexplained_by(self, label: int, prompts: Prompts) -> float:
        """Return what one label leaves, as a share of what came back."""
        with torch.no_grad():
            labels = _labels(self.back(self.hidden[None]), prompts)
        (own,) = _gradients(self.back, self.hidden, [label], labels)
        return float((self.gradient - own).norm()) / max(self.size, TINY)


class Labels(Protocol):
    """All labels there are, and the loss of each."""

    items: Int[np.ndarray, "labels"]
    """The item that each stands for."""

    def losses(self, z: Float[Tensor, "batch *answers"]) -> Float[Tensor, "batch labels"]: ...
    def loss(self, z: Float[Tensor, "*answers"], label: int) -> Float[Tensor, ""]: ...


class Items:
    """A label is an item of the catalogue."""

    def __init__(self, count: int) -> None:
        self.items = np.arange(count)

    def losses(self, z: Float[Tensor, "batch items"]) -> Float[Tensor, "batch items"]:
        return z.logsumexp(1, keepdim=True) - z

    def loss(self, z: Float[Tensor, "items"], label: int) -> Float[Tensor, ""]:
        return z.logsumexp(0) - z[label]


class Titles:
    """A label is a title that a sequence of ``length`` tokens can end with, before the end of the template; there may
    be none that can."""

    def __init__(self, prompts: Prompts, length: int) -> None:
        sizes = prompts.titles.lengths
        around = len(prompts.prefix) + len(prompts.suffix) + len(prompts.end)
        fitting = np.flatnonzero(sizes + around <= length)
        self.items = fitting[np.argsort(sizes[fitting], kind="stable")]
        _, starts = np.unique(sizes[self.items], return_index=True)
        self._starts = [*starts.tolist(), len(self.items)]
        self._tokens = [
            torch.from_numpy(np.stack([np.concatenate([prompts.titles[item], prompts.end]) for item in same]))
            for same in np.split(self.items, starts[1:])
            if len(same)
        ]

    def losses(self, z: Float[Tensor, "batch length vocab"]) -> Float[Tensor, "batch labels"]:
        return torch.cat([self._means(z, tokens) for tokens in self._tokens], dim=1)

    def loss(self, z: Float[Tensor, "length vocab"], label: int) -> Float[Tensor, ""]:
        group = int(np.searchsorted(self._starts, label, side="right")) - 1
        return self._means(z[None], self._tokens[group][label - self._starts[group]][None])[0, 0]

    @staticmethod
    def _means(
        z: Float[Tensor, "batch length vocab"], tokens: Int[Tensor, "labels tokens"]
    ) -> Float[Tensor, "batch labels"]:
        """Mean loss of the last tokens of each sequence, every one predicted one place before."""
        count = tokens.shape[1]
        own = z[:, -count - 1 : -1]
        return (own.logsumexp(2).sum(1)[:, None] - own[:, torch.arange(count), tokens].sum(2)) / count


def _labels(z: Float[Tensor, "one *answers"], prompts: Prompts) -> Labels:
    """Return all labels there are for these logits of one sequence."""
    return Items(z.shape[1]) if z.dim() == 2 else Titles(prompts, z.shape[1])


def _order(labels: int, row: int) -> Int[np.ndarray, "labels"]:
    """All labels in an order drawn for a row: those that explain it equally well stay so."""
    return np.random.default_rng(row).permutation(labels)


def _squares(
    crossing: Returned, rest: Float[Tensor, "length hidden"], along: Float[Tensor, "probes labels"], labels: "Labels",
    center: int | None,
) -> Float[Tensor, "labels"]:  # fmt: skip
    """Estimate how far each label's gradient is from what crossed, squared, less |rest|^2.

    Args:
        rest: what the center's gradient leaves of it.
        along: the slopes of all losses along the probes.
    """
    slopes = _slopes(crossing.back, crossing.hidden, rest[None], labels)[0]
    if center is None:
        return along.square().mean(0) - 2 * slopes
    return (along - along[:, center, None]).square().mean(0) - 2 * (slopes - slopes[center])


@torch.no_grad()
def _slopes(
    back: Back, hidden: Float[Tensor, "length hidden"], along: Float[Tensor, "rows length hidden"], labels: Labels
) -> Float[Tensor, "rows labels"]:
    """The slope of each label's loss at h along each direction, by forward-mode differentiation."""
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode
        z = back(forward_ad.make_dual(hidden.expand_as(along).clone(), along))
        found: Tensor | None = forward_ad.unpack_dual(labels.losses(z)).tangent
    assert found is not None
    return found


def _gradients(
    back: Back, hidden: Float[Tensor, "length hidden"], chosen: Sequence[int], labels: Labels
) -> Float[Tensor, "chosen length hidden"]:
    """The gradient of each chosen label's loss at h, in one pass."""
    copies = hidden.expand(len(chosen), -1, -1).clone().requires_grad_()
    with torch.enable_grad():
        z = back(copies)
        total = torch.stack([labels.loss(row, label) for row, label in zip(z.unbind(), chosen, strict=True)]).sum()
        found: Tensor = torch.autograd.grad(total, copies)[0]
    return found

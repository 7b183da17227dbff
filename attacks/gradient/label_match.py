"""Label matching: finds the next item whose loss has the returned gradient (UnSplit, the backward part of BiSR).

What crosses is g = dLoss/dh for the activations h = h_{L-m} that the server had sent. The server runs its copy of the
client's last layers on h and asks of every label y how far its loss is from having that gradient. Measured from any
loss c whose gradient is known (at first the constant 0), with r = g - grad c and s(u) the slope of a loss along u:

    |g - grad y|^2 = |r|^2 - 2 (s_y - s_c)(r) + |grad y - grad c|^2

The second term is exact for all labels in one pass, the third is estimated as the mean of (s_y - s_c)(u)^2 over random
directions u. Of the labels nearest by this the gradient is worked out exactly; the nearest of those is the next c,
around which the estimate is sharper, until that brings nothing nearer.

Where no label's loss is what came back, as with negatives that the server does not know, the change of the loss with
each item's score is solved for instead (`closed_form`), and taken where it leaves less than half as much unexplained.

RecFormer's label is one item. BIGRec's is a title at the end of the sequence, the mean over its tokens; where it starts
is not known, so titles of every length are tried. With ``training.loss_on: all`` every token of the sequence is a
label, and no item alone explains the gradient: soft labels are optimized (`soft_labels`), which read the history too.

Sources: UnSplit (Erdogan et al. 2022, arXiv 2108.09033) compares the gradients of all labels; BiSR (Chen et al. 2024,
arXiv 2409.00960) optimizes soft labels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from pplr_audit.attacks.decoding.copies import taken_facts
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
PROBES = 32
"""Random directions."""
UNEXPLAINED = 0.5
"""Share of what came back, in units of its norm: where the best label leaves more, a closed form is looked at, too."""
EXACT = 1e-3
"""Share left unexplained up to which no other copy of the model is tried."""
TURNS = 8
"""Losses to measure from, at the most."""

Back = Callable[[Float[Tensor, "batch length hidden"]], Tensor]
"""z(h): what the last layers make of h."""


class LabelMatch:
    """Ranks the catalogue by how well each item as the label explains the gradient.

    Args:
        shortlist: labels whose gradient is worked out exactly in each turn.
        steps: of the soft labels of a row, at most (``training.loss_on: all``).
    """

    name = "label_match"
    secret = "label"
    channels = frozenset({Channel.BACK_GRADIENTS})
    also_reads = frozenset({Channel.TRUNK_ACTIVATIONS})
    controls = 1

    def __init__(self, shortlist: int = 16, steps: int = STEPS) -> None:
        require_whole("label_match", shortlist=(shortlist, 1), steps=(steps, 1))
        self.shortlist, self.steps = shortlist, steps

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if view.back is None:
            raise NotApplicable("the channel does not depend on a back")
        require_readable(view, knowledge)
        if knowledge.loss_on == "all":
            return self._whole(view, view.back, knowledge, budget)
        answers = np.full((len(view.records), LABELS), -1, dtype=np.int64)
        left, taken = [], []
        for place, record in enumerate(view.records):
            budget.check(place, len(view.records))
            found, distance, when = self.ranked(record, view.back, knowledge)
            answers[place, : len(found)] = found
            left.append(distance)
            taken.append(when)
        facts = {
            "shortlist": self.shortlist, "median_distance": float(np.median(left)),
            **taken_facts(knowledge, Counter(taken)),
        }  # fmt: skip
        return Guess({"rows": np.array([record.row for record in view.records]), "labels": answers}, facts)

    def _whole(self, view: View, back: int, knowledge: Knowledge, budget: Budget) -> Guess:
        """The whole sequence, where all of it is trained on."""
        reader = TitleReader(knowledge.prompts)
        found = []
        for place, record in enumerate(view.records):
            budget.check(place, len(view.records))
            found.append(words_of(record, back, knowledge, reader, budget, self.steps))
        facts = {
            "median_distance": float(np.median([distance for _, distance, _ in found])),
            **taken_facts(knowledge, Counter(when for *_, when in found)),
        }  # fmt: skip
        return answered(view, reader, (fit for fit, *_ in found), facts)

    def ranked(self, record: Record, back: int, knowledge: Knowledge) -> tuple[Int[np.ndarray, "labels"], float, When]:
        """Items, the best first, how much of what came back the best leaves unexplained, from 0 to about 1, and the
        copy by which that is least, where the answer alone is trained on.

        Raises NotApplicable where there is no model to run.
        """
        best: tuple[Int[np.ndarray, labels], float, When] | None = None
        for when, model in knowledge.copies_of(record.client, record.round).items():
            found, distance = self._by(model, record, back, knowledge)
            if best is None or distance < best[1]:
                best = found, distance, when
            if distance <= EXACT:
                break
        assert best is not None
        return best

    def _by(
        self, model: Model, record: Record, back: int, knowledge: Knowledge
    ) -> tuple[Int[np.ndarray, "labels"], float]:
        """Items, the best first, and how much the best leaves unexplained, by one copy."""
        hidden = record.also_reads[Channel.TRUNK_ACTIVATIONS]
        gradient = record.tensor * record.batch  # the loss is the mean over the batch
        size = float(gradient.norm())
        if not size:  # every label has a gradient, so nothing is what came back
            return np.empty(0, dtype=np.int64), 1.0
        run = _back(model, knowledge.depth - back)
        found, away = self._ranked(run, hidden, gradient, knowledge.prompts, record.row)
        distance = away / size
        if model.causal or distance < UNEXPLAINED:
            return found, distance
        # No label's loss is what came back: perhaps it is another loss of the same scores.
        other = solved(run, hidden, gradient, wanted=distance / 2)
        if other.distance > distance / 2:
            return found, distance
        return best_first(-other.change, _order(len(other.change), record.row))[:LABELS], other.distance

    def _ranked(
        self, back: Back, hidden: Float[Tensor, "length hidden"], gradient: Float[Tensor, "length hidden"],
        prompts: Prompts, row: int,
    ) -> tuple[Int[np.ndarray, "labels"], float]:  # fmt: skip
        """Items, the best first, and how far the gradient of the best is from what crossed."""
        with torch.no_grad():
            z = back(hidden[None])
        together = max(1, TOGETHER // z.numel())
        labels: Labels = Items(z.shape[1]) if z.dim() == 2 else Titles(prompts, len(hidden))
        if not len(labels.items):
            return labels.items, float(gradient.norm())
        mixed = torch.from_numpy(_order(len(labels.items), row))
        probes = torch.randn(PROBES, *hidden.shape, generator=torch.Generator().manual_seed(0))
        along = torch.cat([_slopes(back, hidden, part, labels) for part in probes.split(together)])
        distances: dict[int, float] = {}
        center, rest, order = None, gradient, torch.empty(0)
        for _ in range(TURNS):
            slopes = _slopes(back, hidden, rest[None], labels)[0]
            if center is not None:
                slopes, difference = slopes - slopes[center], along - along[:, center, None]
            else:
                difference = along
            short = (difference.square().mean(0) - 2 * slopes)[mixed]
            order = mixed[torch.argsort(short, stable=True)]
            fresh = [label for label in order.tolist() if label not in distances][: self.shortlist]
            for start in range(0, len(fresh), together):
                part = fresh[start : start + together]
                away = gradient - _gradients(back, hidden, part, labels)
                distances |= zip(part, away.flatten(1).norm(dim=1).tolist(), strict=True)
                nearest = min(part, key=distances.__getitem__)
                if center is None or distances[nearest] < distances[center]:
                    center, rest = nearest, away[part.index(nearest)]
            if center not in fresh:
                break
        ahead = sorted(distances, key=distances.__getitem__)
        ranked = ahead + [label for label in order.tolist() if label not in distances]
        return labels.items[np.array(ranked[:LABELS])], distances[ahead[0]]


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


def _order(labels: int, row: int) -> Int[np.ndarray, "labels"]:
    """All labels in an order drawn for a row: those that explain it equally well stay so."""
    return np.random.default_rng(row).permutation(labels)


def _back(model: Model, layer: int) -> Back:
    return lambda hidden: model.logits(layer, hidden)


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

"""Both ways: joins the activations and the returned gradient to read the history and the next item (BiSR).

The ridge inverter reads the front activations, `label_match` the return gradient; each ranks the catalogue for the next
item, the first one only where the training sequence holds the answer (BIGRec). An item's score is the sum of 1 / its
place in each ranking, weighted by how much that side explains: forward, the mean cosine of the answer's best words;
backward, the share of the gradient's square that the best label's gradient takes away. So an exact side decides, and
one that is noise counts for nothing.

Of several crossings of a row each side reads those that explain it: the ridge inverter the best one, `label_match` all.

With ``training.loss_on: all`` every token is a label. Then the gradient is matched from the ridge inverter's answer on,
as BiSR does, and the two sides' words are joined at each position, weighted in the same way.

Source: BiSR (Chen et al. 2024, arXiv 2409.00960) starts from a learned inversion and goes on by matching gradients;
where the answer alone is trained on, each side is solved in closed form here, and they are joined at the label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.copies import Copies
from pplr_audit.attacks.decoding.crossings import Taken, by_row, once
from pplr_audit.attacks.decoding.titles import LABELS, TitleReader
from pplr_audit.attacks.decoding.word_scores import answered, best_read, learned_of, require_records
from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.attacks.gradient.soft_labels import STEPS, words_of
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View

UP, DOWN = Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS
SHARPNESS = 10.0
"""Factor from a cosine to the score of a soft label."""

Fit = Float[np.ndarray, "length words"]
Joined = tuple[Mapping[str, np.ndarray], Sequence[tuple[float, float]]]
"""The arrays of the answer, and of each row how much the two sides explain."""


class Bidirectional:
    """Needs all that crosses in a training step.

    Args:
        shortlist, steps: as of `LabelMatch`.
        prompts, held_out, seed: as of `Ridge`.
    """

    name = "bidirectional"
    secret = "label"
    channels = frozenset({Channel.BACK_GRADIENTS})
    also_reads = frozenset({UP, DOWN})
    controls = 1
    every_crossing = True

    def __init__(
        self, shortlist: int = 16, steps: int = STEPS, prompts: int = 128, held_out: int = 16, seed: int = 0
    ) -> None:  # fmt: skip
        self._forward, self._backward = Ridge(prompts, held_out, seed), LabelMatch(shortlist, steps=steps)

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        front = require_records(view, knowledge)
        if view.back is None:
            raise NotApplicable("the channel does not depend on a back")
        reader = TitleReader(knowledge.prompts)
        readings = learned_of(self._forward, view, front, knowledge, reader, budget)
        fits, copies = [], Copies(knowledge, front, view.records)
        for crossings in by_row(view.records).values():
            budget.check()
            sent = [replace(each, tensor=each.also_reads[UP]) for each in crossings]
            fits.append(best_read(readings, sent, copies))
        join = self._whole if knowledge.loss_on == "all" else self._at_label
        arrays, explained = join(view, view.back, fits, reader, knowledge, budget)
        means = np.array(explained).mean(0).tolist()
        return Guess(arrays, {**dict(zip(("forward", "backward"), means, strict=True)), **copies.facts})

    def _at_label(
        self, view: View, back: int, fits: list[Fit], reader: TitleReader, knowledge: Knowledge, budget: Budget
    ) -> Joined:
        """The history by what goes up, the answer by both; it alone is trained on."""
        backward, left, taken = [], [], Taken(view.records)
        for place, crossings in enumerate(by_row(view.records).values()):
            budget.check(place, len(fits))
            found = self._backward.ranked(crossings, back, knowledge, taken)
            backward.append(found.items)
            left.append(found.distance)
        arrays = answered(once(view), reader, fits, {}).arrays
        forward = arrays.get("labels", np.empty((len(fits), 0), dtype=np.int64))
        explained = [
            (_cosine(fit, own, knowledge), _explained(rest)) for fit, own, rest in zip(fits, forward, left, strict=True)
        ]
        labels = [joined(both, weights) for *both, weights in zip(forward, backward, explained, strict=True)]
        return {**arrays, "labels": np.array(labels)}, explained

    def _whole(
        self, view: View, back: int, fits: list[Fit], reader: TitleReader, knowledge: Knowledge, budget: Budget
    ) -> Joined:
        """All of the sequence by both; all of it is trained on."""
        both, explained, taken = [], [], Taken(view.records)
        for place, (crossings, fit) in enumerate(zip(by_row(view.records).values(), fits, strict=True)):
            budget.check(place, len(fits))
            start = SHARPNESS * fit
            found, rest = words_of(crossings, back, knowledge, reader, budget, taken, self._backward.steps, start)
            weights = (max(0.0, float(fit.max(1).mean())), _explained(rest))
            both.append(weights[0] * log_softmax(start, axis=1) + weights[1] * found)
            explained.append(weights)
        return answered(once(view), reader, both, {}).arrays, explained


def joined(rankings: Sequence[Int[np.ndarray, "ranked"]], weights: Sequence[float]) -> Int[np.ndarray, "labels"]:
    """One ranking by the weighted sum of reciprocal places, ties to the earlier ranking.

    >>> joined((np.array([3, 1]), np.array([2, 3])), (0.4, 1.0))[:4].tolist()
    [2, 3, 1, -1]
    """
    scores: dict[int, float] = {}
    for ranked, weight in zip(rankings, weights, strict=True):
        for place, item in enumerate(ranked[ranked >= 0].tolist(), 1):
            scores[item] = scores.get(item, 0.0) + weight / place
    order = sorted(scores, key=lambda item: -scores[item])[:LABELS]
    return np.array(order + [-1] * (LABELS - len(order)), dtype=np.int64)


def _explained(rest: float) -> float:
    """The share of the gradient's square that is explained."""
    return max(0.0, 1.0 - rest**2)


def _cosine(fit: Float[np.ndarray, "length words"], labels: Int[np.ndarray, "labels"], knowledge: Knowledge) -> float:
    """Mean over the positions of the answer of its best word's cosine; 0 where there is no answer."""
    if not (labels >= 0).any():
        return 0.0
    length, end = int(knowledge.prompts.titles.lengths[labels[0]]), len(knowledge.prompts.end)
    return max(0.0, float(fit[-length - end : len(fit) - end].max(1).mean()))

"""Soft labels: which words at all positions have a loss with the gradient that came back (BiSR's backward part).

With ``training.loss_on: all`` every token is the label of the position before it, so that no one title explains the
gradient. Each position gets a distribution over the words instead of a word, the softmax of scores that are free; AdamW
goes down the distance of the gradient of their expected loss from the one that crossed. That gradient is linear in the
distributions, so that nothing but the softmax stands between the scores and a convex problem.

Each crossing of a sequence is matched by itself. If one of them is explained, it is read; else the log-probabilities of
all are averaged, each weighted by 1 / the square of what it leaves unexplained.

Source: BiSR (Chen et al. 2024, arXiv 2409.00960), whose distance is 0.85 of the squared L2 norm and 0.15 of the L1
norm. Its rate of .09, temperature of 1.2 and 18 epochs go on from an inverter's answer; rate, temperature and steps
here get there from nothing, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pplr_audit.attacks.decoding.crossings import Taken, pooled
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, When
from pplr_audit.threat_model.view import Record

SQUARED, ABSOLUTE = 0.85, 0.15
"""Weights of the two norms."""
RATE = 0.5
STEPS = 100
NEAR = 0.01
"""The share of what came back that may be left when no more is tried."""

Back = Callable[[Float[Tensor, "batch length hidden"]], Float[Tensor, "batch length vocab"]]
"""z(h): what the last layers make of h."""


def words_of(
    crossings: Sequence[Record], back: int, knowledge: Knowledge, reader: TitleReader, budget: Budget, taken: Taken,
    steps: int = STEPS, start: Float[np.ndarray, "length words"] | None = None,
) -> tuple[Float[np.ndarray, "length words"], float]:  # fmt: skip
    """The log-probability of each of the reader's words at each position of a sequence, and the share of what came back
    that they leave unexplained, from 0 to about 1. The first word is the template's.

    Args:
        crossings: of one row.
        taken: counts the copies and crossings that they are from.
        steps: of AdamW for a crossing and copy, at most.
        start: scores to go on from, of all positions.

    Raises BudgetExhausted: the time is up.
    """
    found, copies = [], []
    for record in crossings:
        own, when = _nearest(record, back, knowledge, reader, budget, steps, start)
        if own.distance <= NEAR or len(crossings) == 1:
            taken.alone(when, record)
            return _opened(own.log_probs, reader, knowledge), own.distance
        found.append(own)
        copies.append(when)
    taken.joined(copies)
    distances = [own.distance for own in found]
    log_probs = pooled([own.log_probs.numpy() for own in found], distances)
    return _opened(torch.from_numpy(log_probs), reader, knowledge), pooled(distances, distances)


def _nearest(
    record: Record, back: int, knowledge: Knowledge, reader: TitleReader, budget: Budget, steps: int,
    start: Float[np.ndarray, "length words"] | None,
) -> tuple["Matched", When]:  # fmt: skip
    """Match one crossing by the copy that leaves the least of it unexplained."""
    words, best = torch.from_numpy(reader.vocabulary), list[tuple[Matched, When]]()
    for when, model in knowledge.copies_of(record.client, record.round).items():
        found = matched(
            partial(model.logits, knowledge.depth - back), record.also_reads[Channel.TRUNK_ACTIVATIONS],
            record.tensor * record.batch, words, budget.check, steps=steps,  # the loss is the mean over the batch
            start=None if start is None else torch.from_numpy(start[1:]),
        )  # fmt: skip
        best = sorted([*best, (found, when)], key=lambda each: each[0].distance)[:1]
        if found.distance <= NEAR:
            break
    return best[0]


def _opened(
    log_probs: Float[Tensor, "length-1 words"], reader: TitleReader, knowledge: Knowledge
) -> Float[np.ndarray, "length words"]:
    """Put the template's first word before the others."""
    first = np.isin(reader.vocabulary, knowledge.prompts.prefix[:1])
    opening = np.where(first, 0.0, float(log_probs.min()))
    return np.concatenate([opening[None], log_probs.numpy()])


@dataclass(frozen=True)
class Matched:
    """The words whose loss comes nearest."""

    log_probs: Float[Tensor, "length-1 words"]
    """Log-probabilities of the word behind each position but the last."""
    distance: float
    """Unexplained rest of the gradient that came back, in units of its norm: from 0 to about 1."""


def matched(
    back: Back, hidden: Float[Tensor, "length hidden"], gradient: Float[Tensor, "length hidden"],
    words: Int[Tensor, "words"], check: Callable[[], None], *, steps: int = STEPS,
    start: Float[Tensor, "length-1 words"] | None = None,
) -> Matched:  # fmt: skip
    """Match the gradient of the mean loss over all tokens behind the first.

    Args:
        hidden: what entered the last layers.
        gradient: dLoss/dh of this sequence's own loss.
        words: those that can stand anywhere.
        check: called before every step; what it raises ends it.
        steps: of AdamW, at most.
        start: scores to go on from (default: all words alike).
    """
    entered = hidden[None].detach().clone().requires_grad_()
    size = gradient.norm().clamp_min(1e-30)
    scores = (torch.zeros(len(hidden) - 1, len(words)) if start is None else start.clone()).requires_grad_()
    optimizer = torch.optim.AdamW([scores], lr=RATE)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
        log_probs = back(entered)[0, :-1].log_softmax(1)[:, words]
    best = Matched(scores.detach().log_softmax(1), float("inf"))
    for step in range(steps + 1):
        check()
        with torch.enable_grad():
            expected = -(scores.softmax(1) * log_probs).sum(1).mean()
            own = torch.autograd.grad(expected, entered, create_graph=True)[0][0]
            apart = (own - gradient) / size
            distance = float(apart.detach().norm())
            if distance < best.distance:
                best = Matched(scores.detach().log_softmax(1), distance)
            if step == steps or distance <= NEAR:
                break
            optimizer.zero_grad()
            (SQUARED * apart.square().sum() + ABSOLUTE * apart.abs().sum()).backward(inputs=[scores])
        optimizer.step()
    return best

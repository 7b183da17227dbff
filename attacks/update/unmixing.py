"""Unmixing: peers recover what other clients learned from the mixed models that they are sent.

A strategy makes each client's new model of all models, theta'_p = sum_j M_pj theta_j with rows that sum to one (PPLR:
the equations in `training.strategies.balance`; FedAvg: shares of samples). Peers C know their own models before and
after. With m the weight of p's own model, and a the shares of the others in the rest, the mean of all clients O outside
of C is

    theta_O = (y (theta'_p - theta_p) + theta_p - sum_{k in C, k != p} a_k theta_k) / a_O,    y = 1 / (1 - m)

which is linear in y. Shares and weights follow from the strategy, but for the losses and models of the others, which
nobody tells a peer (`Knowledge.expected_mixing`). So a peer by itself estimates y. Several need not: each gives a
theta_O, and the y for which these agree are a least-squares solution. If C is all clients but one, theta_O is its model
alone. Else it is the mean of several: their shares in a peer's model are nearly equal, so that no more can be told.

What O learned in the round is the model that they began with, less theta_O. In the first round all begin with the
public one. Later the one before is put together from what the peers unmixed then, by the weights that an outsider is
expected to have; without it the peers' own beginnings stand for it. An update of this kind is read by the readers of
items that there are (`READERS`).

That n - 1 parties take the last one's input off a sum is the bound of every secure aggregation (Bonawitz et al. 2017,
arXiv 1611.04482); solving PPLR's n weighted sums, whose weights are not told, is of this project.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.attacks.update.token_rows import TokenRows
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Update, View

READERS = (TokenRows(), LoraSpan(simulated=0))
"""Attacks that read items off an update, in the order in which they are tried."""
LEAST = 1e-9
"""Share of others in a new model below which nothing was mixed in."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Unmixed:
    """The clients outside as the peers see them after a round's training."""

    model: Tensors
    """Mean of their models before mixing."""
    own: tuple[float, ...]
    """Weight of each peer's own model in its new one, as it was estimated."""
    disagree: float
    """Distance between what the peers find, as a share of how far it is from their own models; 0 with one peer."""


class Unmixing:
    """Ranks items of other clients by what the peers' new models have of them."""

    name = "unmixing"
    secret = "items"
    channels = frozenset({Channel.PERSONAL_MODEL})
    controls = 1
    rounds = "all"

    def run(self, view: View[Update], knowledge: Knowledge, budget: Budget) -> Guess:
        if view.adversary != "peer":
            raise NotApplicable("this attack is a client's; whoever mixes the models has the updates themselves")
        by_round: dict[int, dict[str, Update]] = {}
        for each in view.records:
            by_round.setdefault(each.round, {})[each.client] = each
        before: Tensors | None = None
        for round_ in sorted(by_round):
            budget.check()
            found = unmixed(by_round[round_], knowledge.expected_mixing.get(round_, {}))
            start = (
                before if before is not None else _mean([knowledge.began[peer, round_] for peer in by_round[round_]])
            )
            before = begun_after(found, by_round[round_], knowledge.expected_mixing[round_])
        newest = max(by_round)
        update = {name: value - found.model[name] for name, value in start.items()}
        guess = read(update, start, next(iter(by_round[newest].values())), view, knowledge, budget)
        return repeated(guess, sorted(view.rows), {
            "own_weight": [round(each, 4) for each in found.own], "disagree": found.disagree,
            "peers": len(by_round[newest]), "others": len(view.rows),
        })  # fmt: skip


def unmixed(seen: Mapping[str, Update], expected: Mapping[str, Mapping[str, float]]) -> Unmixed:
    """Return the mean of the models of all clients outside, from the peers' own models and new ones.

    Raises NotApplicable where nothing of others is mixed into them, or nobody recorded what the peers had before.
    """
    peers = [peer for peer in sorted(seen) if peer in expected and seen[peer].start]
    if not peers:
        raise NotApplicable("what the peers had before mixing was not recorded, or none of them trained in the round")
    change, rest, scale = list[Tensor](), list[Tensor](), list[float]()
    names = sorted(seen[peers[0]].tensors)
    own = {peer: _flat(seen[peer].start, names) for peer in peers}
    for peer in peers:
        weights = expected[peer]
        mixed_in = sum(weight for client, weight in weights.items() if client != peer)
        outside = sum(weight for client, weight in weights.items() if client not in peers)
        moved = _flat(seen[peer].tensors, names) - own[peer]
        if outside < LEAST or not moved.any():
            raise NotApplicable("the peers' models came back as they were: nothing of other clients is mixed in")
        others = sum((weights[k] / mixed_in * own[k] for k in peers if k != peer), torch.zeros_like(moved))
        share = outside / mixed_in
        change.append(moved / share)
        rest.append((own[peer] - others) / share)
        scale.append(1 / mixed_in)
    y = _agreed(change, rest, scale)
    found = torch.stack([a * b + c for a, b, c in zip(y, change, rest, strict=True)])
    mean = found.mean(0)
    apart = (found - mean).norm() / (found - torch.stack([*own.values()])).norm().clamp(min=1e-30)
    return Unmixed(_named(mean, seen[peers[0]].tensors, names), tuple(1 - 1 / each for each in y), float(apart))


def _agreed(change: Sequence[Tensor], rest: Sequence[Tensor], expected: Sequence[float]) -> list[float]:
    """Return the y with which y * change + rest is as nearly the same for all as can be; one alone stays as expected.

    Minimizes sum over p of |y_p c_p + r_p - mean|^2, whose normal equations have (1 - 1 / n) c_p c_p on the diagonal.
    """
    count = len(change)
    if count == 1:
        return [*expected]
    c, r = torch.stack([*change]), torch.stack([*rest])
    centering = torch.eye(count, dtype=c.dtype) - 1 / count
    normal, right = (c @ c.T) * centering, -((c @ r.T) * centering).sum(1)
    found: list[float] = torch.linalg.lstsq(normal, right[:, None], driver="gelsd").solution[:, 0].tolist()
    return [each if np.isfinite(each) and each > 1 else known for each, known in zip(found, expected, strict=True)]


def begun_after(
    found: Unmixed, seen: Mapping[str, Update], expected: Mapping[str, Mapping[str, float]]
) -> Tensors | None:
    """Return the mean model that the clients outside begin the next round with; None where no weights are expected."""
    outside = [client for client in expected if client not in seen]
    if not outside:
        return None
    model = {name: torch.zeros_like(value) for name, value in found.model.items()}
    for receiver in outside:
        weights = expected[receiver]
        left = 1 - sum(weights.get(peer, 0.0) for peer in seen)
        for name, value in model.items():
            parts = [weights.get(peer, 0.0) * each.start[name].double() for peer, each in seen.items() if each.start]
            value += (left * found.model[name] + sum(parts, torch.zeros_like(value))) / len(outside)
    return model


def read(
    update: Tensors, start: Tensors, own: Update, view: View[Update], knowledge: Knowledge, budget: Budget
) -> Guess:
    """Return what the first reader that applies finds in an update. Raises NotApplicable with all their reasons."""
    seen = Update(0, own.client, own.round, update, start)
    alone = View(view.adversary, Channel.CLIENT_UPDATE, view.front, view.back, view.defense, (seen,))
    steps = knowledge.steps.get((own.client, own.round))
    if steps is not None:  # each of the others is taken to have as many samples as the peer
        together = replace(steps, samples=steps.samples * len(view.rows), batches=())
        knowledge = replace(knowledge, steps={(own.client, own.round): together})
    reasons = []
    for reader in READERS:
        try:
            guess = reader.run(alone, knowledge, budget)
        except NotApplicable as reason:
            reasons.append(f"{reader.name}: {reason}")
        else:
            return Guess(guess.arrays, {**guess.facts, "reader": reader.name})
    raise NotApplicable("no reader of items applies to what was unmixed; " + "; ".join(reasons))


def repeated(guess: Guess, rows: Sequence[int], facts: Mapping[str, Any]) -> Guess:
    """Return the same answer for each row: all that is known of one client outside is what all of them have."""
    arrays = {"rows": np.array(rows)}
    for name, offsets in (("ranked_items", "item_offsets"), ("ranked_tokens", "token_offsets")):
        if name in guess.arrays:
            size = len(guess.arrays[name])
            arrays |= {name: np.tile(guess.arrays[name], len(rows)), offsets: np.arange(len(rows) + 1) * size}
    return Guess(arrays, {**guess.facts, **facts})


def _mean(models: Sequence[Tensors]) -> Tensors:
    return {name: torch.stack([model[name].double() for model in models]).mean(0) for name in models[0]}


def _flat(tensors: Tensors, names: Sequence[str]) -> Tensor:
    return torch.cat([tensors[name].double().flatten() for name in names])


def _named(values: Tensor, like: Tensors, names: Sequence[str]) -> Tensors:
    parts = values.split([like[name].numel() for name in names])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}

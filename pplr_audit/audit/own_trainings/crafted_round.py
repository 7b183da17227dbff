"""A round that clients begin with what a server of an attack made for them, in a training of its own.

Up to that round the server is honest, so the training is the one that the attack is about. In the round it sends the
asked clients something else of the same shape in the place of their personal models, and keeps to the protocol: who
checks nothing trains on it. The folder of the training holds what was sent and what crossed once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pplr_audit.audit.own_trainings.hijack import failing_apart
from pplr_audit.threat_model.attack import Budget, CraftsStart
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import Failed
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.crossings import crossings_of
from pplr_audit.training.rounds import Federation, RoundState
from pplr_audit.training.run_job import opened
from pplr_audit.training.spec import TrainingSpec


@dataclass(frozen=True)
class CraftedRound:
    """What clients were sent at the start of a round, and what crossed once in it."""

    state: RoundState
    crossings: Sequence[Crossing]

    def facts(self, honest: RoundState, usual: Sequence[Crossing], clients: Sequence[str]) -> dict[str, Any]:
        """Return what a client could have noticed, on average: the norm of what it was sent, and its loss, each beside
        that under an honest server.

        Args:
            honest: the state that the round began with there.
            usual: what crossed there.
            clients: those who were sent something else.
        """
        norms = {
            name: fmean(_norm(state.adapters[client]) for client in clients)
            for name, state in (("sent_norm", self.state), ("honest_norm", honest))
        }
        losses = {
            name: fmean(each[client] for client in clients)
            for name, each in (("loss", _losses(self.crossings)), ("honest_loss", _losses(usual)))
            if all(client in each for client in clients)
        }
        return norms | losses


def crafted(
    attack: CraftsStart, knowledge: Knowledge, state: RoundState, held: Sequence[str], clients: Sequence[str],
    budget: Budget,
) -> RoundState:  # fmt: skip
    """Return the state with what an attack sends to some clients.

    Args:
        held: names of the tensors that a client holds at the cut.

    Raises:
        Failed: it is nothing that a client could begin with.
    """
    adapters = dict(state.adapters)
    for client in clients:
        budget.check()
        start = {name: state.adapters[client][name].clone() for name in sorted(held)}
        sent = attack.craft_start(client, state.round, start, knowledge, budget)
        _require_alike(sent, state.adapters[client], start.keys())
        adapters[client] = {**state.adapters[client], **{name: value.detach().clone() for name, value in sent.items()}}
    return replace(state, adapters=adapters)


def crafted_round(
    root: Path, spec: TrainingSpec, round_: int, federation: Federation, craft: Callable[[], RoundState]
) -> CraftedRound:  # fmt: skip
    """Return the round of a training of a run that an attack hijacks; it is trained where it is not stored.

    Args:
        root: the run's directory.
        craft: makes the state that the round begins with.
    """
    with opened(root, spec) as store:
        files = TrainingFiles(store, [round_], federation)
        if files.has_crossings(round_):
            return CraftedRound(files.state(round_), files.crossings(round_))
        with failing_apart():
            state = craft()
            crossings = crossings_of(federation, state)
        files.save_state(state)
        files.save_crossings(round_, crossings)
        return CraftedRound(state, crossings)


def _require_alike(sent: Mapping[str, Tensor], honest: Mapping[str, Tensor], names: Any) -> None:
    if sent.keys() != names:
        raise Failed(f"what it sends has other tensors than a client's: {sorted(sent.keys() ^ names)[:3]}")
    for name, value in sent.items():
        own = honest[name]
        if value.shape != own.shape or value.dtype != own.dtype or not bool(torch.isfinite(value).all()):
            raise Failed(f"what it sends as {name} is not of shape {[*own.shape]}, {own.dtype} and finite")


def _norm(adapter: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in adapter.values()))


def _losses(crossings: Sequence[Crossing]) -> dict[str, float]:
    return {c.client: float(c.tensors["loss"]) for c in crossings if c.channel == Channel.STATUS}

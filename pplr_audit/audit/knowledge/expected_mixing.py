"""Weights of all clients in the new models of a round, as far as the peers among them can tell.

The strategy and its settings are public, and peers know their own models and losses. Of the others they know nothing:
each is taken to have the mean of the peers' models, losses and samples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pplr_audit import scenario
from pplr_audit.scenario import plugins
from pplr_audit.training.stopping import participants
from pplr_audit.training.strategies.protocol import Contribution, Strategy

Weights = Mapping[str, Mapping[str, float]]
"""Receiver, then client, to the weight of the client's model in the receiver's new one."""


def expected_mixing(
    training: scenario.Training, clients: Sequence[str], peers: Sequence[Contribution], round_: int
) -> Weights:
    """Return the weights that the peers expect.

    Args:
        clients: names of all of them. Where not all train in a round, the peers do not know who else did: the others
            share the weights of as many as did.
        peers: what each of them gave in the round, who all trained in it.
    """
    strategy: Strategy = plugins.load("strategies", training.strategy)(training)
    others = [name for name in clients if name not in {peer.client for peer in peers}]
    trained = len(participants(clients, training.participation, seed=0, round_=round_))
    present = others[: max(0, trained - len(peers))]
    given = sorted([*peers, *(_like(peers, name) for name in present)], key=lambda each: each.client)
    matrix = strategy.mixing(given, round_).matrix
    names = [each.client for each in given]
    found: dict[str, dict[str, float]] = {}
    for row, receiver in enumerate(names):
        own = dict(zip(names, matrix[row].tolist(), strict=True))
        shared = sum(own.get(name, 0.0) for name in others if name != receiver)
        among = [name for name in others if name != receiver]
        found[receiver] = {
            **{peer.client: own[peer.client] for peer in peers},
            **({receiver: own[receiver]} if receiver in others else {}),
            **{name: shared / len(among) for name in among},
        }
    return found


def _like(peers: Sequence[Contribution], name: str) -> Contribution:
    """Return the contribution of a client that is as the peers are on average."""

    def mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([*tensors]).mean(0)

    first = peers[0]
    return Contribution(
        name,
        {key: mean([peer.adapter[key] for peer in peers]) for key in first.adapter},
        {key: mean([peer.update[key] for peer in peers]) for key in first.update},
        float(np.mean([peer.loss for peer in peers])),
        round(np.mean([peer.samples for peer in peers])),
    )

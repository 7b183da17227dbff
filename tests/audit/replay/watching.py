"""What a live link recorded of some samples, beside what a replay of the same round yields."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from pplr_audit.audit.replay.records import Watched, serving_records, training_records
from pplr_audit.audit.tap_points import OF_TRAINING, Trace
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import Samples
from pplr_audit.models.build import Recommender
from pplr_audit.models.cut import CutModel
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.view import Record
from pplr_audit.training.rounds import Federation, RoundState

# A channel and the cut at which a live link recorded it.
CROSSINGS = [
    *((Channel.FRONT_ACTIVATIONS, k, 0) for k in (0, 1, 2)), (Channel.FRONT_ACTIVATIONS, 1, 1),
    *((Channel.TRUNK_ACTIVATIONS, 0, m) for m in (0, 1, 2)), (Channel.TRUNK_ACTIVATIONS, 1, 1),
    *((Channel.BACK_GRADIENTS, 0, m) for m in (0, 1, 2)), (Channel.BACK_GRADIENTS, 1, 1),
    *((Channel.TRUNK_GRADIENTS, k, 0) for k in (1, 2)), (Channel.TRUNK_GRADIENTS, 1, 1),
]  # fmt: skip


def trace_of(channel: Channel, front: int, back: int, layers: int) -> Trace:
    kind, side = OF_TRAINING[channel]
    return Trace(kind, front if side == "front" else layers - back)


def recorded(
    live: Sequence[Crossing], federation: Federation, model: Recommender, samples: Mapping[str, Samples],
    channel: Channel, round_: int,
) -> tuple[dict[str, list[Watched]], dict[int, tuple[int, int, torch.Tensor]]]:  # fmt: skip
    """Every third sample of each client to watch, and by row its step, the rows of its batch, and what crossed."""
    watched: dict[str, list[Watched]] = {}
    expected = {}
    for client in federation.clients:
        own, plan = samples[client.name], client.plan(round_)
        crossings = [c for c in live if (c.channel, c.client, c.round) == (channel, client.name, round_)]
        assert len(crossings) == len(plan)
        for sample in range(0, len(own), 3):
            length = len(model.prompts.build(own.history[sample], int(own.targets[sample])))
            (step,) = [s for s, rows in enumerate(plan) if sample in rows]
            place = int(np.flatnonzero(plan[step] == sample)[0])
            (crossed,) = crossings[step].tensors.values()
            row = len(expected)
            expected[row] = step, len(crossed), crossed[place, :length]
            watched.setdefault(client.name, []).append(Watched(row, sample, length))
    return watched, expected


def replayed(
    federation: Federation, parts: CutModel, state: RoundState, watched: Mapping[str, Sequence[Watched]],
    wanted: Collection[Trace],
) -> dict[Trace, list[Record]]:  # fmt: skip
    found: dict[Trace, list[Record]] = {trace: [] for trace in wanted}
    training_records(
        federation, parts, state, watched, wanted, lambda trace, record: found[trace].append(record)
    )  # fmt: skip
    return found


def served(
    model: Recommender, state: RoundState, requests: Mapping[str, Sequence[tuple[int, Prompt]]], layer: int
) -> list[Record]:
    found: list[Record] = []
    serving_records(model.whole, state, requests, [layer], lambda trace, record: found.append(record))
    return found


def same_as_recorded(records: Sequence[Record], expected: Mapping[int, tuple[int, int, torch.Tensor]]) -> None:
    assert {r.row for r in records} == set(expected)
    for record in records:
        step, rows, crossed = expected[record.row]
        assert (record.step, record.batch) == (step, rows)
        assert torch.equal(record.tensor, crossed)

"""Cost rows of a run: computed from the model's config for every cut, measured for the one that ran."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender
from pplr_audit.models.cut import Session, TrunkEndpoint
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.costs import flops
from pplr_audit.training.costs import formulas as costs
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import Federation, RoundLog

OVER_THE_CUT = (
    Channel.FRONT_ACTIVATIONS, Channel.TRUNK_ACTIVATIONS, Channel.BACK_GRADIENTS, Channel.TRUNK_GRADIENTS,
    Channel.METADATA,
)  # fmt: skip
UP_AND_OVER = (*OVER_THE_CUT, Channel.CLIENT_UPDATE, Channel.AGGREGATE)
"""Channels used for each client that trains; early stopping serves requests besides, by how many users it asks."""
SERVING = (Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT)


def cost_rows(job: Job, logs: Sequence[RoundLog], tally: Tally, served_bytes: int) -> list[dict[str, Any]]:
    """The ``costs`` rows of the findings document, per client that trained, for the last round in which one did.

    What encoding the catalogue takes (RecFormer) is the mean over all rounds: some do, some do not.

    Args:
        tally: what serving the test users put through the model.
        served_bytes: what that put on the wire.
    """
    scenario, model = job.scenario, job.model
    chosen = scenario.model
    recformer = chosen.recformer if chosen.recommender == "recformer" else None
    shape = costs.meta_model(
        model.whole.model.config, chosen.lora, recformer=recformer, history=scenario.data.history,
        items=len(model.task.prompts.titles), precision=model.precision,
    )  # fmt: skip
    workload = _workload(job, logs, tally)
    rows = costs.rows_of(shape, costs.all_cuts(model.layers), workload)
    ran = {"front": model.parts.front, "back": model.parts.back}
    for row in rows:
        row["measured"] = None
        if row["cut"] == ran:
            row["measured"] = _measured(job, logs, tally, served_bytes, workload.tokens_per_sample)
            row["seconds_per_round"] = row["measured"]["seconds_per_round"]
    return rows


def _workload(job: Job, logs: Sequence[RoundLog], tally: Tally) -> costs.Workload:
    """Return the work of a client in the last round in which one trained, means over those that did."""
    scenario, task = job.scenario, job.model.task
    last = _last(logs)
    trained = [client for client in job.federation.clients if client.name in last.losses]
    samples = _samples(job.federation, last)
    positions = sum(client.positions(last.round) for client in trained)
    requests = max(tally.requests, 1)
    return costs.Workload(
        samples=samples / len(trained),
        tokens_per_sample=positions / samples,
        prompt_tokens=tally.prompt_positions / requests,
        generated_tokens=tally.generated / requests,
        title_tokens=tally.title_positions / requests,
        beams=scenario.model.beams if scenario.model.recommender == "bigrec" else 1,
        catalogue_tokens=_encodings(job.federation, logs) * task.catalogue_positions,
        status_bytes=costs.STATUS_BYTES * (1 if scenario.training.patience is None else 2),
    )


def _samples(federation: Federation, log: RoundLog) -> int:
    """Return how many samples the clients that trained in a round went through, all together; at least one.

    A sampler of a defense may have drawn none at all.
    """
    trained = [client for client in federation.clients if client.name in log.losses]
    return max(sum(sum(map(len, client.plan(log.round))) for client in trained), 1)


def _encodings(federation: Federation, logs: Sequence[RoundLog]) -> float:
    """Return how often a client encodes the catalogue in a round: the mean over the rounds in which one trained."""
    return float(np.mean([
        np.mean([client.encodings(log.round) for client in federation.clients if client.name in log.losses])
        for log in logs if log.losses
    ]))  # fmt: skip


def _measured(
    job: Job, logs: Sequence[RoundLog], tally: Tally, served_bytes: int, tokens_per_sample: float
) -> dict[str, Any]:
    """Measure the cut that ran: its module, its arithmetic as torch counts it, its traffic and its time."""
    last = _last(logs)
    forward, training = _flops_per_token(job.model, max(round(tokens_per_sample), 1))
    encoded = float(np.mean([log.catalogue / len(log.losses) for log in logs if log.losses]))
    clients = len(last.losses)
    return {
        **_sizes(job.model),
        "client_flops_per_token": forward,
        "training_flops_per_token": training,
        "wire_bytes_per_sample": _sent(last.sent, OVER_THE_CUT) / _samples(job.federation, last),
        "wire_bytes_per_round": _sent(last.sent, UP_AND_OVER) / clients + encoded + _download(last) + _status(last),
        "serving_wire_bytes_per_request": served_bytes / max(tally.requests, 1),
        "seconds_per_round": seconds_per_round(logs),
    }


def _last(logs: Sequence[RoundLog]) -> RoundLog:
    """Return the last round in which a client trained; when all have stopped, rounds are empty."""
    return next(log for log in reversed(logs) if log.losses)


def seconds_per_round(logs: Sequence[RoundLog]) -> float:
    """Mean over the rounds in which a client trained of what a round takes where clients run side by side: the slowest
    client's time and the server's. Logs of earlier versions have only all clients' time, one behind the other."""
    return float(np.mean([log.seconds if log.alongside is None else log.alongside for log in logs if log.losses]))


def _sent(sent: Mapping[str, int], channels: Sequence[Channel]) -> int:
    return sum(sent.get(str(channel), 0) for channel in channels)


def _download(log: RoundLog) -> float:
    """Return the bytes downloaded by one client that got a model; more clients can get one than trained."""
    return log.sent.get(str(Channel.PERSONAL_MODEL), 0) / max(len(log.receivers), 1)


def _status(log: RoundLog) -> float:
    """Return the bytes of one client's status: its loss, and the metric where it stops early."""
    said = log.sent.get(str(Channel.STATUS), 0)
    spoken = len(log.losses) + len(log.metrics)
    return said / spoken * (2 if log.metrics else 1)


def _sizes(model: Recommender) -> dict[str, float]:
    """Parameters and bytes that the client's module really holds."""
    held = list(model.parts.client.parameters())
    whole = sum(p.numel() for p in model.whole.model.parameters())
    count = sum(p.numel() for p in held)
    return {
        "client_parameters": count,
        "client_bytes": sum(p.numel() * p.element_size() for p in held),
        "client_share": count / whole,
    }


class _Echo(TrunkEndpoint):
    """Stands for a trunk that costs nothing: hands back what it gets."""

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        del mask
        # The server waits for its gradient even where the front has nothing to train.
        return hidden if hidden.requires_grad else hidden.detach().requires_grad_()

    def open(self) -> Session:
        raise RuntimeError("nothing is generated here")


def _flops_per_token(model: Recommender, length: int) -> tuple[float, float]:
    """Counted by torch while the client's part runs, forward alone and with the backward pass, over its tokens."""
    batch, parts = 2, model.parts
    plain = np.zeros(length, dtype=np.int64)
    # All but the first are learned, as the head runs over all; 0 stands for any item.
    prompts = [Prompt(plain, plain, plain[:0], 1, plain, 0)] * batch
    if parts.proxy is not None:
        parts.proxy.endpoint = _Echo()
    parts.client.train()
    counted = []
    for backward in (False, True):
        with flops.counter() as counter:
            loss = model.task.loss(parts.client, prompts, model.task.base_encoding)
            if backward:
                loss.backward()
        counted.append(counter.get_total_flops() / (batch * length))
    for parameter in parts.client_parameters.values():
        parameter.grad = None
    return counted[0], counted[1]

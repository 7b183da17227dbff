"""A cut model with a server at the other end of a link, and one training step through it."""

from collections.abc import Callable
from typing import Any

import torch

from pplr_audit import scenario
from pplr_audit.models.cut import CutModel
from pplr_audit.models.lora import adapter_parameters, add_lora, read_adapter
from pplr_audit.training.link import Link
from pplr_audit.training.server import Server, TrunkPart
from pplr_audit.training.strategies.fedavg import FedAvg

Gradients = dict[str, torch.Tensor]


def adapted(model: Any, lora: scenario.Lora) -> Any:
    """``model`` with an adapter that is not zero."""
    add_lora(model, lora, 3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def connected(parts: CutModel) -> Link:
    """A link to a server that hosts the trunk, with one client joined."""
    initial = read_adapter({**parts.client_parameters, **parts.trunk_parameters})
    training = scenario.Training()
    server = Server(
        TrunkPart(parts.trunk, parts.trunk_parameters, parts.trunk_randomness), initial, training, FedAvg(training)
    )
    link = Link(server)
    link.join("a", 3)
    return link


def one_step(parts: CutModel, loss_of: Callable[[Any], torch.Tensor]) -> tuple[torch.Tensor, Gradients]:
    """The loss that ``loss_of`` finds for the client's model in training mode, and every gradient by absolute name."""
    side = connected(parts).training("a", 1)
    if parts.proxy is not None:
        parts.proxy.endpoint = side
    parts.client.train()
    with parts.client_randomness.step(1, "a", 0):
        loss = loss_of(parts.client)
        loss.backward()
    return loss.detach(), gradients({**parts.client_parameters, **parts.trunk_parameters})


def gradients(parameters: dict[str, torch.nn.Parameter]) -> Gradients:
    return {name: p.grad for name, p in sorted(parameters.items()) if p.grad is not None}

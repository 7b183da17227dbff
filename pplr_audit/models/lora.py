"""One LoRA adapter spans the model; its tensors are known by absolute layer name wherever their block lives.

LoRA (Hu et al. 2021, arXiv 2106.09685): W = W0 + (alpha / rank) B A, A random, B zero at the start.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.models.family import blocks

Adapter = dict[str, Tensor]
"""Absolute parameter name to value, in alphabetical order: so that no sum over it depends on the cut."""


def add_lora(model: nn.Module, lora: scenario.Lora, seed: int) -> None:
    """Put a LoRA layer beside every linear layer in the blocks that ``lora.targets`` names, in place.

    The draw of A depends on ``seed`` alone, so that all clients start from one A.

    Raises:
        InputError: a target is the name of no linear layer in the blocks of ``model``.
    """
    # Inside the blocks only: there the cut governs where a layer lies and what its dropout draws.
    inside = (named for block in blocks(model) for named in block.named_modules())
    linear = sorted({name.rsplit(".", 1)[-1] for name, module in inside if isinstance(module, nn.Linear)})
    for target in lora.targets:
        if target not in linear:
            raise InputError(
                f"model.lora.targets: no layer {target!r} in the blocks of this backbone "
                f"(accepted: {', '.join(linear)})"
            )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name, in alphabetical order. Call it before the model is cut: names are absolute."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def read_adapter(parameters: Mapping[str, nn.Parameter]) -> Adapter:
    """A copy of the values."""
    return {name: p.detach().clone() for name, p in parameters.items()}


def load_adapter(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Set the parameters in place. Every one of them must be given; values for others are passed over."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
            parameter.grad = None


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within the block ``model`` is the base model."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)

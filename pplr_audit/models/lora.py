"""One LoRA adapter spans the model; its tensors are known by absolute layer name wherever their block lives.

LoRA (Hu et al. 2021, arXiv 2106.09685): W = W0 + (alpha / rank) B A, A random, B zero at the start.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import architecture, blocks

LINEAR = (nn.Linear, Conv1D)
"""Classes that count as linear layers: Conv1D is GPT-2's, with its weight transposed."""

Adapter = dict[str, Tensor]
"""Absolute parameter name to value, in alphabetical order: so that no sum over it depends on the cut."""


def add_lora(model: nn.Module, lora: scenario.Lora, seed: int) -> None:
    """Put a LoRA layer beside every linear layer in the blocks that ``lora.targets`` names, in place.

    ``all`` is every one of them, whatever they are called; where the scenario names none, the family's own are taken.
    The draw of A depends on ``seed`` alone, so that all clients start from one A.

    Raises:
        InputError: a target is the name of no linear layer in the blocks of ``model``.
    """
    # Inside the blocks only: there the cut governs where a layer lies and what its dropout draws.
    inside = (named for block in blocks(model) for named in block.named_modules())
    linear = {name.rsplit(".", 1)[-1]: type(module) for name, module in inside if isinstance(module, LINEAR)}
    named = architecture(model).targets if lora.targets is None else lora.targets
    targets = tuple(linear) if named == "all" else named
    for target in targets:
        if target not in linear:
            raise InputError(
                f"model.lora.targets: no layer {target!r} in the blocks of this backbone "
                f"(accepted: {', '.join(sorted(linear))})"
            )
    whole = blocks(model)
    path = next(name for name, module in model.named_modules() if module is whole)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=lora.dropout,
        # A name alone would also match a layer of the head.
        target_modules=rf"{re.escape(path)}\.\d+\.(.*\.)?({'|'.join(map(re.escape, targets))})",
        fan_in_fan_out=all(linear[target] is Conv1D for target in targets),
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

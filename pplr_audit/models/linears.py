"""The trained linear layers of a model: where their tensors lie, and which of them read the same input.

The gradient of a linear layer y = W x lies in the span of its inputs. With LoRA, y = W0 x + s B A x, so does that of A,
and that of B lies in the span of A x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from pplr_audit.models.architectures import architecture
from pplr_audit.models.lora import LINEAR

Given = Literal["queries", "keys", "values"]
_GIVEN: tuple[Given, ...] = ("queries", "keys", "values")


@dataclass(frozen=True)
class Linear:
    """A linear layer of which something is trained, with the absolute names of its tensors; empty where not trained."""

    name: str
    block: int
    """The block that it lies in, from 0; -1 for one in front of all blocks, the number of blocks for one behind."""
    inputs: int
    """Width of what enters it."""
    outputs: int
    shares: str
    """Name of the first layer that reads the same tensor; its own where there is no other."""
    lora_a: str = ""
    """(rank, inputs)."""
    lora_b: str = ""
    """(outputs, rank)."""
    scale: float = 1.0
    """Factor s of LoRA."""
    weight: str = ""
    """The whole weight, where that is trained: (outputs, inputs), or the other way round."""
    transposed: bool = False
    """True if the weight is stored as (inputs, outputs)."""
    gives: tuple[Given, ...] = ()
    """Queries, keys and values of attention that its outputs are, in this order; empty where they are none."""


def linears_of(
    model: nn.Module, trained: Mapping[str, Tensor], reads: Mapping[str, int], block_of: Mapping[str, int]
) -> dict[str, Linear]:
    """Return the linear layers with a trained tensor, by name, in the order in which they run.

    Args:
        reads: module name to a number of the tensor that it reads, in the order in which they run.
        block_of: module name to its block.
    """
    found: dict[str, Linear] = {}
    first: dict[int, str] = {}
    for name, number in reads.items():
        module: Any = model.get_submodule(name)
        adapted = isinstance(module, LoraLayer)
        plain: Any = module.get_base_layer() if adapted else module
        transposed = not isinstance(plain, nn.Linear)
        shape = plain.weight.shape[::-1] if transposed else plain.weight.shape
        names = {
            "lora_a": f"{name}.lora_A.default.weight", "lora_b": f"{name}.lora_B.default.weight",
            "weight": f"{name}.base_layer.weight" if adapted else f"{name}.weight",
        }  # fmt: skip
        names = {kind: path for kind, path in names.items() if path in trained}
        if names:
            scale = float(module.scaling["default"]) if adapted else 1.0
            shares = first.setdefault(number, name)
            found[name] = Linear(
                name, block_of[name], int(shape[1]), int(shape[0]), shares, scale=scale, transposed=transposed,
                gives=_given_by(model, name), **names,
            )  # fmt: skip
    return found


def _given_by(model: nn.Module, name: str) -> tuple[Given, ...]:
    """Return what a layer gives to attention: one of the three, or all where one layer gives them all."""
    paths = architecture(model).products.attention_in
    (found,) = [place for place, path in enumerate(paths) if name.endswith(f".{path}")] or [-1]
    return () if found < 0 else _GIVEN if len(paths) == 1 else _GIVEN[found : found + 1]


def candidates(model: nn.Module) -> list[str]:
    """Return the names of all linear layers, a LoRA layer's own parts left out."""
    parts = {id(part) for module in model.modules() if isinstance(module, LoraLayer) for part in module.modules()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) or (isinstance(module, LINEAR) and id(module) not in parts)
    ]

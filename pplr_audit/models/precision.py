"""The number format that the model computes in: float32, or bfloat16 under autocast with weights in float32.

Under autocast matrix products are bfloat16; residual stream, norms, softmax, loss, adapter and optimizer stay float32
(`torch.amp`), and so does what crosses the cut. Attention is made of plain products there: torch's fused kernel for the
CPU takes seven to nine times as long to go back through in bfloat16 (`benchmarks/encoder_speed.py`).
"""

from functools import wraps
from typing import Any, Literal

import torch

from pplr_audit.models.family import body

Precision = Literal["float32", "bfloat16"]


def resolved(asked: Literal["auto", "float32", "bfloat16"]) -> Precision:
    """``auto`` is bfloat16 where the processor multiplies it in hardware, which without is slower than float32."""
    if asked != "auto":
        return asked
    return "bfloat16" if in_hardware() else "float32"


def in_hardware() -> bool:
    """Whether the processor has bfloat16 instructions, AVX-512 or AMX."""
    found: Any = torch.cpu
    return bool(found._is_avx512_bf16_supported() or found._is_amx_tile_supported())


def choose_attention(model: Any, precision: Precision) -> None:
    """Let ``model``, and all that is made of it afterwards, attend as is fast in ``precision``.

    A cut part's blocks keep the configuration that they had when it was cut, so it has to be chosen before.
    """
    if precision == "bfloat16":
        model.set_attn_implementation("eager")


def compute_in(model: Any, precision: Precision) -> None:
    """Let the forward pass of ``model``, and that of its body where that is called alone, run in ``precision``."""
    if precision == "float32":
        return
    for module in {id(part): part for part in (model, body(model))}.values():
        module.forward = _under_autocast(module.forward)


def _under_autocast(forward: Any) -> Any:
    @wraps(forward)  # generation looks at its parameters
    def under(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(*args, **kwargs)

    return under

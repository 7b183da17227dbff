"""The number format that the model computes in: float32, or bfloat16 under autocast with weights in float32.

Under autocast matrix products are bfloat16; residual stream, norms, softmax, loss, adapter and optimizer stay float32
(`torch.amp`), and so does what crosses the cut. Attention is made of plain products there: torch's fused kernel for the
CPU takes 2 (200 positions) to 11 times (43 positions) as long to go back through in bfloat16 (AVX512-BF16, torch 2.13).
"""

from functools import cache, wraps
from typing import Any, Literal

import torch

from pplr_audit.models.architectures import body

Precision = Literal["float32", "bfloat16"]
WIDE = 256
"""The hidden size from which bfloat16 trains about 1.5 times as fast, or more; at 64 little or nothing is gained
(`benchmarks/precision_widths.py`)."""


def in_hardware() -> bool:
    """True if the processor has bfloat16 instructions, AVX-512 or AMX: without them bfloat16 only costs time."""
    found: Any = torch.cpu
    return bool(found._is_avx512_bf16_supported() or found._is_amx_tile_supported())


def resolved(asked: Literal["auto", "float32", "bfloat16"], model: Any) -> Precision:
    """``auto`` is bfloat16 where the processor has its instructions and the model is wide enough to gain by it."""
    if asked == "auto":
        return "bfloat16" if in_hardware() and model.config.hidden_size >= WIDE else "float32"
    return asked


def choose_attention(model: Any, precision: Precision) -> None:
    """Let ``model``, and all that is made of it afterwards, attend as is fast in ``precision``.

    A cut part's blocks keep the configuration that they had when it was cut, so it has to be chosen before.
    """
    if precision == "bfloat16":
        model.set_attn_implementation("eager")


def fused(model: Any) -> bool:
    """True if a model attends by torch's fused kernel instead of plain products."""
    return bool(model.config._attn_implementation == "sdpa")


def compute_in(model: Any, precision: Precision) -> None:
    """Let the forward pass of ``model``, and that of its body where that is called alone, run in ``precision``."""
    if precision == "float32":
        return
    for module in {id(part): part for part in (model, body(model))}.values():
        kind: Any = type(module)
        module.__class__ = _under_autocast(kind)


@cache
def _under_autocast(kind: type[Any]) -> type[Any]:
    """A class, not a method put on one module: a copy of the module has to go forward itself, not through the first."""

    @wraps(kind.forward)  # generation looks at its parameters
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # No cache: it would hold the cast of what enters a trunk, a leaf there, and sum its gradients in bfloat16.
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return kind.forward(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__})

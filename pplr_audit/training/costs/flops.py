"""FLOP as torch counts them, attention on the CPU included, which its counter does not know by itself."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def counter() -> FlopCounterMode:
    """A context within which every matrix product is counted; ``get_total_flops()`` answers."""
    kernels = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
    }
    return FlopCounterMode(display=False, custom_mapping=kernels)

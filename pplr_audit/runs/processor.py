"""The processor's part in the last digits of a result: the instructions that torch, MKL and oneDNN choose by."""

import os
import platform
from pathlib import Path
from typing import Any

LIMITS = (
    "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "OPENBLAS_CORETYPE",
)  # fmt: skip
"""Variables of the environment by which these libraries can be told to use fewer instructions, or others."""
INSTRUCTIONS = (
    "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve", "sve2", "bf16", "svebf16", "i8mm",
)  # fmt: skip
"""Names of instruction sets as Linux has them, x86 and ARM."""


def processor() -> dict[str, Any]:
    """``capability`` (the kernels that torch chose), ``model``, ``instructions`` and ``limits``, as JSON values.

    MKL chooses by the maker and the size of caches, too; the model stands for these.
    """
    import torch

    facts = _cpuinfo()
    flags = set(f"{facts.get('flags', '')} {facts.get('Features', '')}".split())
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "model": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "limits": {name: os.environ[name] for name in LIMITS if name in os.environ},
    }


def _cpuinfo() -> dict[str, str]:
    """Read what Linux says of the first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

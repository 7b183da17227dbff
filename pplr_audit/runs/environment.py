"""Libraries and hardware that a run ran on."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "scikit-learn", "numpy", "scipy", "safetensors")


def libraries() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {name: version(name) for name in LIBRARIES}


def hardware() -> dict[str, Any]:
    """The machine that a run ran on."""
    return {
        "cpu": _cpu(), "cores": psutil.cpu_count() or 1, "memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
    }  # fmt: skip


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

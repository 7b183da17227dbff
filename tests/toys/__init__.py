"""Plugins as a third party would write them, read as text and installed by tests."""

from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = {"scale": "Scale", "noise": "Noise", "code": "Code", "sums": "Sums", "clip": "Clip"}


def install_toys(install: Callable[..., Path]) -> None:
    """Put the toy defenses on the path as a package of their own."""
    points = "".join(f"{name} = toy_{name}:{kind}\n" for name, kind in NAMES.items())
    modules = {f"toy_{name}": (FOLDER / f"{name}.py").read_text() for name in NAMES}
    install("toy-defenses", "0.1", f"[pplr_audit.defenses]\n{points}", **modules)

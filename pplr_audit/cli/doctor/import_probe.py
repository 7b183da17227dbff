"""Run as a program of its own: import what standard input asks for, and say on standard output how each went.

A library that is broken may raise anything, or take the process down with it; so each import is announced first, one
line of JSON before and one after. The standard library is all that is used here.
"""

import json
import os
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Asked: ``{"path": [...], "targets": ["module", "module:attribute", ...]}``."""
    asked = json.load(sys.stdin)
    sys.path[:] = asked["path"]
    # Libraries may print while they are imported; the lines are for whoever asked.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    for target in asked["targets"]:
        say(began=target)
        error = ""
        try:
            module, _, name = target.partition(":")
            found: Any = import_module(module)
            for part in filter(None, name.split(".")):
                found = getattr(found, part)
        except BaseException as caught:  # a broken library may even leave the interpreter (SystemExit)
            error = f"{type(caught).__name__}: {' '.join(str(caught).split())}"
        say(ended=target, error=error)
    try:
        say(accelerator=_accelerator())
    except BaseException as caught:
        say(accelerator={"error": f"{type(caught).__name__}: {' '.join(str(caught).split())}"})


def _accelerator() -> dict[str, Any]:
    torch = import_module("torch")
    if torch.cuda.is_available():
        return {
            "names": [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())],
            "bfloat16": bool(torch.cuda.is_bf16_supported()),
        }
    return {"names": []}


if __name__ == "__main__":
    main()

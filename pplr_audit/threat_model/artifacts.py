"""Artifacts: fits of attacks, kept by what they follow from, so that cells share them and no cell depends on another.

A fit is named by its kind and by everything that it follows from: settings, layer, digests of models and texts. Whoever
asks first makes it; whoever asks later is handed the same tensors, from memory or from where a run keeps them.
"""

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model.outcomes import BudgetExhausted

Tensors = Mapping[str, Tensor]
Source = Mapping[str, Any]
"""Everything that a fit follows from, as JSON has it."""
K = TypeVar("K", bound=Hashable)
_KIND = re.compile(r"[a-z][a-z0-9_]{0,40}")


class Artifacts:
    """Fits in memory. A run's are a subclass, which also keeps them in its directory."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Tensor] | BudgetExhausted] = {}
        self.broken: Exception | None = None
        """The reason why a fit could not be read or written, which is no failure of the attack that asked for it."""

    def fitted(
        self, kind: str, sources: Mapping[K, Source], make: Callable[[Sequence[K]], Iterable[tuple[K, Tensors]]],
        wanted: K,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the ``wanted`` fit; if it is not there, it is made together with the others that are missing.

        Args:
            kind: the first part of its name: small letters, digits and _.
            sources: of each fit what it follows from. Nothing else may have an influence on it, least of all which
                others are made with it.
            make: yields the fits that it is asked for. A budget that was not enough is not tried again.
        """
        if not _KIND.fullmatch(kind):
            raise ValueError(f"a kind of fits is called {kind!r} (accepted: small letters, digits and _)")
        names = {key: _name(kind, source) for key, source in sources.items()}
        if not self._has(names[wanted], kind):
            missing = [key for key, name in names.items() if not self._has(name, kind)]
            try:
                for key, tensors in make(missing):
                    made = {name: tensor.detach().clone() for name, tensor in tensors.items()}
                    self._held[names[key]] = made
                    self.keep(kind, names[key], made)
            except BudgetExhausted as reason:
                self._held |= {names[key]: reason for key in missing if names[key] not in self._held}
        found = self._held[names[wanted]]
        if isinstance(found, BudgetExhausted):
            raise found
        return {name: tensor.clone() for name, tensor in found.items()}

    def ahead(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Make the fits that tasks ask for, side by side where that is allowed; here nothing is made ahead.

        What a task raises is left to whoever asks in earnest.
        """
        del tasks

    def _has(self, name: str, kind: str) -> bool:
        """True if a fit, or that the budget was not enough for it, is held from now on."""
        if name not in self._held and (kept := self.kept(kind, name)) is not None:
            self._held[name] = dict(kept)
        return name in self._held

    def kept(self, kind: str, name: str) -> Tensors | None:
        """Return a fit that is kept outside of memory; None where there is none."""
        del kind, name
        return None

    def keep(self, kind: str, name: str, tensors: Tensors) -> None:
        """Keep a fit for later calls."""


def _name(kind: str, source: Source) -> str:
    """The SHA-256 of all that a fit follows from. Raises ValueError or TypeError for what JSON does not have."""
    text = json.dumps([kind, source], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(*parts: Any) -> str:
    """SHA-256, in hex, of tensors and arrays with their types and shapes, of mappings of such, and of what JSON has."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Mapping):
            part = {name: digest(value) for name, value in part.items()}
        if isinstance(part, Tensor):  # by its bytes, as NumPy lacks bfloat16
            sha.update(f"{part.dtype} {list(part.shape)}".encode())
            part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype} {list(part.shape)}".encode())
            sha.update(part.tobytes())
        else:
            sha.update(json.dumps(part, sort_keys=True, allow_nan=False).encode())
        sha.update(b"\n")
    return sha.hexdigest()


def digest_of_prompts(prompts: Sequence[Prompt]) -> str:
    """SHA-256, in hex, of all that a model can read of some prompts, in their order."""
    fields = [[p.tokens, p.slots, p.order, p.items, np.array([p.answer, p.target])] for p in prompts]
    columns = [np.concatenate(column) for column in zip(*fields, strict=True)] if fields else []
    return digest(*columns, [[len(p), len(p.items)] for p in prompts])

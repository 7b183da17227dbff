"""Artifacts of a run: fits that its cells share, in ``artifacts/<kind>-<hash>.safetensors``."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from torch import Tensor

from pplr_audit.errors import InputError, RunError
from pplr_audit.runs.parsing import MEND
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.artifacts import Artifacts, Tensors
from pplr_audit.training.side_by_side import side_by_side, width

FOLDER = "artifacts"
_SAID = "fit"
"""The field of a file that says by its full hash which fit it holds."""


class StoredArtifacts(Artifacts):
    """Fits that lie in a run directory, each written once and held in memory from then on.

    One that is damaged, or is another fit than its name says, is refused by name; `broken` has the refusal.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self.apart: list[tuple[str, str, Tensors]] | None = None
        """Fits that a fork of this process has made, for whoever may write into the run; None here."""

    def ahead(self, tasks: Sequence[Callable[[], object]]) -> None:
        if width(len(tasks)) > 1:
            for made in side_by_side([partial(self._made_apart, task) for task in tasks]):
                self.adopt(made)

    def _made_apart(self, task: Callable[[], object]) -> list[tuple[str, str, Tensors]]:
        """Return the fits that a task makes in a fork."""
        made = self.apart = []
        with suppress(Exception):  # an attack of a third party may raise anything
            task()
        return made

    def adopt(self, made: Sequence[tuple[str, str, Tensors]]) -> None:
        """Keep fits that a fork has made."""
        for kind, name, tensors in made:
            if not self._has(name, kind):
                self._held[name] = dict(tensors)
                self.keep(kind, name, tensors)

    def kept(self, kind: str, name: str) -> Tensors | None:
        path = _path(kind, name)
        if not self._store.exists(path):
            return None
        try:
            if self._store.read_metadata(path).get(_SAID) != name:
                raise InputError(f"{self._store.root / path}: it holds another fit than its name says; {MEND}")
            found: dict[str, Tensor] = self._store.read_tensors(path)
        except InputError as error:
            self.broken = error
            raise
        return found

    def keep(self, kind: str, name: str, tensors: Tensors) -> None:
        if self.apart is not None:
            self.apart.append((kind, name, tensors))
            return
        try:
            self._store.write_tensors(_path(kind, name), dict(tensors), {_SAID: name})
        except (InputError, RunError) as error:
            self.broken = error
            raise


def _path(kind: str, name: str) -> str:
    return f"{FOLDER}/{kind}-{name[:16]}.safetensors"

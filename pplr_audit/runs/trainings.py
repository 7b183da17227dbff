"""A training in the run directory: what each round started from, and what happened in it.

``trainings/<slug>/rounds/NNN/state.safetensors`` holds what round NNN starts from (one more than the last: the trained
models); ``log.json`` beside it what happened in round NNN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pplr_audit.pplr.optimizer import OptimizerState
from pplr_audit.pplr.rounds import RoundLog, RoundState
from pplr_audit.pplr.strategies.protocol import Mixing
from pplr_audit.runs.store import Store

_ADAPTER, _MOMENT = "adapter", "moment"


class TrainingFiles:
    """Reads and writes one training below ``folder`` of a run.

    Args:
        kept: rounds whose start is kept for replay; of the others only the newest is.
    """

    def __init__(self, store: Store, folder: str, kept: Sequence[int]) -> None:
        self._store = store
        self._folder = folder
        self._kept = frozenset(kept)

    def save(self, log: RoundLog, following: RoundState) -> None:
        """Put away a round's log, then what the next one starts from; only the second makes the round count."""
        self._store.write_json(self._path(log.round, "log.json"), _log_to_json(log))
        self.save_state(following)
        if log.round not in self._kept:
            self._store.remove(self._path(log.round, "state.safetensors"))

    def save_state(self, state: RoundState) -> None:
        tensors: dict[str, Tensor] = {}
        for client, adapter in state.adapters.items():
            tensors |= {f"{_ADAPTER}/{client}/{name}": value for name, value in adapter.items()}
            moments = state.optimizers[client].moments
            tensors |= {f"{_MOMENT}/{client}/{name}": value for name, value in moments.items()}
        steps = {client: str(state.optimizers[client].steps) for client in state.adapters}
        self._store.write_tensors(self._path(state.round, "state.safetensors"), tensors, steps)

    def done(self) -> int:
        """How many rounds are done."""
        return max(self._saved(), default=1) - 1

    def latest(self) -> RoundState | None:
        """What the first round that is not done starts from; None where nothing was saved."""
        return self.state(max(self._saved())) if self._saved() else None

    def state(self, round_: int) -> RoundState:
        """What round ``round_`` starts from. Raises InputError where it was not kept, or was altered."""
        path = self._path(round_, "state.safetensors")
        steps = self._store.read_metadata(path)
        adapters: dict[str, dict[str, Tensor]] = {client: {} for client in sorted(steps)}
        moments: dict[str, dict[str, Tensor]] = {client: {} for client in sorted(steps)}
        for key, value in self._store.read_tensors(path).items():
            kind, client, name = key.split("/", 2)
            (adapters if kind == _ADAPTER else moments)[client][name] = value
        return RoundState(
            round_,
            {client: dict(sorted(adapter.items())) for client, adapter in adapters.items()},
            {client: OptimizerState(int(steps[client]), moments[client]) for client in steps},
        )

    def logs(self, rounds: int) -> list[RoundLog]:
        """The logs of rounds 1 to ``rounds``."""
        return [_log_from_json(self._store.read_json(self._path(r, "log.json"))) for r in range(1, rounds + 1)]

    def _saved(self) -> list[int]:
        """The rounds whose start is there."""
        paths = self._store.paths(self._folder)
        return [int(path.split("/")[-2]) for path in paths if path.endswith("/state.safetensors")]

    def _path(self, round_: int, file: str) -> str:
        return f"{self._folder}/rounds/{round_:03d}/{file}"


def _log_to_json(log: RoundLog) -> dict[str, Any]:
    mixing = {name: None if value is None else np.asarray(value).tolist() for name, value in vars(log.mixing).items()}
    return {**vars(log), "losses": dict(log.losses), "sent": dict(log.sent), "mixing": mixing}


def _log_from_json(read: dict[str, Any]) -> RoundLog:
    mixing: dict[str, Any] = {n: None if v is None else np.array(v) for n, v in read["mixing"].items()}
    return RoundLog(**{**read, "mixing": Mixing(**mixing)})

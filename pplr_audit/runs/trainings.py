"""A training in the run directory: what each round started from, and what happened in it.

``trainings/<slug>/rounds/NNN/state.safetensors`` holds what round NNN starts from (one more than the last: the trained
models); ``log.json`` beside it what happened in round NNN.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pplr_audit.pplr.optimizer import OptimizerState
from pplr_audit.pplr.rounds import RoundLog, RoundState
from pplr_audit.pplr.stopping import Best
from pplr_audit.pplr.strategies.protocol import Mixing
from pplr_audit.runs.store import Store

_ADAPTER, _MOMENT = "adapter", "moment"
_PERSONAL, _PERSONAL_MOMENT, _BEST = "personal", "personal_moment", "best"
_MEMORY, _PERSONAL_MEMORY = "memory", "personal_memory"
_KINDS = (_ADAPTER, _MOMENT, _PERSONAL, _PERSONAL_MOMENT, _BEST, _MEMORY, _PERSONAL_MEMORY)


class TrainingFiles:
    """Reads and writes one training below ``folder`` of a run.

    Args:
        kept: rounds whose start is kept for replay; of the others only the newest is.
    """

    def __init__(self, store: Store, folder: str, kept: Sequence[int]) -> None:
        self._store = store
        self.folder = folder
        self._kept = frozenset(kept)

    def save(self, log: RoundLog, following: RoundState) -> None:
        """Put away a round's log, then what the next one starts from; only the second makes the round count."""
        self._store.write_json(self._path(log.round, "log.json"), _log_to_json(log))
        self.save_state(following)
        if log.round not in self._kept:
            self._store.remove(self._path(log.round, "state.safetensors"))

    def save_state(self, state: RoundState) -> None:
        tensors: dict[str, Tensor] = {}
        said: dict[str, dict[str, Any]] = {}
        for client in state.adapters:
            parts: dict[str, Mapping[str, Tensor]] = {
                _ADAPTER: state.adapters[client], _MOMENT: state.optimizers[client].moments
            }  # fmt: skip
            said[client] = {"steps": state.optimizers[client].steps}
            if client in state.personal:
                parts |= {
                    _PERSONAL: state.personal[client],
                    _PERSONAL_MOMENT: state.personal_optimizers[client].moments,
                }
                said[client]["personal_steps"] = state.personal_optimizers[client].steps
            if client in state.best:
                best = state.best[client]
                parts[_BEST] = best.adapter
                said[client] |= {
                    "metric": best.metric,
                    "round": best.round,
                    "waited": best.waited,
                    "remembered": best.remembered,
                }
            parts |= {
                _MEMORY: state.memories.get(client, {}),
                _PERSONAL_MEMORY: state.personal_memories.get(client, {}),
            }
            for kind, values in parts.items():
                # Their own memory: a best model may be the very tensors of the newest, which no file holds twice.
                tensors |= {f"{kind}/{client}/{name}": value.clone() for name, value in values.items()}
        metadata = {client: json.dumps(values) for client, values in said.items()}
        self._store.write_tensors(self._path(state.round, "state.safetensors"), tensors, metadata)

    def done(self) -> int:
        """How many rounds are done."""
        return max(self._saved(), default=1) - 1

    def latest(self) -> RoundState | None:
        """What the first round that is not done starts from; None where nothing was saved."""
        return self.state(max(self._saved())) if self._saved() else None

    def state(self, round_: int) -> RoundState:
        """What round ``round_`` starts from. Raises InputError where it was not kept, or was altered."""
        path = self._path(round_, "state.safetensors")
        said = {client: json.loads(text) for client, text in sorted(self._store.read_metadata(path).items())}
        parts: dict[str, dict[str, dict[str, Tensor]]] = {client: {kind: {} for kind in _KINDS} for client in said}
        for key, value in sorted(self._store.read_tensors(path).items()):
            kind, client, name = key.split("/", 2)
            parts[client][kind][name] = value
        owners = [client for client, values in said.items() if "personal_steps" in values]
        return RoundState(
            round_,
            {client: parts[client][_ADAPTER] for client in said},
            {client: OptimizerState(said[client]["steps"], parts[client][_MOMENT]) for client in said},
            {client: parts[client][_PERSONAL] for client in owners},
            {c: OptimizerState(said[c]["personal_steps"], parts[c][_PERSONAL_MOMENT]) for c in owners},
            {
                client: Best(
                    values["metric"],
                    values["round"],
                    values["waited"],
                    parts[client][_BEST],
                    values.get("remembered", True),
                )
                for client, values in said.items()
                if "metric" in values
            },
            {client: parts[client][_MEMORY] for client in said if parts[client][_MEMORY]},
            {client: parts[client][_PERSONAL_MEMORY] for client in said if parts[client][_PERSONAL_MEMORY]},
        )

    def logs(self, rounds: int) -> list[RoundLog]:
        """The logs of rounds 1 to ``rounds``."""
        return [_log_from_json(self._store.read_json(self._path(r, "log.json"))) for r in range(1, rounds + 1)]

    def _saved(self) -> list[int]:
        """The rounds whose start is there."""
        paths = self._store.paths(self.folder)
        return [int(path.split("/")[-2]) for path in paths if path.endswith("/state.safetensors")]

    def _path(self, round_: int, file: str) -> str:
        return f"{self.folder}/rounds/{round_:03d}/{file}"


def _log_to_json(log: RoundLog) -> dict[str, Any]:
    mixing = {name: None if value is None else np.asarray(value).tolist() for name, value in vars(log.mixing).items()}
    return {
        **vars(log),
        "losses": dict(log.losses),
        "sent": dict(log.sent),
        "mixing": mixing,
        "metrics": dict(log.metrics),
        "receivers": list(log.receivers),
    }


def _log_from_json(read: dict[str, Any]) -> RoundLog:
    mixing: dict[str, Any] = {n: None if v is None else np.array(v) for n, v in read["mixing"].items()}
    return RoundLog(**{**read, "mixing": Mixing(**mixing)})

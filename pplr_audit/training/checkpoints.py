"""A training in its folder: what each round started from, and what happened in it.

``rounds/NNN/state.safetensors`` holds what round NNN starts from (one more than the last: the trained models);
``log.json`` beside it what happened in round NNN; of the rounds that are kept, ``crossings.safetensors`` holds what
crossed once in it: updates, status and new models of all clients.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field
from torch import Tensor

from pplr_audit.runs.parsing import parsed, shaped, understood
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.fitting import require_crossed, require_fit
from pplr_audit.training.optimizer import OptimizerState
from pplr_audit.training.rounds import Federation, RoundLog, RoundState
from pplr_audit.training.stopping import Best
from pplr_audit.training.strategies.protocol import Mixing

_KEPT = "kept"
_ADAPTER, _MOMENT = "adapter", "moment"
_PERSONAL, _PERSONAL_MOMENT, _BEST = "personal", "personal_moment", "best"
_MEMORY, _PERSONAL_MEMORY = "memory", "personal_memory"
_KINDS = (_ADAPTER, _MOMENT, _PERSONAL, _PERSONAL_MOMENT, _BEST, _MEMORY, _PERSONAL_MEMORY)


CROSSINGS = "crossings.safetensors"
_STATE = re.compile(r"rounds/([0-9]{3,9})/state\.safetensors")
_Count = Annotated[int, Field(ge=0)]
_Real = Annotated[float, Field(ge=-1e30, le=1e30)]
"""Real numbers as the schema of the evidence has them."""


class _Said(BaseModel):
    """The fields stored with a client's tensors; there may be more."""

    steps: _Count
    personal_steps: _Count | None = None
    metric: _Real | None = None
    round: _Count = 0
    waited: _Count = 0
    remembered: bool = True


class _Mixed(BaseModel):
    matrix: list[list[Annotated[float, Field(ge=0, le=1)]]]
    similarity: list[list[_Real]] | None = None
    status: list[_Real] | None = None
    speed: list[_Real] | None = None
    absent: list[_Real] | None = None


class _Crossed(BaseModel):
    """The list beside the tensors that crossed once in a round: channel and client of each crossing, in order."""

    crossings: list[Annotated[list[str], Field(min_length=2, max_length=2)]]


class _Logged(BaseModel):
    """A round's log; an earlier version wrote less."""

    round: _Count
    losses: dict[str, _Real]
    mixing: _Mixed
    seconds: Annotated[float, Field(ge=0, le=1e24)]
    sent: dict[str, _Count]
    metrics: dict[str, _Real] = {}
    receivers: list[str] = []
    catalogue: _Count = 0


class TrainingFiles:
    """Reads and writes one training.

    Args:
        store: of the training's own folder.
        kept: rounds whose start is kept for replay; of the others only the newest is.
        federation: whose rounds they are, to refuse what is read and does not fit it; None where no state is read.
    """

    def __init__(self, store: Store, kept: Sequence[int] = (), federation: Federation | None = None) -> None:
        self._store = store
        self._federation = federation
        self.kept = frozenset(kept)

    def save(self, log: RoundLog, following: RoundState, crossings: Sequence[Crossing] = ()) -> None:
        """Put away what crossed and a round's log, then what the next one starts from; only that makes the round count.

        Args:
            crossings: what crossed once in the round; written of a kept round alone.
        """
        if log.round in self.kept:
            self.save_crossings(log.round, crossings)
        self._store.write_json(self._path(log.round, "log.json"), _log_to_json(log))
        self.save_state(following)
        if log.round not in self.kept:
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
                _MEMORY: state.encodings.get(client, {}),
                _PERSONAL_MEMORY: state.personal_encodings.get(client, {}),
            }
            for kind, values in parts.items():
                # Their own encoding: a best model may be the very tensors of the newest, which no file holds twice.
                tensors |= {f"{kind}/{client}/{name}": value.clone() for name, value in values.items()}
        for client, kept in state.kept.items():
            tensors |= {f"{_KEPT}/{client}/{name}": value.clone() for name, value in kept.items()}
        metadata = {client: json.dumps(values) for client, values in said.items()}
        self._store.write_tensors(self._path(state.round, "state.safetensors"), tensors, metadata)

    def done(self) -> int:
        """Return the number of finished rounds."""
        return max(self._saved(), default=1) - 1

    def latest(self) -> RoundState | None:
        """Return the state that the first unfinished round starts from, or None where nothing was saved."""
        return self.state(max(self._saved())) if self._saved() else None

    def before(self, round_: int) -> RoundState | None:
        """Return the newest stored state that comes before round ``round_``, or None where there is none."""
        earlier = [saved for saved in self._saved() if saved < round_]
        return self.state(max(earlier)) if earlier else None

    def state(self, round_: int) -> RoundState:
        """Return the state that round ``round_`` starts from.

        Raises InputError where it was not kept, was altered, or is no state of the federation.
        """
        path = self._path(round_, "state.safetensors")
        file = self._store.root / path
        said = {
            client: shaped(parsed(text.encode(), file), _Said, file)
            for client, text in sorted(self._store.read_metadata(path).items())
        }
        tensors = sorted(self._store.read_tensors(path).items())
        with understood(file):
            state = _state(round_, said, tensors)
            if self._federation is not None:
                require_fit(state, self._federation)
        return state

    def has_state(self, round_: int) -> bool:
        """True if what round ``round_`` starts from is stored."""
        return self._store.exists(self._path(round_, "state.safetensors"))

    def has_crossings(self, round_: int) -> bool:
        """True if what crossed once in round ``round_`` is stored."""
        return self._store.exists(self._path(round_, CROSSINGS))

    def crossings(self, round_: int) -> list[Crossing]:
        """Return what crossed once in round ``round_``, in order, as the receiver got it.

        Raises InputError where it was not kept, was altered, or is nothing that crosses in such a federation.
        """
        path = self._path(round_, CROSSINGS)
        file = self._store.root / path
        listed = shaped(parsed(self._store.read_metadata(path).get("crossings", "{}").encode(), file), _Crossed, file)
        tensors: list[dict[str, Tensor]] = [{} for _ in listed["crossings"]]
        with understood(file):
            for key, value in sorted(self._store.read_tensors(path).items()):
                place, name = key.split("/", 1)
                tensors[int(place)][name] = value
            found = [
                Crossing(Channel(channel), client, round_, -1, held)
                for (channel, client), held in zip(listed["crossings"], tensors, strict=True)
            ]
            if self._federation is not None:
                require_crossed(found, self._federation)
        return found

    def save_crossings(self, round_: int, crossings: Sequence[Crossing]) -> None:
        """Put away what crossed once in a round."""
        tensors = {
            f"{place}/{name}": value for place, each in enumerate(crossings) for name, value in each.tensors.items()
        }
        listed = json.dumps({"crossings": [[str(each.channel), each.client] for each in crossings]})
        self._store.write_tensors(self._path(round_, CROSSINGS), tensors, {"crossings": listed})

    def logs(self, rounds: int) -> list[RoundLog]:
        """The logs of rounds 1 to ``rounds``."""
        paths = [self._path(round_, "log.json") for round_ in range(1, rounds + 1)]
        return [_log_from_json(self._store.read_json(path), self._store.root / path) for path in paths]

    def missing(self) -> list[int]:
        """Return the rounds to be kept that are done and of which something is not there: nobody had asked for it."""
        saved = self._saved()
        whole = {round_ for round_ in saved if self._store.exists(self._path(round_, CROSSINGS))}
        return sorted(round_ for round_ in self.kept - whole if round_ <= self.done())

    def _saved(self) -> list[int]:
        """The rounds whose start is there."""
        found = (_STATE.fullmatch(path) for path in self._store.paths("rounds"))
        return [int(match[1]) for match in found if match]

    def _path(self, round_: int, file: str) -> str:
        return f"rounds/{round_:03d}/{file}"


def _state(round_: int, said: Mapping[str, dict[str, Any]], tensors: Sequence[tuple[str, Tensor]]) -> RoundState:
    """Put a saved state together again; ``said`` is by client."""
    parts: dict[str, dict[str, dict[str, Tensor]]] = {client: {kind: {} for kind in _KINDS} for client in said}
    remembered: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors:
        kind, client, name = key.split("/", 2)
        (remembered.setdefault(client, {}) if kind == _KEPT else parts[client][kind])[name] = value
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
        remembered,
    )


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


def _log_from_json(read: dict[str, Any], file: Path) -> RoundLog:
    shaped(read, _Logged, file)
    with understood(file):
        mixing: dict[str, Any] = {n: None if v is None else np.array(v) for n, v in read["mixing"].items()}
        log = RoundLog(**{**read, "mixing": Mixing(**mixing)})
        count = len(log.losses)
        if any(size != count for values in mixing.values() if values is not None for size in values.shape[:2] or (0,)):
            raise ValueError(f"mixing: not of {count} clients")
    return log

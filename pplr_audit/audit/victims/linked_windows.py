"""The rows of an attack on linkage: two windows of each victim under numbers of their own; their truth apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pplr_audit.audit.replay.records import Watched, serving_records, training_records
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.audit.truth.linkage import LinkageTruth
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.audit.victims.windows import Windows
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.scenario.seeds import derive
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState

ClientOf = Callable[[int], str]
Rounds = tuple[int, int]
"""Rounds of the newer and of the older windows."""


@dataclass(frozen=True)
class Linked:
    """Windows and the rows they stand in."""

    windows: Windows
    rows: tuple[list[int], list[int]]
    """Rows of the newer and of the older windows."""
    prompts: dict[int, Prompt]

    @classmethod
    def numbered(cls, windows: Windows, prompts: Prompts, order: np.random.Generator) -> "Linked":
        """Rows in a random order over both sides, so that a number says nothing."""
        drawn = order.permutation(2 * len(windows)).tolist()
        rows = (drawn[: len(windows)], drawn[len(windows) :])
        built = {
            row: prompts.build(side.history[place], int(side.targets[place]))
            for side, own in zip((windows.newer, windows.older), rows, strict=True)
            for place, row in enumerate(own)
        }
        return cls(windows, rows, built)

    def truth(self, client_of: ClientOf) -> LinkageTruth:
        users = self.windows.newer.users.tolist()
        return LinkageTruth(users, [client_of(user) for user in users], *self.rows, self.prompts)

    def watched(self, sides: Sequence[int], holder_of: ClientOf) -> dict[str, list[Watched]]:
        """The training samples of one side (0: newer, 1: older) or both, by who trains on them."""
        assert self.windows.places is not None
        found: dict[str, list[Watched]] = {}
        for side in sides:
            for place, user in enumerate(self.windows.newer.users.tolist()):
                row = self.rows[side][place]
                sample = int(self.windows.places[side][place])
                found.setdefault(holder_of(user), []).append(Watched(row, sample, len(self.prompts[row])))
        return found

    def requests(self, holder_of: ClientOf) -> dict[str, list[tuple[int, Prompt]]]:
        """Both windows of everyone, by who serves them."""
        found: dict[str, list[tuple[int, Prompt]]] = {}
        for side in self.rows:
            for place, user in enumerate(self.windows.newer.users.tolist()):
                found.setdefault(holder_of(user), []).append((side[place], self.prompts[side[place]]))
        return found


class Links:
    """Two windows of each victim in training or in serving, what crossed of them, and whose they are.

    Args:
        job: the training; its federation is used to replay rounds, and its state is not kept.
        victims: whose windows, and who holds them.
        state: what a round starts from.
    """

    def __init__(self, job: Job, victims: Rows, state: Callable[[int], RoundState]) -> None:
        self._victims, self._model, self._federation = victims, job.model, job.federation
        self._state, self._seed = state, job.scenario.seed
        self._linked = lru_cache(maxsize=None)(self._link)
        self.recorded = lru_cache(maxsize=1)(self._record)

    def truth(self, training: bool, rounds: Rounds) -> LinkageTruth:
        """Return which rows are of one user. Raises NotApplicable where there is nobody to be told from another."""
        return self._linked(training, rounds).truth(self._victims.client_of)

    def _link(self, training: bool, rounds: Rounds) -> Linked:
        order = np.random.default_rng(derive(self._seed, "rows", "linkage", str(training), *rounds))
        linked = Linked.numbered(self._victims.windows(training, rounds), self._model.prompts, order)
        if not linked.truth(self._victims.client_of).comparable:
            raise NotApplicable("no client has two victims with two windows each that share no item")
        return linked

    def _record(
        self, training: bool, rounds: Rounds, layers: Sequence[int], scratch: Path, *, every: bool = False
    ) -> Spool:
        """Record h_l at each of ``layers`` in ``scratch``, as rows cross first in a round or ``every`` time."""
        linked, spool = self._linked(training, rounds), Spool(scratch)
        if not training:
            requests = linked.requests(self._victims.holder_of)
            serving_records(self._model.whole, self._state(rounds[0]), requests, layers, spool.put)
            return spool
        wanted = [Trace("activation", layer) for layer in layers]
        for round_ in sorted(set(rounds)):
            watched = linked.watched([side for side in (0, 1) if rounds[side] == round_], self._victims.holder_of)
            state, parts = self._state(round_), self._model.parts
            training_records(self._federation, parts, state, watched, wanted, spool.put, every=every)
        return spool

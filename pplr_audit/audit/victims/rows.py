"""Rows: the victims and others by numbers without meaning, drawn anew for every phase and round; whose each is.

Attacks are handed the numbers; what stands here is the harness's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from pplr_audit.audit.replay.collusion import colluder_among, handed_on
from pplr_audit.audit.replay.records import Watched
from pplr_audit.audit.tap_points import Phase
from pplr_audit.audit.victims.peer import peers_among
from pplr_audit.audit.victims.windows import Windows, serving_windows, training_windows
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import Samples, serving_samples, training_samples
from pplr_audit.scenario.seeds import derive
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState


@dataclass(frozen=True)
class PhaseRows:
    """The rows of one phase and round."""

    users: Mapping[int, int]
    """Row to user."""
    places: Mapping[int, int]
    """Row to the sample's place in its client, in training."""
    prompts: Mapping[int, Prompt]
    samples: Samples
    """Samples in the order of ``users``."""


@dataclass(frozen=True)
class Recorded:
    """Rows of which it is recorded what crosses."""

    by_client: Mapping[str, Sequence[int]]
    places: Mapping[int, int]
    """Row to the sample's place in its client, in training."""
    prompts: Mapping[int, Prompt]

    @property
    def watched(self) -> dict[str, list[Watched]]:
        """Their samples in training, by client."""
        return watched(self.by_client, self.places, self.prompts)


class Rows:
    """The victims and their row numbers.

    Args:
        job: the training; its federation says who trains in a round.
        state: what a round starts from.
    """

    def __init__(self, job: Job, state: Callable[[int], RoundState]) -> None:
        scenario, private = job.scenario, job.private
        self._data, self._seed, self._private, self._prompts = scenario.data, scenario.seed, private, job.model.prompts
        self._federation, self._state = job.federation, state
        self.colluder = colluder_among(private.samples) if scenario.audit.knowledge == "auxiliary" else None
        """Of ``knowledge: auxiliary``; its own users are no victims."""
        self.peers = peers_among(scenario, private.samples)
        """The clients that are the adversary ``peer``; their own users are no victims of them."""
        self.victims = private.victims(scenario.audit.victims, scenario.seed, self.colluder)
        self.phase_rows = lru_cache(maxsize=None)(self._phase_rows)
        self.handed_on = lru_cache(maxsize=None)(self._handed_on)

    def client_of(self, user: int) -> str:
        """The client that a user belongs to."""
        return self._private.population.clients[int(self._private.population.client_of[user])]

    def holder_of(self, user: int) -> str:
        """The client that trains on a user and serves it."""
        return self._private.holders[self.client_of(user)]

    def training_in(self, round_: int) -> Int[np.ndarray, "victims"]:
        """The victims whose client trained in a round."""
        trained = self.clients_in(round_)
        present = [self.holder_of(user) in trained for user in self.victims.tolist()]
        return np.asarray(self.victims[np.array(present, dtype=bool)])

    def clients_in(self, round_: int) -> set[str]:
        """The clients that train in a round."""
        return {client.name for client in self._federation.training_in(round_, self._state(round_).best)}

    def by_client(self, rows: Mapping[int, int]) -> dict[str, list[int]]:
        """The rows, which are given with their users, by the client that holds them."""
        found: dict[str, list[int]] = {}
        for row in sorted(rows):
            found.setdefault(self.holder_of(rows[row]), []).append(row)
        return found

    def watched(self, round_: int) -> dict[str, list[Watched]]:
        """The victims' samples in a round, by the client that holds them."""
        rows = self.phase_rows("training", round_)
        return watched(self.by_client(rows.users), rows.places, rows.prompts)

    def recorded(self, phase: Phase, round_: int) -> "Recorded":
        """Return what is recorded of a phase: the victims' rows, and those that the colluding client hands on."""
        own = self.phase_rows(phase, round_)
        places, prompts, by_client = dict(own.places), dict(own.prompts), self.by_client(own.users)
        if self.colluder is not None and phase != "queries":
            for row, (place, prompt) in self.handed_on(phase, round_).items():
                places[row], prompts[row] = place, prompt
                by_client.setdefault(self.colluder, []).append(row)
        return Recorded(by_client, places, prompts)

    def windows(self, training: bool, rounds: tuple[int, int]) -> Windows:
        """Two windows of each victim; in training of those who trained in both rounds."""
        if not training:
            return serving_windows(self._private.split, self.victims, self._data.history)
        if self._data.samples == "last":
            raise NotApplicable(
                "with data.samples: last a user has the same window in all rounds, which is recognized by its items; "
                "linkage in training needs data.samples: all"
            )
        users = np.intersect1d(self.training_in(rounds[0]), self.training_in(rounds[1])).tolist()
        return training_windows({user: self._private.samples[self.holder_of(user)] for user in users})

    def require_comparable(self) -> None:
        """Raises NotApplicable where no client has a member and a non-member among its candidates."""
        candidates, population = self._private.candidates(), self._private.population
        held = {(int(population.client_of[user]), int(population.member[user])) for user in candidates}
        if not any((client, 0) in held and (client, 1) in held for client in range(len(population.clients))):
            raise NotApplicable(
                "no client has both a member and a non-member of the audit, and membership is measured within clients"
            )

    def _phase_rows(self, phase: Phase, round_: int) -> PhaseRows:
        split, history = self._private.split, self._data.history
        if phase == "serving":
            samples = serving_samples(split, self.victims, history)
        elif phase == "queries":
            samples = training_samples(split, self._private.candidates(), history, "last")
        else:
            samples = training_samples(split, self.training_in(round_), history, "last")
        order = np.random.default_rng(derive(self._seed, "rows", phase, round_))
        rows = [int(row) for row in order.permutation(len(samples))]
        users = {row: int(user) for row, user in zip(rows, samples.users, strict=True)}
        prompts = {row: self._prompts.build(samples.history[i], int(samples.targets[i])) for i, row in enumerate(rows)}
        places = {row: self._last_sample(user) for row, user in users.items()} if phase == "training" else {}
        return PhaseRows(users, places, prompts, samples)

    def _last_sample(self, user: int) -> int:
        """Return the place of a user's last training sample in its client; of many prefixes the longest."""
        own: Int[np.ndarray, samples] = self._private.samples[self.holder_of(user)].users
        return int(np.flatnonzero(own == user)[-1])

    def _handed_on(self, phase: Phase, round_: int) -> dict[int, tuple[int, Prompt]]:
        """Return, for the colluding client, each row (behind the victims'), its sample's place, and its prompt."""
        assert self.colluder is not None
        own = self._private.samples[self.colluder]
        if phase == "serving":
            own = serving_samples(self._private.split, np.unique(own.users), self._data.history)
        first, seed = len(self.phase_rows(phase, round_).users), derive(self._seed, "colluder", phase, round_)
        return handed_on(own, self._prompts, first, seed)


def watched(
    rows: Mapping[str, Sequence[int]], places: Mapping[int, int], prompts: Mapping[int, Prompt]
) -> dict[str, list[Watched]]:
    """The samples of rows in training, by client."""
    return {client: [Watched(row, places[row], len(prompts[row])) for row in own] for client, own in rows.items()}

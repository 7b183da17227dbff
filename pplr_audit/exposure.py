"""From a trained run to what each cell of the audit needs: the view, what the adversary knows, and the truth apart.

This is the harness: it holds private data and hands attacks only the `View` and the `Knowledge`. Rows are numbered anew
for every channel and round, in a random order, so that a number says nothing.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int

from pplr_audit.cells import Cell, Truth
from pplr_audit.channels import Channel
from pplr_audit.data.prepare import PrivateData, model_free_features
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import Samples, serving_samples, training_samples
from pplr_audit.findings import HistoryTruth, MembershipTruth
from pplr_audit.models.recommender import Recommender
from pplr_audit.plan import Plan
from pplr_audit.pplr.rounds import Federation
from pplr_audit.pplr.utility import popularity_of
from pplr_audit.runs.replay import KnownModel, Watched, query_records, serving_records, training_records
from pplr_audit.runs.trainings import TrainingFiles
from pplr_audit.scenario import Scenario
from pplr_audit.seeds import derive
from pplr_audit.views import Knowledge, NotApplicable, Record, View


class Exposure:
    """What one trained run exposes, channel by channel.

    Args:
        federation: used to replay rounds; its state is not kept.
        files: what the rounds started from.
    """

    def __init__(
        self,
        scenario: Scenario,
        private: PrivateData,
        model: Recommender,
        federation: Federation,
        files: TrainingFiles,
        plan: Plan,
    ) -> None:
        self._scenario, self._private, self._model = scenario, private, model
        self._federation, self._files, self._plan = federation, files, plan
        self.victims = private.victims(scenario.audit.victims, scenario.seed)
        self.records = lru_cache(maxsize=1)(self._records)
        self.asked = lru_cache(maxsize=None)(self._asked)
        self._state = lru_cache(maxsize=2)(files.state)
        self._known = lru_cache(maxsize=None)(self._know)

    def view(self, cell: Cell) -> View:
        """What the cell's adversary saw of the victims. Raises NotApplicable where nothing could be compared."""
        if cell.channel == Channel.MODEL_OUTPUT:
            self._require_comparable()
        if cell.channel == _TRAINING and not len(self._training_in(cell.round)):
            raise NotApplicable(f"no victim's client trained in round {cell.round}")
        # Copies: what an attack does to its view must not reach the next cell.
        records = [
            replace(record, tensor=record.tensor.clone())
            for record in self.records(cell.channel, cell.round)[cell.front]
        ]
        return View(cell.adversary, cell.channel, cell.front, cell.back, cell.defense, tuple(records))

    def knowledge(self, cell: Cell) -> Knowledge:
        """What the cell's adversary knows besides; an attack has its own, so that it can harm none but itself."""
        return self._known(cell.attack, cell.settings, cell.knowledge, cell.channel, cell.round)

    def truth(self, cell: Cell) -> Truth:
        """What is true of the rows of the cell's view."""
        users, _, prompts, samples = self.asked(cell.channel, cell.round)
        if cell.channel == Channel.MODEL_OUTPUT:
            population = self._private.population
            outside = np.flatnonzero(population.audited == 0)
            public = popularity_of(self._private.split, outside, len(self._private.dataset.catalogue))
            features = model_free_features(self._private, samples, public)
            return MembershipTruth(
                users,
                {row: int(population.client_of[user]) for row, user in users.items()},
                {row: int(population.member[user]) for row, user in users.items()},
                {row: features[place].tolist() for place, row in enumerate(users)},
            )
        items = len(self._private.dataset.catalogue)
        titles, content = self._model.prompts.titles, self._model.prompts.content
        return HistoryTruth(
            users,
            prompts,
            self._model.prompts.title_classes(),
            popularity_of(self._private.split, self._private.members, items),
            [titles[item][content[item] == 1] for item in range(items)],
        )

    def _require_comparable(self) -> None:
        candidates, population = self._private.candidates(), self._private.population
        held = {(int(population.client_of[user]), int(population.member[user])) for user in candidates}
        if not any((client, 0) in held and (client, 1) in held for client in range(len(population.clients))):
            raise NotApplicable(
                "no client has both a member and a non-member of the audit, and membership is measured within clients"
            )

    def client_of(self, user: int) -> str:
        """The client that a user belongs to."""
        return self._private.population.clients[int(self._private.population.client_of[user])]

    def _holder_of(self, user: int) -> str:
        """The client that trains on a user and serves it."""
        return self._private.holders[self.client_of(user)]

    def _training_in(self, round_: int) -> Int[np.ndarray, "victims"]:
        """The victims whose client trained in a round."""
        trained = {client.name for client in self._federation.training_in(round_, self._state(round_).best)}
        present = [self._holder_of(user) in trained for user in self.victims.tolist()]
        return np.asarray(self.victims[np.array(present, dtype=bool)])

    def _asked(
        self, channel: Channel, round_: int
    ) -> tuple[dict[int, int], dict[int, int], dict[int, Prompt], Samples]:
        """Row to user, row to the sample's place in its client (training only), row to prompt, and the samples."""
        split, history = self._private.split, self._scenario.data.history
        if channel == Channel.INFERENCE_ACTIVATIONS:
            samples = serving_samples(split, self.victims, history)
        elif channel == Channel.MODEL_OUTPUT:
            samples = training_samples(split, self._private.candidates(), history, "last")
        else:
            samples = training_samples(split, self._training_in(round_), history, "last")
        order = np.random.default_rng(derive(self._scenario.seed, "rows", str(channel), round_))
        rows = [int(row) for row in order.permutation(len(samples))]
        users = {row: int(user) for row, user in zip(rows, samples.users, strict=True)}
        prompts = {
            row: self._model.prompts.build(samples.history[i], int(samples.targets[i])) for i, row in enumerate(rows)
        }
        places = {row: self._last_sample(user) for row, user in users.items()} if channel == _TRAINING else {}
        return users, places, prompts, samples

    def _last_sample(self, user: int) -> int:
        """Where a user's last training sample stands in its client; of many prefixes the longest."""
        own: Int[np.ndarray, samples] = self._private.samples[self._holder_of(user)].users
        return int(np.flatnonzero(own == user)[-1])

    def _records(self, channel: Channel, round_: int) -> Mapping[Any, Sequence[Record]]:
        users, places, prompts, _ = self.asked(channel, round_)
        by_client: dict[str, list[int]] = {}
        for row in sorted(users):
            by_client.setdefault(self._holder_of(users[row]), []).append(row)
        state, layers = self._state(round_), self._plan.layers
        if channel == _TRAINING:
            watched = {
                client: [Watched(row, places[row], len(prompts[row])) for row in rows]
                for client, rows in by_client.items()
            }
            return training_records(self._federation, self._model.parts, state, watched, layers)
        queries = {client: [(row, prompts[row]) for row in rows] for client, rows in by_client.items()}
        if channel == Channel.INFERENCE_ACTIVATIONS:
            return serving_records(self._model.whole, state, queries, layers)
        return {None: query_records(self._model.whole, state, queries)}

    def _know(self, attack: str, settings: str, level: str, channel: Channel, round_: int) -> Knowledge:
        del attack, settings  # they keep the answers of `lru_cache` apart
        whole = self._model.whole
        fronts, training = {}, channel == _TRAINING
        if level == "front":
            state = self._state(round_)
            # In training what the round began with; in serving the newest that the server made for this client.
            fronts = {
                (client, round_): KnownModel(whole, state.adapters[client] if training else state.sent(client))
                for client in state.adapters
            }
        return Knowledge(
            level=level,
            prompts=deepcopy(self._model.prompts),
            embeddings=whole.embeddings.clone(),
            base=KnownModel(whole, None),
            fronts=fronts,
            layers=self._plan.layers,
            history=self._scenario.data.history,
            queries=deepcopy(self.asked(channel, round_)[2]) if channel == Channel.MODEL_OUTPUT else {},
        )


_TRAINING = Channel.FRONT_ACTIVATIONS

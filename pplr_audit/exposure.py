"""From a trained run to what each cell of the audit needs: the view, what the adversary knows, and the truth apart.

This is the harness: it holds private data and hands attacks only the `View` and the `Knowledge`. Rows are numbered anew
for every channel and round, in a random order, so that a number says nothing.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from pplr_audit.attributes import deal
from pplr_audit.cells import Cell, Failed, Truth
from pplr_audit.channels import Channel
from pplr_audit.data.prepare import PrivateData, model_free_features
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.samples import Samples, serving_samples, training_samples
from pplr_audit.data.synthetic import other_catalogue
from pplr_audit.errors import InputError
from pplr_audit.findings import HistoryTruth, LabelTruth, MembershipTruth
from pplr_audit.linked import Links
from pplr_audit.models.recommender import Recommender, prompts_over
from pplr_audit.plan import OF_THE_TRAINED, Plan
from pplr_audit.pplr.rounds import Federation
from pplr_audit.pplr.utility import popularity_of
from pplr_audit.runs.collusion import Collusion, codes, colluded, colluder_among, handed_on
from pplr_audit.runs.hijack import hijackable, hijacked
from pplr_audit.runs.replay import (
    KnownModel,
    NoModel,
    Trace,
    Watched,
    mask_records,
    query_records,
    serving_records,
    training_records,
)  # fmt: skip
from pplr_audit.runs.spool import Spool
from pplr_audit.runs.trainings import TrainingFiles
from pplr_audit.scenario import Scenario
from pplr_audit.seeds import derive
from pplr_audit.truths_users import AttributeTruth
from pplr_audit.views import (
    Budget,
    BudgetExhausted,
    Knowledge,
    NotApplicable,
    Record,
    View,
    as_active,
    asked_attribute,
    beside,
)  # fmt: skip
from pplr_audit.windows import Windows, serving_windows, training_windows

Phase = Literal["training", "serving", "queries"]


class Exposure:
    """What one trained run exposes, channel by channel.

    Args:
        federation: used to replay rounds; its state is not kept.
        files: what the rounds started from.
        scratch: a folder with room for what crossed, while it is looked at.
    """

    def __init__(
        self,
        scenario: Scenario,
        private: PrivateData,
        model: Recommender,
        federation: Federation,
        files: TrainingFiles,
        plan: Plan,
        scratch: Path,
    ) -> None:
        self._scenario, self._private, self._model = scenario, private, model
        self._federation, self._files, self._plan, self._scratch = federation, files, plan, scratch
        self.colluder = colluder_among(private.samples) if scenario.audit.knowledge == "auxiliary" else None
        """Of ``knowledge: auxiliary``; its own users are no victims."""
        self.victims = private.victims(scenario.audit.victims, scenario.seed, self.colluder)
        self._recorded = lru_cache(maxsize=1)(self._record)
        self._hijacked = lru_cache(maxsize=1)(self._hijack)
        self.truths_of = lru_cache(maxsize=None)(self._truths)
        self.asked = lru_cache(maxsize=None)(self._asked)
        self._handed_on = lru_cache(maxsize=None)(self._hand_on)
        self._state = lru_cache(maxsize=2)(files.state)
        self._known = lru_cache(maxsize=None)(self._know)
        self._attribute = lru_cache(maxsize=None)(self._attribute_of)
        self._links = Links(
            self._windows, model, federation, self._state, self.client_of, self._holder_of, scenario.seed
        )

    def view(self, cell: Cell) -> View:
        """What the cell's adversary saw of the victims. Raises NotApplicable where nothing could be compared."""
        if cell.channel == Channel.MODEL_OUTPUT:
            self._require_comparable()
        training = _phase(cell.channel) == "training"
        if training and not len(self._training_in(cell.round)):
            raise NotApplicable(f"no victim's client trained in round {cell.round}")
        if cell.channel == Channel.METADATA:
            return View(cell.adversary, cell.channel, None, None, cell.defense, tuple(self._masks(cell.round)))
        if self._plan.attack(cell).secret == "linkage" and cell.front is not None:
            spool = self._links.recorded(training, self._linked_rounds(cell), self._plan.layers, self._scratch)
            found = spool.records(Trace("activation", cell.front))
            return View(cell.adversary, cell.channel, cell.front, cell.back, cell.defense, tuple(found))
        active = as_active(self._plan.attack(cell))
        spool = self._recorded(_phase(cell.channel), cell.round) if active is None else self._hijacked(cell)
        if not training:
            records = spool.records(Trace("activation", cell.front) if cell.front is not None else cell.channel)
        else:
            records = spool.records(self._plan.trace(cell, cell.channel))
            for channel in sorted(beside(self._plan.attack(cell))):
                also = {record.row: record.tensor for record in spool.records(self._plan.trace(cell, channel))}
                records = [replace(r, beside={**r.beside, channel: also[r.row]}) for r in records]
        return View(cell.adversary, cell.channel, cell.front, cell.back, cell.defense, tuple(records))

    def knowledge(self, cell: Cell) -> Knowledge:
        """What the cell's adversary knows besides; an attack has its own, so that it can harm none but itself."""
        return self._known(cell.attack, cell.settings, cell.knowledge, cell.channel, cell.round)

    def truths(self, cell: Cell) -> Mapping[str, Truth]:
        """What is true of the rows of the cell's view, by secret."""
        attack = self._plan.attack(cell)
        if attack.secret == "linkage":  # its rows are others
            training = _phase(cell.channel) == "training"
            return {"linkage": self._links.truth(training, self._linked_rounds(cell))}
        found = self.truths_of(_phase(cell.channel), cell.round)
        if attack.secret == "attribute":
            return {**found, "attribute": self._attribute(*asked_attribute(attack), _phase(cell.channel), cell.round)}
        return found

    def _truths(self, phase: Phase, round_: int) -> Mapping[str, Truth]:
        users, _, prompts, samples = self.asked(phase, round_)
        if phase == "queries":
            population = self._private.population
            outside = np.flatnonzero(population.audited == 0)
            public = popularity_of(self._private.split, outside, len(self._private.dataset.catalogue))
            features = model_free_features(self._private, samples, public)
            membership = MembershipTruth(
                users,
                {row: int(population.client_of[user]) for row, user in users.items()},
                {row: int(population.member[user]) for row, user in users.items()},
                {row: features[place].tolist() for place, row in enumerate(users)},
            )
            return {"membership": membership}
        items = len(self._private.dataset.catalogue)
        titles, content = self._model.prompts.titles, self._model.prompts.content
        classes = self._model.prompts.title_classes()
        popular = popularity_of(self._private.split, self._private.members, items)
        own = [titles[item][content[item] == 1] for item in range(items)]
        found: dict[str, Truth] = {"history": HistoryTruth(users, prompts, classes, popular, own)}
        if phase == "training":
            targets = {row: prompt.target for row, prompt in prompts.items()}
            found["label"] = LabelTruth(users, targets, classes, popular)
        return found

    def _attribute_of(self, name: str, share: float, phase: Phase, round_: int) -> AttributeTruth:
        """An attribute of the users of the rows of a phase. Raises NotApplicable where too little is known of it."""
        users, _, prompts, _ = self.asked(phase, round_)
        dealt = deal(self._private.dataset, name, self.victims.tolist(), share, self._scenario.seed)
        clients = {row: self.client_of(user) for row, user in users.items()}
        return dealt.truth(users, clients, prompts, len(self._private.dataset.catalogue))

    def _linked_rounds(self, cell: Cell) -> tuple[int, int]:
        """The cell's round and the audited one before it, whose rows are linked; the same twice for the first."""
        return cell.round, max((each for each in self._plan.rounds if each < cell.round), default=cell.round)

    def _windows(self, training: bool, rounds: tuple[int, int]) -> Windows:
        """Two windows of each victim; in training of those who trained in both rounds."""
        data = self._scenario.data
        if not training:
            return serving_windows(self._private.split, self.victims, data.history)
        if data.samples == "last":
            raise NotApplicable(
                "with data.samples: last a user has one window in all rounds, which would be recognized by what it "
                "holds; linkage in training needs data.samples: all"
            )
        users = np.intersect1d(self._training_in(rounds[0]), self._training_in(rounds[1])).tolist()
        return training_windows({user: self._private.samples[self._holder_of(user)] for user in users})

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

    def _asked(self, phase: Phase, round_: int) -> tuple[dict[int, int], dict[int, int], dict[int, Prompt], Samples]:
        """Row to user, row to the sample's place in its client (training only), row to prompt, and the samples."""
        split, history = self._private.split, self._scenario.data.history
        if phase == "serving":
            samples = serving_samples(split, self.victims, history)
        elif phase == "queries":
            samples = training_samples(split, self._private.candidates(), history, "last")
        else:
            samples = training_samples(split, self._training_in(round_), history, "last")
        order = np.random.default_rng(derive(self._scenario.seed, "rows", phase, round_))
        rows = [int(row) for row in order.permutation(len(samples))]
        users = {row: int(user) for row, user in zip(rows, samples.users, strict=True)}
        prompts = {
            row: self._model.prompts.build(samples.history[i], int(samples.targets[i])) for i, row in enumerate(rows)
        }
        places = {row: self._last_sample(user) for row, user in users.items()} if phase == "training" else {}
        return users, places, prompts, samples

    def _last_sample(self, user: int) -> int:
        """Where a user's last training sample stands in its client; of many prefixes the longest."""
        own: Int[np.ndarray, samples] = self._private.samples[self._holder_of(user)].users
        return int(np.flatnonzero(own == user)[-1])

    def _masks(self, round_: int) -> list[Record]:
        """The victims' masks in a training round; nothing is replayed."""
        plans = {client.name: client.plan(round_) for client in self._federation.clients}
        return mask_records(plans, round_, self._watched(round_))

    def _record(self, phase: Phase, round_: int) -> Spool:
        """All that crossed of the victims in a phase, wherever the plan looks."""
        users, places, prompts, _ = self.asked(phase, round_)
        places, prompts, by_client = dict(places), dict(prompts), self._by_client(users)
        state, spool = self._state(round_), Spool(self._scratch)
        if self.colluder is not None and phase != "queries":
            for row, (place, prompt) in self._handed_on(phase, round_).items():
                places[row], prompts[row] = place, prompt
                by_client.setdefault(self.colluder, []).append(row)

        def keep(trace: Trace, record: Record) -> None:
            spool.put(colluded(trace) if record.client == self.colluder else trace, record)

        if phase == "training":
            wanted = self._plan.traces(round_)
            watched = _watched(by_client, places, prompts)
            training_records(self._federation, self._model.parts, state, watched, wanted, keep)
            return spool
        queries = {client: [(row, prompts[row]) for row in rows] for client, rows in by_client.items()}
        if phase == "serving":
            serving_records(self._model.whole, state, queries, self._plan.layers, keep)
        else:
            for record in query_records(self._model.whole, state, queries):
                spool.put(Channel.MODEL_OUTPUT, record)
        return spool

    def _hand_on(self, phase: Phase, round_: int) -> dict[int, tuple[int, Prompt]]:
        """Of the colluding client: row (behind the victims'), its sample's place in it, and its prompt."""
        assert self.colluder is not None
        own = self._private.samples[self.colluder]
        if phase == "serving":
            own = serving_samples(self._private.split, np.unique(own.users), self._scenario.data.history)
        first, seed = len(self.asked(phase, round_)[0]), derive(self._scenario.seed, "colluder", phase, round_)
        return handed_on(own, self._model.prompts, first, seed)

    def _collusion(self, phase: Phase, round_: int) -> Collusion:
        """Raises NotApplicable where nothing crossed of a colluding client."""
        if self.colluder is None:
            raise NotApplicable("one client holds all training samples, and there is no other to collude with")
        present = self._federation.training_in(round_, self._state(round_).best)
        if phase == "training" and self.colluder not in {client.name for client in present}:
            raise NotApplicable(f"{self.colluder}, who colludes, did not train in round {round_}")
        prompts = {row: prompt for row, (_, prompt) in self._handed_on(phase, round_).items()}
        return Collusion(self.colluder, deepcopy(prompts), partial(self._recorded, phase, round_))

    def _elsewhere(self) -> Prompts:
        """The template over another catalogue. Raises NotApplicable where its titles do not fit."""
        scenario = self._scenario
        catalogue = other_catalogue(self._private.dataset.catalogue, scenario.seed)
        try:
            return prompts_over(scenario.model, self._model.tokenizer, catalogue, scenario.data.history)
        except InputError as reason:
            raise NotApplicable(f"audit.auxiliary: public: {reason}") from None

    def _watched(self, round_: int) -> dict[str, list[Watched]]:
        """The victims' samples in a round, by the client that holds them."""
        users, places, prompts, _ = self.asked("training", round_)
        return _watched(self._by_client(users), places, prompts)

    def _by_client(self, users: Mapping[int, int]) -> dict[str, list[int]]:
        """The rows by the client that holds their users."""
        found: dict[str, list[int]] = {}
        for row in sorted(users):
            found.setdefault(self._holder_of(users[row]), []).append(row)
        return found

    def _hijack(self, cell: Cell) -> Spool:
        """All that crosses of the victims in the last round of a training under the attack's own server.

        It has to end within the budget of one attack.
        """
        attack, trace = as_active(self._plan.attack(cell)), self._plan.trace(cell, cell.channel)
        assert attack is not None
        spool = Spool(self._scratch)
        model, training = hijackable(self._scenario, self._private, trace.layer, self._model.layers)
        try:
            lure = attack.lure(self.knowledge(cell), trace.layer, Budget(self._scenario.audit.budget.seconds))
            federation, state = hijacked(self._private, model, training, lure, seed=self._scenario.seed)
            training_records(federation, model.parts, state, self._watched(cell.round), {trace}, spool.put)
        except (NotApplicable, BudgetExhausted):
            raise
        except Exception as error:  # the attack is anybody's, and clients break off where their training explodes
            raise Failed(f"in the training that it hijacks: {type(error).__name__}: {error}") from error
        return spool

    def _know(self, attack: str, settings: str, level: str, channel: Channel, round_: int) -> Knowledge:
        asking = self._plan.attacks[attack, settings]  # each has its own
        whole = self._model.whole
        copies, training, auxiliary = {}, _phase(channel) == "training", self._scenario.audit.auxiliary
        layers, alone = self._plan.layers, level == "auxiliary"
        if alone and training:  # no more is handed on than what is looked at in this round
            recorded = {trace.layer for trace in self._plan.traces(round_) if trace.kind == "activation"}
            layers = tuple(layer for layer in layers if layer in recorded)
        if level == "front":
            state = self._state(round_)
            # In training what the round began with; in serving the newest that the server made for this client. What
            # it goes by follows from models that the server had made.
            copies = {
                (client, round_): KnownModel(whole, state.adapters[client], self._federation.memory_in(state, client))
                if training
                else KnownModel(whole, state.sent(client))
                for client in state.adapters
            }
        return Knowledge(
            level=level,
            prompts=deepcopy(self._model.prompts),
            embeddings=codes(whole.embeddings, 0) if alone else whole.embeddings.clone(),
            base=NoModel() if alone else KnownModel(whole, None),
            copies=copies,
            layers=layers,
            history=self._scenario.data.history,
            depth=self._model.layers,
            loss_on=self._scenario.training.loss_on,
            queries=deepcopy(self.asked("queries", round_)[2]) if channel == Channel.MODEL_OUTPUT else {},
            auxiliary=auxiliary,
            elsewhere=self._elsewhere() if auxiliary == "public" and channel != Channel.MODEL_OUTPUT else None,
            colluder=self._collusion(_phase(channel), round_) if alone else None,
            known_attributes=(
                dict(self._attribute(*asked_attribute(asking), _phase(channel), round_).known)
                if asking.secret == "attribute"
                else {}
            ),
        )


def _watched(
    rows: Mapping[str, Sequence[int]], places: Mapping[int, int], prompts: Mapping[int, Prompt]
) -> dict[str, list[Watched]]:
    return {client: [Watched(row, places[row], len(prompts[row])) for row in own] for client, own in rows.items()}


def _phase(channel: Channel) -> Phase:
    if channel == Channel.MODEL_OUTPUT:
        return "queries"
    return "serving" if channel in OF_THE_TRAINED else "training"

"""The harness gives each cell of an audit its view, its knowledge and, apart from both, the truth.

This is the harness: it holds private data and hands attacks only the `View` and the `Knowledge`. Rows are numbered anew
for every phase and round, in a random order, so that a number says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Int

from pplr_audit import scenario
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.knowledge.build import KnowledgeBuilder
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.own_trainings.crafted_round import CraftedRound, crafted, crafted_round
from pplr_audit.audit.own_trainings.hijack import failing_apart, hijackable, hijacked, hijacked_by
from pplr_audit.audit.plan import Plan
from pplr_audit.audit.replay import recordings
from pplr_audit.audit.replay.catalogue import key_of, taps_of
from pplr_audit.audit.replay.generated import Recommended, recommended_to, with_generated
from pplr_audit.audit.replay.records import (
    mask_records,
    query_records,
    received_masks,
    training_records,
)
from pplr_audit.audit.replay.rounds import RoundViews
from pplr_audit.audit.replay.serving import record_serving
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.replay.traffic import Traffic
from pplr_audit.audit.tap_points import Phase, Trace, phase_of
from pplr_audit.audit.truth.history import HistoryTruth, Recommends
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.audit.truth.own_model import OwnModel
from pplr_audit.audit.truth.owner import OwnerTruth
from pplr_audit.audit.truth.protocol import Truth
from pplr_audit.audit.truth.recommendation import RecommendationTruth
from pplr_audit.audit.truth.sets import Held, SetTruth, answered_by, held_by
from pplr_audit.audit.truth.user_sets import ASKS, user_sets
from pplr_audit.audit.victims.linked_windows import Links
from pplr_audit.audit.victims.rows import PhaseRows, Rows
from pplr_audit.data.allocation import joined
from pplr_audit.data.popularity import popularity_of
from pplr_audit.data.prepare import model_free_features
from pplr_audit.data.samples import Samples
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.artifacts import Artifacts
from pplr_audit.threat_model.attack import (
    Attack,
    Budget,
    also_reads,
    as_active,
    crafts_gradients,
    crafts_start,
    reads_every_crossing,
    reads_traffic,
)
from pplr_audit.threat_model.channels import ONCE_A_ROUND, Channel
from pplr_audit.threat_model.defense import ALL
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Answer, Record, View
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import Federation, RoundState
from pplr_audit.training.run_job import has_begun, loaded, opened

_HELD = "held"
"""The key of answers by the models that the server made; a personal model beside the shared one never reaches it."""


class Harness:
    """Views, knowledge and truths of one trained run.

    Args:
        job: the training; its federation is used to replay rounds, and its state is not kept.
        files: what the rounds started from.
        scratch: a folder with room for what crossed, while it is looked at.
        artifacts: where fits that cells share are kept; none keeps them in memory.
        live: what crossed, by round, in rounds that were watched while they were trained; the others run again.
    """

    def __init__(
        self, job: Job, files: TrainingFiles, plan: Plan, scratch: Path, artifacts: Artifacts | None = None,
        live: Mapping[int, Spool] | None = None,
    ) -> None:  # fmt: skip
        self._job, self._private, self._model = job, job.private, job.model
        self._plan, self._scratch, self._live = plan, scratch, live or {}
        self._state = lru_cache(maxsize=2)(files.state)
        kept = len(get_args(Phase)) - 1 + len(plan.rounds)  # attacks take turns at the phases, and read all rounds
        self._recorded = lru_cache(maxsize=kept)(self._record)
        self._hijacked = lru_cache(maxsize=1)(self._hijack)
        self._crafted = lru_cache(maxsize=1)(self._craft)
        self._own_models: dict[tuple[str, int], Recommends | None] = {}
        self._sets_of = lru_cache(maxsize=None)(self._hold)
        self._truths_of = lru_cache(maxsize=None)(self._truths)
        self._label_of = lru_cache(maxsize=None)(self._label)
        self._recommended = lru_cache(maxsize=None)(self._recommend)
        self.private = job.private
        self.rows = Rows(job, self._state)
        self._rounds = RoundViews(job, files, self.rows, self._state)
        self._builder = KnowledgeBuilder(
            job, plan, self.rows, self._state, self._recorded, rounds=self._rounds, artifacts=artifacts
        )
        self._links = Links(job, self.rows, self._state)
        self._traffic = Traffic(job, self.rows, self._state, plan.layers, scratch, len(plan.rounds))

    def view(self, cell: Cell) -> View[Any]:
        """Return what the cell's adversary saw of the victims. Raises NotApplicable where nothing could be compared."""
        phase, attack = phase_of(cell.channel), self._plan.attack(cell)
        if attack.secret == "membership":
            self.rows.require_comparable()
        if cell.channel in ONCE_A_ROUND:
            return self._rounds.view(cell, attack, self._crafted(cell))
        if phase == "training" and not len(self.rows.training_in(cell.round)):
            raise NotApplicable(f"no victim's client trained in round {cell.round}")
        crossed = tuple(self._crossed(cell))
        traffic = None
        if reads_traffic(attack) and cell.channel in (Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS):
            assert cell.front is not None
            training = phase == "training"
            for round_ in self._linked_rounds(cell) if attack.secret == "linkage" and training else cell.rounds:
                self._traffic.recorded(training, round_)  # now, and not in the attack's own time
            traffic = partial(self._traffic.of, training, cell.front)
        return View(cell.adversary, cell.channel, cell.front, cell.back, cell.defense, crossed, traffic=traffic)

    def reserve_view(self, cell: Cell) -> View[Any] | None:
        """Return what the cell's adversary had seen of a round on users of the reserve; None without such users."""
        return self._rounds.reserve_view(cell, self._plan.attack(cell), self._crafted(cell))

    def knowledge(self, cell: Cell) -> Sequence[Knowledge]:
        """Return the adversary's knowledge in each turn in which the attack runs."""
        return self._builder.turns(cell)

    def truths(self, cell: Cell) -> Mapping[str, Truth]:
        """Return the truth about the rows of the cell's view, by secret."""
        attack, phase = self._plan.attack(cell), phase_of(cell.channel)
        if cell.channel in ONCE_A_ROUND:
            own = attack.secret == "attribute"
            return {attack.secret: self._builder.attribute_truth(cell) if own else self._round_truth(cell, attack)}
        if cell.adversary == "peer":  # it queries its own model about the users of others
            return {"membership": self._of_others(self._membership(self.rows.phase_rows(phase, cell.round)))}
        if attack.secret == "linkage":  # its rows are others
            return {"linkage": self._links.truth(phase == "training", self._linked_rounds(cell))}
        found = dict(self._truths_of(phase, cell.round))
        if phase == "training":
            label = self._label_of(cell.round)
            found["label"] = replace(label, own=self._own_model(cell, label))
            found |= self._user_sets(cell.round)
        if attack.secret == "attribute":
            found["attribute"] = self._builder.attribute_truth(cell)
        return found

    def _crossed(self, cell: Cell) -> Sequence[Record]:
        """The records that the cell's attack reads."""
        attack, phase = self._plan.attack(cell), phase_of(cell.channel)
        if cell.adversary == "peer":
            return self._answers_of_peer(cell.round)
        federation = self._job.federation
        if cell.channel == Channel.METADATA and federation.guards.on(cell.channel):
            again = reads_every_crossing(attack)
            return received_masks(federation, self._state(cell.round), self.rows.watched(cell.round), every=again)
        if cell.channel == Channel.METADATA:  # nothing is replayed
            plans = {client.name: client.plan(cell.round) for client in self._job.federation.clients}
            return mask_records(plans, cell.round, self.rows.watched(cell.round))
        if attack.secret == "linkage" and cell.front is not None:
            where = phase == "training", self._linked_rounds(cell), self._plan.layers, self._scratch
            linked = self._links.recorded(*where, every=reads_every_crossing(attack))
            return linked.records(Trace("activation", cell.front))
        if phase == "training":
            return self._of_training(cell, attack)
        spool = self._recorded(phase, cell.round)
        if phase == "queries":
            return spool.records(_HELD if cell.adversary == "server" else cell.channel)
        records = spool.records(Trace("activation", cell.front) if cell.front is not None else cell.channel)
        return records if cell.front is None else with_generated(records, spool, cell.front)

    def _of_training(self, cell: Cell, attack: Attack) -> Sequence[Record]:
        """What crossed of the victims in training: in the cell's round, and behind that in earlier ones, if it reads
        these, too; by the rows of its own round.
        """
        rows = {user: row for row, user in self.rows.phase_rows("training", cell.round).users.items()}
        found: list[Record] = []
        for round_ in reversed(cell.rounds):
            spool = self._recorded("training", round_) if as_active(attack) is None else self._hijacked(cell)
            records = spool.records(self._plan.trace(cell, cell.channel))
            if not reads_every_crossing(attack):
                records = [record for record in records if not record.occurrence]
            for channel in sorted(also_reads(attack)):
                beside = spool.records(self._plan.trace(cell, channel))
                also = {(record.row, record.occurrence): record.tensor for record in beside}
                records = [replace(r, also_reads={**r.also_reads, channel: also[r.row, r.occurrence]}) for r in records]
            if round_ != cell.round:
                users = self.rows.phase_rows("training", round_).users
                records = [replace(r, row=rows[users[r.row]]) for r in records if users[r.row] in rows]
            found += records
        return found

    def _answers_of_peer(self, round_: int) -> list[Answer]:
        """The answers of the first peer's own model to queries about the candidates of other clients."""
        peers, rows = self.rows.peers, self.rows.phase_rows("queries", round_)
        asked = ((row, user) for row, user in rows.users.items() if self.rows.holder_of(user) not in peers)
        queries = [(row, rows.prompts[row]) for row, _ in asked]
        if not queries:
            raise NotApplicable(f"no other client than {', '.join(peers)}, who is the peer, has a candidate")
        return query_records(self._model.whole, self._state(round_), {peers[0]: queries})

    def _of_others(self, truth: MembershipTruth) -> MembershipTruth:
        """The same about users of other clients than the peers."""
        users = {row: user for row, user in truth.users.items() if self.rows.holder_of(user) not in self.rows.peers}
        return replace(truth, users=users)

    def _round_truth(self, cell: Cell, attack: Attack) -> Truth:
        """Return the truth about what crosses once a round, of the rows that are asked about."""
        asked = self._rounds.asked(cell, attack)
        if attack.secret == "membership":
            truth = self._membership(self.rows.phase_rows("queries", cell.round))
            return self._of_others(truth) if cell.adversary == "peer" else truth
        held = {row: self._samples_of(client) for row, client in asked.items()}
        users = {row: int(min(samples.users)) for row, samples in held.items()}
        if attack.secret == "owner":
            return OwnerTruth(users, asked, sorted(self._private.samples))
        classes, titles = self._model.prompts.title_classes(), self._title_tokens
        sets = {row: self._sets_of(client, attack.secret) for row, client in asked.items()}
        told = self._rounds.let_through(cell) if cell.adversary == "peer" else {}
        if (crafted := self._crafted(cell)) is not None:
            told = self._rounds.noticed(cell, attack, crafted)
        return SetTruth(users, sets, classes, self._popularity, titles, let_through=told)

    def _user_sets(self, round_: int) -> dict[str, Truth]:
        """The sets that updates are asked about, where a client is one user with one sample, which crosses whole."""
        rows, per_user = self.rows.phase_rows("training", round_), self._job.scenario.data.partition == "per_user"
        if not per_user or any(len(self._samples_of(client)) != 1 for client in self._holders(rows).values()):
            return {}
        sets = {(row, asks): self._sets_of(c, asks) for row, c in self._holders(rows).items() for asks in ASKS}
        return user_sets(rows.users, sets, self._model.prompts.title_classes(), self._popularity, self._title_tokens)

    def _samples_of(self, client: str) -> Samples:
        """The training samples of a client, or of all."""
        samples = self._private.samples
        return joined(samples) if client == ALL else samples[client]

    def _hold(self, client: str, secret: str) -> Held:
        """The items that a client trains on, as far as prompts hold or learn them; of ``targets`` what they learn."""
        samples, build = self._samples_of(client), self._model.prompts.build
        prompts = [build(samples.history[row], int(samples.targets[row])) for row in range(len(samples))]
        return answered_by(prompts, self._title_tokens) if secret == "targets" else held_by(prompts)

    def _linked_rounds(self, cell: Cell) -> tuple[int, int]:
        """The cell's round and the audited one before it, whose rows are linked; the same twice for the first."""
        return cell.round, max((each for each in self._plan.rounds if each < cell.round), default=cell.round)

    def _own_model(self, cell: Cell, label: LabelTruth) -> Recommends | None:
        """Return the recommender that the adversary's own models make; None where it has none."""
        place = (cell.knowledge, cell.round)
        if place not in self._own_models:
            knowledge, rows = self._builder.of(cell), self.rows.phase_rows("training", cell.round)
            models = {client: knowledge.copy(client, cell.round) for client in set(label.clients.values())}
            known = {client: model for client, model in models.items() if isinstance(model, KnownModel)}
            histories = {row: prompt.items for row, prompt in rows.prompts.items()}
            own = OwnModel(known, label.clients, histories, label.popularity)
            self._own_models[place] = own.ranked if len(known) == len(models) else None
        return self._own_models[place]

    def _truths(self, phase: Phase, round_: int) -> Mapping[str, Truth]:
        rows = self.rows.phase_rows(phase, round_)
        if phase == "queries":
            return {"membership": self._membership(rows)}
        classes, clients, words = self._model.prompts.title_classes(), self._holders(rows), self._title_tokens
        found: dict[str, Truth] = {
            "history": HistoryTruth(rows.users, rows.prompts, classes, self._popularity, words, clients)
        }
        if phase == "serving":
            items = self._recommended(round_).items
            found["recommendation"] = RecommendationTruth(rows.users, items, classes, self._popularity, clients)
        return found

    @cached_property
    def _title_tokens(self) -> list[Int[np.ndarray, "length"]]:
        """The catalogue's titles as tokens of their own."""
        titles, content = self._model.prompts.titles, self._model.prompts.content
        return [titles[item][content[item] == 1] for item in range(len(self._private.dataset.catalogue))]

    def _label(self, round_: int) -> LabelTruth:
        """The next items of a training round, before the adversary's own model is known."""
        rows = self.rows.phase_rows("training", round_)
        targets = {row: prompt.target for row, prompt in rows.prompts.items()}
        classes = self._model.prompts.title_classes()
        return LabelTruth(rows.users, targets, classes, self._popularity, self._holders(rows))

    @cached_property
    def _popularity(self) -> Float[np.ndarray, "items"]:
        """Popularity of each item among those who train."""
        return popularity_of(self._private.split, self._private.members, len(self._private.dataset.catalogue))

    def _holders(self, rows: PhaseRows) -> dict[int, str]:
        return {row: self.rows.holder_of(user) for row, user in rows.users.items()}

    def _membership(self, rows: PhaseRows) -> MembershipTruth:
        population = self._private.population
        outside = np.flatnonzero((population.audited == 0) & (population.member == 1))
        public = popularity_of(self._private.split, outside, len(self._private.dataset.catalogue))
        features = model_free_features(self._private, rows.samples, public)
        return MembershipTruth(
            rows.users,
            {row: int(population.client_of[user]) for row, user in rows.users.items()},
            {row: int(population.member[user]) for row, user in rows.users.items()},
            {row: features[place].tolist() for place, row in enumerate(rows.users)},
            population.clients,
        )

    def _record(self, phase: Phase, round_: int) -> Spool:
        """All that crossed of the victims in a phase, wherever the plan looks; of a colluding client besides."""
        if phase == "training" and round_ in self._live:
            return self._live[round_]
        rows, colluder = self.rows.recorded(phase, round_), self.rows.colluder
        state, spool = self._state(round_), Spool(self._scratch)

        def keep(trace: Trace, record: Record) -> None:
            spool.put(key_of(trace, record, colluder), record)

        if phase == "training":
            wanted, every = taps_of(self._plan, round_, self._model.task.catalogue), self._plan.every_crossing
            training_records(self._job.federation, self._model.parts, state, rows.watched, wanted, keep, every=every)
            return spool
        queries = {client: [(row, rows.prompts[row]) for row in own] for client, own in rows.by_client.items()}
        if phase == "serving":
            record_serving(self._job, state, queries, partial(self._recommended, round_), self._plan.layers, keep)
        else:
            for record in query_records(self._model.whole, state, queries):
                spool.put(Channel.MODEL_OUTPUT, record)
                if record.client not in state.personal:
                    spool.put(_HELD, record)
            apart = {client: own for client, own in queries.items() if client in state.personal}
            for record in query_records(self._model.whole, state, apart, held=True):
                spool.put(_HELD, record)
        return spool

    def _recommend(self, round_: int) -> Recommended:
        """What the trained models answer to the victims' requests."""
        return recommended_to(self._job, self.rows, self._state(round_), self._popularity)

    def _craft(self, cell: Cell) -> CraftedRound | None:
        """Return the cell's round as it goes where its attack chooses what clients begin with; None if it does not.

        It has to make that within the budget of one attack.
        """
        attack, seconds = crafts_start(self._plan.attack(cell)), self._job.scenario.audit.budget.seconds
        if attack is None:
            return None
        spec = hijacked_by(cell, self._job.spec, self._job.scenario.audit.auxiliary)
        clients, held = self._rounds.clients_asked(cell, self._plan.attack(cell)), sorted(self._rounds.held(cell))

        def craft() -> RoundState:
            state = self._state(cell.round)
            return crafted(attack, self._builder.of(cell), state, held, clients, Budget(seconds))

        return crafted_round(self._scratch, spec, cell.round, self._job.federation, craft)

    def _hijack(self, cell: Cell) -> Spool:
        """All that crosses of the victims in the last round under the attack's server, within one attack's budget."""
        spec = hijacked_by(cell, self._job.spec, self._job.scenario.audit.auxiliary)
        trace, crossed = self._plan.trace(cell, cell.channel), self.rows.watched(cell.round)
        every = reads_every_crossing(self._plan.attack(cell))
        path = recordings.name_of(crossed, cell.round, {trace}, every=every)
        if has_begun(self._scratch, spec):
            with loaded(self._scratch, spec) as store:
                if store.exists(path):
                    return recordings.read(store, path, self._scratch)
        model, training = hijackable(
            self._job.scenario, self._private, trace.layer, self._model.layers, self._model.precision
        )
        with opened(self._scratch, spec) as store:
            federation, state = self._hijacked_until_last(cell, model, training, TrainingFiles(store))
            kept: list[tuple[Trace, Record]] = []
            with failing_apart():
                training_records(
                    federation, model.parts, state, crossed, {trace}, lambda *each: kept.append(each), every=every
                )
            recordings.write(store, path, kept)
            return recordings.read(store, path, self._scratch)

    def _hijacked_until_last(
        self, cell: Cell, model: Recommender, training: scenario.Training, files: TrainingFiles
    ) -> tuple[Federation, RoundState]:
        """Train under the attack's own server; return the federation, and what its last round starts from."""
        attack, asked = crafts_gradients(self._plan.attack(cell)), self._job.scenario
        assert attack is not None
        assert cell.front is not None
        with failing_apart():
            crafter = attack.craft_gradient(self._builder.of(cell), cell.front, Budget(asked.audit.budget.seconds))
            return hijacked(self._job.spec, self._private, model, training, crafter, files, seed=asked.seed)

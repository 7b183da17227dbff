"""Knowledge of a cell's adversary, made from a run by its level, its channel and the round."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property, lru_cache, partial

import numpy as np
from torch import Tensor

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.knowledge.expected_mixing import Weights, expected_mixing
from pplr_audit.audit.knowledge.known_model import KnownModel, NoModel
from pplr_audit.audit.knowledge.recipe import local_steps, recipe
from pplr_audit.audit.plan import Plan
from pplr_audit.audit.replay.catalogue import plaintext_of
from pplr_audit.audit.replay.collusion import Collusion, codes
from pplr_audit.audit.replay.rounds import RoundViews
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import OF_THE_TRAINED, OF_TRAINING, Phase, Trace, phase_of
from pplr_audit.audit.truth.attribute import AttributeTruth
from pplr_audit.audit.victims.attribute_folds import deal
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.data.partition import OTHER
from pplr_audit.data.prompts import Prompts
from pplr_audit.data.samples import Samples, training_samples
from pplr_audit.data.synthetic import other_catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.build import prompts_over
from pplr_audit.threat_model.adversaries import channels_of
from pplr_audit.threat_model.artifacts import Artifacts, digest
from pplr_audit.threat_model.attack import as_active, attribute_of
from pplr_audit.threat_model.channels import ONCE_A_ROUND, Channel
from pplr_audit.threat_model.knowledge import Knowledge, Plaintext
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.recipe import LocalSteps
from pplr_audit.threat_model.view import Update
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState

_SAME = {"trunk_host": "server", "malicious_server": "server"}
"""Adversaries that know what a server of the same level knows, and share its object and all that is learned from it."""
OTHERS = 4096
"""Users of the reserve whose windows are handed over as auxiliary text, at most."""


class KnowledgeBuilder:
    """Gives each attack knowledge of its own, so that it can harm none but itself.

    Args:
        state: what a round starts from.
        recorded: where what crossed in a phase and round lies, that of a colluding client with it.
        rounds: what crosses once a round, a peer's own models among it.
        artifacts: fits that the cells of the run share; none keeps them in memory.
    """

    def __init__(
        self, job: Job, plan: Plan, rows: Rows, state: Callable[[int], RoundState],
        recorded: Callable[[Phase, int], Spool], *, rounds: RoundViews, artifacts: Artifacts | None = None,
    ) -> None:  # fmt: skip
        self._scenario, self._private, self._model = job.scenario, job.private, job.model
        self._training = job.spec.digest
        self._federation, self._plan, self._rows = job.federation, plan, rows
        self._state, self._recorded, self._rounds = state, recorded, rounds
        self._artifacts = artifacts or Artifacts()
        self._known = lru_cache(maxsize=None)(self._know)
        self._attribute_of_rows = lru_cache(maxsize=None)(self._attribute)

    def of(self, cell: Cell) -> Knowledge:
        """Raises NotApplicable where an adversary of its kind is not to be had."""
        who = replace(cell, adversary=_SAME.get(cell.adversary, cell.adversary))
        if cell.channel not in ONCE_A_ROUND:  # one object at all cuts, as what is learned at one serves the others
            who = replace(who, front=None, back=None)
        return self._known(who)

    def turns(self, cell: Cell) -> Sequence[Knowledge]:
        """The same in each turn in which its attack runs, with the values of an attribute that are known in it.

        Each cell's is another, so that its facts are of this cell alone. Raises NotApplicable where too little is known
        of the attribute.
        """
        knowledge, attack = self.of(cell), self._plan.attack(cell)
        if attack.secret != "attribute":
            return (replace(knowledge),)
        truth = self.attribute_truth(cell)
        told = self._others_values(truth) if knowledge.others is not None else ()
        return [replace(knowledge, known_attributes=known, others_attributes=told) for known in truth.known_by_turn]

    def attribute_truth(self, cell: Cell) -> AttributeTruth:
        """Return the attribute that a cell's attack is after, of the users of its rows.

        Raises NotApplicable where too little is known of it, or where updates are of clients of several users.
        """
        attack = self._plan.attack(cell)
        if cell.channel not in ONCE_A_ROUND:
            return self._attribute_of_rows(*attribute_of(attack), phase_of(cell.channel), cell.round)
        samples = {row: self._private.samples[client] for row, client in self._rounds.asked(cell, attack).items()}
        users = {row: np.unique(own.users) for row, own in samples.items()}
        if (most := max(map(len, users.values()), default=1)) > 1:
            raise NotApplicable(
                f"an update is of all users of its client, up to {most} of them here, and an attribute is of one user; "
                "with data.partition: per_user each user is a client"
            )
        build = self._model.prompts.build
        prompts = {
            row: [build(own.history[place], int(own.targets[place])) for place in range(len(own))]
            for row, own in samples.items()
        }
        held = {row: sorted({int(item) for each in own for item in each.held}) for row, own in prompts.items()}
        named = {row: int(own[0]) for row, own in users.items()}
        name, folds = attribute_of(attack)
        dealt = deal(self._private.dataset, name, [*named.values()], folds, self._scenario.seed)
        return dealt.truth(named, dict.fromkeys(named, ""), held, len(self._private.dataset.catalogue))

    def _others_values(self, truth: AttributeTruth) -> tuple[str, ...]:
        """Return the value of each user of the reserve, as the truth names them."""
        known, of_all = set(truth.values.values()), self._private.dataset.attributes[truth.name]
        rare = OTHER if OTHER in known else ""
        values = (of_all[user] for user in self._windows.users.tolist())
        return tuple(value if value in known else rare if value else "" for value in values)

    def _know(self, cell: Cell) -> Knowledge:
        """Make the knowledge for one attack alone, so that what it does to it harms no other."""
        phase, level, round_ = phase_of(cell.channel), cell.knowledge, cell.round
        secret = self._plan.attack(cell).secret
        whole, alone, auxiliary = self._model.whole, level == "auxiliary", self._scenario.audit.auxiliary
        return Knowledge(
            level=level,
            prompts=deepcopy(self._model.prompts),
            embeddings=codes(whole.embeddings, 0) if alone else whole.embeddings.clone(),
            base=NoModel() if alone else KnownModel(whole, None),
            copies=self._copies(cell) if level in ("front", "own") else {},
            ends=self._ends(cell),
            clients=tuple(sorted(self._private.samples)),
            recipe=recipe(self._scenario.training),
            steps=self._steps(cell),
            layers=self._handed_layers(cell.rounds) if alone and phase == "training" else self._plan.layers,
            history=self._scenario.data.history,
            depth=self._model.layers,
            began=self._rounds.began(cell) if _is_sent_mixed(cell) else {},
            expected_mixing=self._expected(cell) if _is_sent_mixed(cell) else {},
            loss_on=self._scenario.training.loss_on,
            queries=deepcopy(dict(self._rows.phase_rows("queries", round_).prompts)) if secret == "membership" else {},
            auxiliary=auxiliary,
            others=deepcopy(self._others) if auxiliary == "matched" and not alone else None,
            elsewhere=self._elsewhere() if auxiliary == "public" and phase != "queries" else None,
            colluder=self._collusion(phase, round_) if alone else None,
            plaintext=self._plaintext(cell),
            colluder_before={each: self._collusion(phase, each) for each in _rounds_crossed(cell)[:-1] if alone},
            artifacts=self._artifacts,
        )

    def _plaintext(self, cell: Cell) -> Callable[[str, int], Sequence[Plaintext]] | None:
        """Return what answers as what the public catalogue crossed, for who sees it cross and has a copy to compare."""
        catalogue, phase = self._model.task.catalogue, phase_of(cell.channel)
        sees = Channel.INFERENCE_ACTIVATIONS in channels_of(cell.adversary)
        elsewhere = phase == "queries" or cell.channel in ONCE_A_ROUND
        active = as_active(self._plan.attack(cell)) is not None
        if len(catalogue) < 2 or not sees or elsewhere or active or cell.knowledge == "auxiliary":
            return None

        def plaintext(client: str, round_: int) -> Sequence[Plaintext]:
            followed = partial(self._followed, client, phase, round_)
            return plaintext_of(client, catalogue, partial(self._recorded, phase, round_), followed)

        return plaintext

    def _copies(self, cell: Cell) -> dict[tuple[str, int], KnownModel]:
        """Return the adversary's copies: the models that the round began with, or in serving the newest the server
        made.

        What a model goes by follows from models that the server had made. Whoever hosts no trunk has the client's part
        and, in the place of the trunk's, the base model's.
        """
        phase, round_, whole = phase_of(cell.channel), cell.round, self._model.whole
        if cell.adversary in ("peer", "aggregator"):
            return {
                place: KnownModel(whole, {**self._model.initial, **part}) for place, part in self._parts(cell).items()
            }
        if phase != "training":
            state = self._state(round_)
            return {(client, round_): KnownModel(whole, state.sent(client)) for client in state.adapters}
        return {
            (client, state.round): KnownModel(whole, adapter, self._federation.encoding_in(state, client))
            for state in map(self._state, _rounds_crossed(cell))
            for client, adapter in state.adapters.items()
        }

    def _parts(self, cell: Cell) -> dict[tuple[str, int], Mapping[str, Tensor]]:
        """Return the clients' parts of the models that an aggregator was sent, or of a peer's own before mixing."""
        ran, state = self._scenario.model.cut, self._state(cell.round)
        front, back = (ran.front, ran.back) if cell.front is None or cell.back is None else (cell.front, cell.back)
        if cell.channel == Channel.PERSONAL_MODEL and cell.adversary == "peer":
            seen = self._rounds.view(cell, self._plan.attack(cell)).records
            return {(each.client, each.round): each.start for each in seen if isinstance(each, Update)}
        held = self._model.whole.held_by_client(front, back)
        if cell.adversary == "peer":
            sent = {peer: state.sent(peer) for peer in self._rows.peers}
            return {(peer, cell.round): {name: own[name] for name in held} for peer, own in sent.items()}
        return {
            (client, cell.round): {name: adapter[name] for name in held} for client, adapter in state.adapters.items()
        }

    def _steps(self, cell: Cell) -> dict[tuple[str, int], LocalSteps]:
        """Return the local steps that the adversary knows of: a server of all clients, a peer its own."""
        if cell.channel in OF_THE_TRAINED or cell.adversary == "outsider":
            return {}
        clients = self._rows.peers if cell.adversary == "peer" else sorted(self._private.samples)
        sees = cell.channel in ONCE_A_ROUND and cell.adversary != "aggregator"
        plans = {client.name: client for client in self._federation.clients if sees}
        return {
            (client, round_): local_steps(
                len(self._private.samples[client]), self._scenario.training, round_,
                plans[client].plan(round_) if client in plans else (),
            )
            for client in clients
            for round_ in cell.rounds
        }  # fmt: skip

    def _expected(self, cell: Cell) -> dict[int, Weights]:
        """Return the weights of all clients after each round, as far as peers can tell."""
        names, training = sorted(self._private.samples), self._scenario.training
        given = {round_: self._rounds.contributions(cell, round_) for round_ in cell.rounds}
        return {round_: expected_mixing(training, names, own, round_) for round_, own in given.items() if own}

    def _ends(self, cell: Cell) -> dict[tuple[str, int], KnownModel]:
        """Return the models of the clients that trained in a round as they were before mixing, for who has the trunk's
        updates beside the clients'.
        """
        hosts = {Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE} <= channels_of(cell.adversary)
        if not hosts or cell.knowledge != "front" or cell.channel not in OF_TRAINING:
            return {}
        return {
            (client, state.round): KnownModel(self._model.whole, adapter, self._federation.encoding_in(state, client))
            for state in map(self._state, _rounds_crossed(cell))
            for client, adapter in self._rounds.ended(state.round).items()
        }

    def _handed_layers(self, rounds: Sequence[int]) -> tuple[int, ...]:
        """No more is handed on by a colluding client than what is looked at in these rounds."""
        taps = [self._plan.traces(round_) for round_ in rounds]
        return tuple(layer for layer in self._plan.layers if all(Trace("activation", layer) in own for own in taps))

    def _collusion(self, phase: Phase, round_: int) -> Collusion:
        """Raises NotApplicable where nothing crossed of a colluding client."""
        colluder = self._rows.colluder
        if colluder is None:
            raise NotApplicable("one client holds all training samples, and there is no other to collude with")
        if phase == "training" and colluder not in self._rows.clients_in(round_):
            raise NotApplicable(f"{colluder}, who colludes, did not train in round {round_}")
        prompts = {row: prompt for row, (_, prompt) in self._rows.handed_on(phase, round_).items()}
        return Collusion(
            colluder, deepcopy(prompts), partial(self._followed, colluder, phase, round_),
            partial(self._recorded, phase, round_),
        )  # fmt: skip

    def _followed(self, client: str, phase: Phase, round_: int) -> str:
        """A hash of all that what crosses of a client in a phase follows from: model, samples, training, its start."""
        state, samples = self._state(round_), self._private.samples[client]
        return digest(
            self._training, self._model.digest, client, phase, round_,
            digest(samples.history.values, samples.targets), state.served(client), state.adapters[client],
            state.optimizers[client].moments, state.personal.get(client),
        )  # fmt: skip

    @cached_property
    def _windows(self) -> Samples:
        """The last training window of users of the reserve."""
        users = self._private.others(OTHERS, self._scenario.seed)
        return training_samples(self._private.split, users, self._scenario.data.history, "last")

    @property
    def _others(self) -> Samples:
        """The same, by numbers that say nothing of who they are."""
        windows = self._windows
        return Samples(np.arange(len(windows)), windows.history, windows.targets)

    def _elsewhere(self) -> Prompts:
        """The template over another catalogue. Raises NotApplicable where its titles do not fit."""
        scenario = self._scenario
        catalogue = other_catalogue(self._private.dataset.catalogue, scenario.seed)
        try:
            return prompts_over(scenario.model, self._model.tokenizer, catalogue, scenario.data.history)
        except InputError as reason:
            raise NotApplicable(f"audit.auxiliary: public: {reason}") from None

    def _attribute(self, name: str, folds: int, phase: Phase, round_: int) -> AttributeTruth:
        """An attribute of the users of a phase's rows, and the turn in which each is predicted.

        Raises NotApplicable where too little is known of it.
        """
        rows = self._rows.phase_rows(phase, round_)
        dealt = deal(self._private.dataset, name, self._rows.victims.tolist(), folds, self._scenario.seed)
        clients = {row: self._rows.client_of(user) for row, user in rows.users.items()}
        held = {row: prompt.held.tolist() for row, prompt in rows.prompts.items()}
        return dealt.truth(rows.users, clients, held, len(self._private.dataset.catalogue))


def _is_sent_mixed(cell: Cell) -> bool:
    """Return whether the cell is about the new models of peers, into which others are mixed."""
    return cell.adversary == "peer" and cell.channel == Channel.PERSONAL_MODEL


def _rounds_crossed(cell: Cell) -> tuple[int, ...]:
    """Return the rounds of which copies explain what crossed."""
    return cell.rounds if cell.channel in OF_TRAINING else (cell.round,)

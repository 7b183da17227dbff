"""Observations of what crosses once a round: updates, new models, status and sums, from what the training stored.

A cut decides which part of an update crosses. Undefended, training does not depend on the cut, so the update of the
whole adapter, of which client and trunk each recorded a part, is divided anew for every cut.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.own_trainings.crafted_round import CraftedRound
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.data.samples import Samples, training_samples
from pplr_audit.scenario.seeds import derive
from pplr_audit.threat_model.adversaries import channels_of
from pplr_audit.threat_model.attack import Attack, steps_read
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.defense import ALL
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Aggregate, Update, View
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.crossings import crossings_of
from pplr_audit.training.job import Job, on_samples
from pplr_audit.training.rounds import RoundState
from pplr_audit.training.steps import gradients_of
from pplr_audit.training.strategies.protocol import Contribution

Tensors = Mapping[str, Tensor]
MOST = 2**30
"""Bytes of single steps that are held, all clients together."""


class RoundViews:
    """Views of channels that carry something once a round.

    Args:
        job: the training.
        files: what crossed in its audited rounds.
        rows: the candidates for membership, and which client is the peer.
        state: what a round starts from.
    """

    def __init__(self, job: Job, files: TrainingFiles, rows: Rows, state: Callable[[int], RoundState]) -> None:
        self._job, self._files, self._rows, self._state = job, files, rows, state
        self._stored = lru_cache(maxsize=2)(self._load)
        self._on_reserve = lru_cache(maxsize=2)(self._train_on_reserve)
        self._steps = lru_cache(maxsize=2)(self._take_steps)

    def asked(self, cell: Cell, attack: Attack) -> dict[int, str]:
        """Return the rows that are asked about with their clients: candidates for membership, else clients.

        Clients are numbered in a random order, so that a number says nothing; peers are not asked about themselves.
        Where there are more clients than ``audit.victims``, so many of them are asked about.
        """
        peers = self._peers(cell)
        if attack.secret == "membership":
            rows = self._rows.phase_rows("queries", cell.round).users
            found = {row: self._rows.holder_of(user) for row, user in rows.items()}
            return {row: client for row, client in found.items() if client not in peers}
        names = [name for name in self._trained(cell.round) if name not in peers]
        if cell.channel == Channel.AGGREGATE:
            names = [ALL] if names else []
        order = np.random.default_rng(
            derive(self._job.scenario.seed, "rows", "clients", str(cell.channel), cell.round)
        ).permutation(len(names))  # fmt: skip
        # Naming a client takes the updates of all; else as many clients are attacked as there are victims.
        most = len(names) if attack.secret == "owner" else self._job.scenario.audit.victims
        return {int(row): names[place] for place, row in enumerate(order) if row < most}

    def view(
        self, cell: Cell, attack: Attack, crafted: CraftedRound | None = None
    ) -> View[Update] | View[Aggregate]:  # fmt: skip
        """Return what the cell's adversary saw.

        Args:
            crafted: the cell's round as it went where the adversary chose what it sent.

        Raises NotApplicable where it was not stored, or there is nobody to ask about.
        """
        return self._view(cell, attack, crafted)

    def reserve_view(
        self, cell: Cell, attack: Attack, crafted: CraftedRound | None = None
    ) -> View[Update] | View[Aggregate] | None:
        """Return the same if the clients had trained the round on users of the reserve; None without a reserve.

        Every client takes as many samples, and so as many steps, from the same state. Peers keep their own samples.
        """
        samples = self._reserve_samples(self._peers(cell))
        if samples is None:
            return None
        if crafted is not None:
            crossings = crossings_of(on_samples(self._job, samples), crafted.state)
            return self._view(cell, attack, replace(crafted, crossings=crossings))
        return self._view(cell, attack, on_reserve=True)

    def clients_asked(self, cell: Cell, attack: Attack) -> list[str]:
        """Return the names of the clients that are asked about."""
        return sorted({*self.asked(cell, attack).values()})

    def held(self, cell: Cell) -> frozenset[str]:
        """Return the names of the tensors that a client holds at the cell's cut."""
        assert cell.front is not None
        assert cell.back is not None
        return self._job.model.whole.held_by_client(cell.front, cell.back)

    def noticed(self, cell: Cell, attack: Attack, crafted: CraftedRound) -> dict[str, Any]:
        """Return what the clients could have noticed of what they were sent (`CraftedRound.facts`)."""
        round_, clients = cell.round, self.clients_asked(cell, attack)
        return crafted.facts(self._state(round_), self._stored(round_), clients)

    def _view(
        self, cell: Cell, attack: Attack, crafted: CraftedRound | None = None, *, on_reserve: bool = False
    ) -> View[Update] | View[Aggregate]:
        asked = self.asked(cell, attack)
        if not asked:
            raise NotApplicable(f"no client that could be asked about trained in round {cell.round}")
        rows = {(client, cell.round): row for row, client in asked.items()} if attack.secret != "membership" else {}
        hidden = attack.secret == "owner"
        shown = dict.fromkeys(asked, "") if hidden else asked
        found: list[Update] = []
        sums: list[Aggregate] = []
        first = len(asked) if attack.secret != "membership" else max(asked) + 1
        for round_ in cell.rounds:
            own = round_ == cell.round
            single = (steps_read(attack), tuple(sorted({*asked.values()})))
            if crafted is not None:
                crossings, state = crafted.crossings, crafted.state
            else:
                crossings, state = self._crossings(cell, round_, single, on_reserve and own), self._state(round_)
            for client, tensors, start, step in self._of_round(cell, crossings, state):
                row = rows.setdefault((client, round_), first + len(rows))
                if client == ALL:
                    sums.append(Aggregate(row, self._trained(round_), round_, tensors))
                elif own and hidden:
                    found.append(Update(row, "", round_, tensors, step=step))
                else:
                    found.append(Update(row, client, round_, tensors, start, step))
        cut = (cell.front, cell.back)
        if sums:
            return View(cell.adversary, cell.channel, *cut, cell.defense, tuple(sums), shown)
        # In the order of their rows, as the order of crossing is that of the clients' names.
        ordered = sorted(found, key=lambda update: update.row)
        return View(cell.adversary, cell.channel, *cut, cell.defense, tuple(ordered), shown)

    def _crossings(
        self, cell: Cell, round_: int, single: tuple[int, tuple[str, ...]], on_reserve: bool
    ) -> Sequence[Crossing]:
        """Return what crossed once in a round, or the gradients of so many single steps of these clients."""
        if single[0] and cell.channel == Channel.TRUNK_UPDATE:
            return self._steps(round_, *single, on_reserve)
        return self._on_reserve(round_, self._peers(cell)) if on_reserve else self._stored(round_)

    def _of_round(
        self, cell: Cell, crossings: Sequence[Crossing], state: RoundState
    ) -> Iterator[tuple[str, Tensors, Tensors, int]]:
        """Yield what crossed on the cell's channel: the client, the tensors, the adapter that they started from, and
        the step.
        """
        by_channel = _by_channel(crossings)
        if cell.channel == Channel.STATUS:
            yield from ((client, tensors, {}, -1) for client, tensors in by_channel.get(cell.channel, {}).items())
            return
        held = self.held(cell)
        if cell.channel == Channel.AGGREGATE:
            yield ALL, self._sum(by_channel, held), {}, -1
            return
        if cell.channel == Channel.PERSONAL_MODEL:
            yield from ((*each, -1) for each in self._models(cell, by_channel, state, held))
            return
        of_client = cell.channel == Channel.CLIENT_UPDATE
        single = [each for each in crossings if each.step >= 0]
        whole = () if single else self._updates(by_channel).items()
        for client, tensors, step in (
            *((client, update, -1) for client, update in whole),
            *((each.client, each.tensors, each.step) for each in single),
        ):
            part = {name: tensor for name, tensor in tensors.items() if (name in held) == of_client}
            yield client, part, self._start(cell, client, state, held), step

    def began(self, cell: Cell) -> dict[tuple[str, int], Tensors]:
        """Return the models that the cell's peers began its rounds with, as far as they hold them."""
        held = self.held(cell)
        return {
            (peer, round_): {name: self._state(round_).adapters[peer][name] for name in held}
            for peer in self._peers(cell)
            for round_ in cell.rounds
        }

    def contributions(self, cell: Cell, round_: int) -> list[Contribution]:
        """Return what the cell's peers gave in a round, of the layers that they hold; of those that trained in it.

        Nothing where a defense left only the sum: what each gave was not stored.
        """
        began, by_channel = self.began(replace(cell, round=round_, also_rounds=())), _by_channel(self._stored(round_))
        if Channel.AGGREGATE in by_channel:
            return []
        updates, samples = self._updates(by_channel), self._job.private.samples
        found = []
        for (peer, _), start in began.items():
            if peer in updates:
                update = {name: updates[peer][name] for name in sorted(start)}
                loss = float(by_channel[Channel.STATUS][peer]["loss"])
                after = {name: start[name] - value for name, value in update.items()}
                found.append(Contribution(peer, after, update, loss, len(samples[peer])))
        return found

    def let_through(self, cell: Cell) -> dict[str, list[float]]:
        """Return what the mixing matrix lets through to the cell's peers of the updates of others.

        ``let_through``: least and most weight of all other clients together in a peer's new model. ``share_of_one``:
        least and most share of one of them in that part; 1 where it is alone. Nothing where no peer trained.
        """
        log, peers = self._files.logs(cell.round)[-1], self._peers(cell)
        rows = [place for place, client in enumerate(log.clients) if client in peers]
        columns = [place for place, client in enumerate(log.clients) if client not in peers]
        outside = log.mixing.matrix[np.ix_(rows, columns)]
        total = outside.sum(1)
        if not total.size or not columns or not total.all():
            return {}
        shares = outside / total[:, None]
        return {
            "let_through": [float(total.min()), float(total.max())],
            "share_of_one": [float(shares.min()), float(shares.max())],
        }

    def ended(self, round_: int) -> dict[str, dict[str, Tensor]]:
        """Return the whole adapters of the clients that trained in a round as they were before mixing: start - update.

        Nobody's where what crossed was not stored, or where a defense leaves only the sum of the updates.
        """
        if not self._files.has_crossings(round_):
            return {}
        by_channel, start = _by_channel(self._stored(round_)), self._state(round_).adapters
        if Channel.AGGREGATE in by_channel:
            return {}
        return {
            client: {name: value - update[name] for name, value in start[client].items()}
            for client, update in self._updates(by_channel).items()
            if update.keys() == start[client].keys()
        }

    def _updates(self, by_channel: Mapping[Channel, Mapping[str, Tensors]]) -> dict[str, Tensors]:
        """Return each client's update of its whole adapter. Raises NotApplicable where only their sum was left."""
        client_part, trunk = (by_channel.get(each, {}) for each in (Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE))
        if Channel.AGGREGATE in by_channel:
            raise NotApplicable("a defense leaves only the sum of the updates")
        return {client: {**part, **trunk.get(client, {})} for client, part in client_part.items()}

    def _sum(self, by_channel: Mapping[Channel, Mapping[str, Tensors]], held: Collection[str]) -> Tensors:
        """Return the sum that a defense left, or what it would leave: each update times its client's samples."""
        summed = by_channel.get(Channel.AGGREGATE, {}).get(ALL)
        if summed is not None:
            return {name: tensor for name, tensor in summed.items() if name in held}
        updates, samples = self._updates(by_channel), self._job.private.samples
        return {
            name: torch.stack([len(samples[client]) * update[name].double() for client, update in updates.items()]).sum(
                0
            )
            for name in sorted(held)
        }

    def _models(
        self,
        cell: Cell,
        by_channel: Mapping[Channel, Mapping[str, Tensors]],
        state: RoundState,
        held: Collection[str],
    ) -> Iterator[tuple[str, Tensors, Tensors]]:
        """Yield the new models that came back, and the models before mixing of those who trained."""
        updates = self._updates(by_channel) if Channel.AGGREGATE not in by_channel else {}
        for client, crossed in by_channel.get(Channel.PERSONAL_MODEL, {}).items():
            if cell.adversary == "peer" and client not in self._rows.peers:
                continue
            beyond = [name for name in held if name not in crossed]
            model = {**crossed, **self._next(client, state.round, beyond)} if beyond else crossed
            start = self._start(cell, client, state, held)
            if client in updates:
                start = {name: value - updates[client][name] for name, value in start.items()}
            elif client in by_channel.get(Channel.TRUNK_UPDATE, {}):
                start = {}  # it trained, and its update was told to nobody
            yield client, {name: tensor for name, tensor in model.items() if name in held}, start

    def _next(self, client: str, round_: int, names: Collection[str]) -> Tensors:
        """Return what the trunk held of a new model at the cut that ran, and the client holds at the cell's cut."""
        if not self._files.has_state(round_ + 1):
            ran = self._job.scenario.model.cut
            raise NotApplicable(
                f"of round {round_} the new models are stored as they crossed, at the cut that ran ({ran.front}, "
                f"{ran.back}); audit.rounds with round {round_ + 1} too would have kept the rest"
            )
        whole = self._state(round_ + 1).adapters[client]
        return {name: whole[name] for name in names}

    def _start(self, cell: Cell, client: str, state: RoundState, held: Collection[str]) -> Tensors:
        """Return the model at the start of the round as far as the adversary has it.

        Whoever hosts the trunk has its part. Whoever was sent updates has the clients' parts, unless
        ``audit.knowledge`` says that it goes by public weights. A peer has its own.
        """
        sees, whole = channels_of(cell.adversary), state.adapters[client]
        hosts, sent = Channel.TRUNK_UPDATE in sees, cell.knowledge == "front" or cell.adversary == "peer"
        return {name: value for name, value in whole.items() if (sent if name in held else hosts)}

    def _trained(self, round_: int) -> tuple[str, ...]:
        """Return the clients that trained in a round, by name."""
        return tuple(sorted({each.client for each in self._stored(round_) if each.channel == Channel.TRUNK_UPDATE}))

    def _load(self, round_: int) -> Sequence[Crossing]:
        if not self._files.has_crossings(round_):
            raise NotApplicable(
                f"what crossed once in round {round_} was not stored, as audit.rounds did not name it in training"
            )
        return self._files.crossings(round_)

    def _take_steps(
        self, round_: int, steps: int, clients: tuple[str, ...], on_reserve: bool
    ) -> Sequence[Crossing]:  # fmt: skip
        """Return the gradients of the first local steps of clients, of all blocks; fewer steps where they are large."""
        outside, adapter = self._job.model.whole.held_by_client(0, 0), self._job.model.initial
        size = sum(tensor.numel() * tensor.element_size() for name, tensor in adapter.items() if name not in outside)
        fit = MOST // max(1, size * len(clients))
        samples = self._reserve_samples(()) if on_reserve else None
        federation = self._job.federation if samples is None else on_samples(self._job, samples)
        steps = max(1, min(steps, fit))
        return gradients_of(federation, self._state(round_), steps, clients, lambda name: name not in outside)

    def _peers(self, cell: Cell) -> tuple[str, ...]:
        """Return the clients that are the cell's adversary; none of another one."""
        return self._rows.peers if cell.adversary == "peer" else ()

    def _train_on_reserve(self, round_: int, peers: tuple[str, ...]) -> Sequence[Crossing]:
        samples = self._reserve_samples(peers)
        assert samples is not None
        return crossings_of(on_samples(self._job, samples), self._state(round_))

    def _reserve_samples(self, peers: tuple[str, ...]) -> dict[str, Samples] | None:
        """Return samples of users of the reserve for each client, as many as it has; None without a reserve."""
        job, private, data = self._job, self._job.private, self._job.scenario.data
        users = np.flatnonzero(private.population.reserve == 1)
        pool = training_samples(private.split, users, data.history, data.samples)
        if not len(pool):
            return None
        return {
            client: own if client in peers else _drawn(pool, len(own), derive(job.scenario.seed, "on_reserve", client))
            for client, own in private.samples.items()
        }


def _by_channel(crossings: Sequence[Crossing]) -> dict[Channel, dict[str, dict[str, Tensor]]]:
    """Put together what crossed of each client on each channel."""
    found: dict[Channel, dict[str, dict[str, Tensor]]] = {}
    for each in crossings:
        found.setdefault(each.channel, {}).setdefault(each.client, {}).update(each.tensors)
    return found


def _drawn(pool: Samples, count: int, seed: int) -> Samples:
    """Draw ``count`` samples, each as often as any other, but for one."""
    order = np.random.default_rng(seed).permutation(len(pool))
    return pool.take(np.resize(order, count))

"""The plan of an audit: its trainings, and the cells that attack them.

A cell is an attack of one training, on one channel that its adversary sees, at one chosen cut.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.extension import Extension, attacks_at_cuts
from pplr_audit.audit.own_trainings.hijack import hijacked_by
from pplr_audit.audit.tap_points import OF_THE_TRAINED, OF_TRAINING, SIDES, Trace
from pplr_audit.audit.trainings import PlannedTraining, trainings_of
from pplr_audit.errors import InputError
from pplr_audit.scenario import plugins
from pplr_audit.scenario.schema import Scenario
from pplr_audit.threat_model.adversaries import readable_by
from pplr_audit.threat_model.attack import (
    Attack,
    also_reads,
    as_active,
    reads_all_rounds,
    reads_every_crossing,
    runs_copies,
)
from pplr_audit.threat_model.channels import OF_ADAPTERS, ONCE_A_ROUND, Channel
from pplr_audit.training.spec import TrainingSpec

OF_CLIENTS = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE})
"""Channels with an update of each client alone."""
MEASURED: Mapping[str, frozenset[Channel]] = {
    "history": frozenset({*OF_TRAINING, Channel.METADATA, Channel.INFERENCE_ACTIVATIONS}),
    "label": frozenset({*OF_TRAINING, Channel.METADATA}), "membership": frozenset({*OF_ADAPTERS, Channel.MODEL_OUTPUT}),
    "attribute": frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS, *OF_CLIENTS}),
    "linkage": frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS}), "items": OF_ADAPTERS,
    "targets": OF_ADAPTERS,
    "owner": frozenset({*OF_CLIENTS, Channel.STATUS}),
    "recommendation": frozenset({Channel.INFERENCE_ACTIVATIONS}),
}  # fmt: skip
"""Channels that this version records for attacks and holds the truth of, by secret."""
ACTIVE = "malicious_server"
"""The adversary who chooses what it sends, in a training of its own."""
PEER = "peer"
"""The adversary who is one of the clients."""
WITHOUT_TRUNK = frozenset({Channel.CLIENT_UPDATE, Channel.PERSONAL_MODEL, Channel.AGGREGATE})
"""Channels at a cut that also cross where no block is left for the server."""
NOTHING = (
    "no block is left for the server (k + m = L), so nothing crosses here on this channel; clients' updates, personal "
    "models and losses still cross"
)


@dataclass(frozen=True)
class Plan:
    """The trainings, the cells in the order they run, those that cannot apply with the reason, and the attacks."""

    trainings: tuple[PlannedTraining, ...]
    """All of them, the run's own first."""
    cells: tuple[Cell, ...]
    impossible: tuple[tuple[Cell, str], ...]
    attacks: Mapping[tuple[str, str], Attack]
    """Attacks by name and settings; one object for all cells, so that what it learns at one cut serves the others."""
    depth: int
    """Blocks of the model."""
    rounds: tuple[int, ...]
    """The training rounds that are replayed."""

    @property
    def size(self) -> int:
        """Number of cells, those that cannot apply included."""
        return len(self.cells) + len(self.impossible)

    def attack(self, cell: Cell) -> Attack:
        return self.attacks[cell.attack, cell.settings]

    @property
    def own(self) -> TrainingSpec:
        """The run's own training."""
        return self.trainings[0].spec

    @property
    def attacked(self) -> list[TrainingSpec]:
        """The trainings that cells attack."""
        return [each.spec for each in self.trainings if each.attacked]

    def part(self, spec: TrainingSpec) -> "Plan":
        """Return the plan with the cells of one training alone."""
        cells = tuple(cell for cell in self.cells if cell.training == spec.name)
        impossible = tuple(each for each in self.impossible if each[0].training == spec.name)
        return replace(self, cells=cells, impossible=impossible)

    def kept(self, planned: PlannedTraining) -> tuple[int, ...]:
        """The rounds of a training whose start is replayed."""
        return self.rounds if planned.attacked else ()

    @property
    def hijacked(self) -> int:
        """Number of cells that need a training of their own, under a server that chooses what it sends."""
        return sum(as_active(self.attack(cell)) is not None for cell in self.cells)

    def hijack(self, cell: Cell, scenario: Scenario) -> TrainingSpec | None:
        """Return the training that a cell's attack hijacks; None of one that lets the training be as it is."""
        if as_active(self.attack(cell)) is None:
            return None
        (of,) = (each.spec for each in self.trainings if each.spec.name == cell.training)
        return hijacked_by(cell, of, scenario.audit.auxiliary)

    def hijacked_trainings(self, scenario: Scenario) -> list[TrainingSpec]:
        """Return the trainings that attacks hijack, each once."""
        found = (self.hijack(cell, scenario) for cell in self.cells)
        return [*dict.fromkeys(spec for spec in found if spec is not None)]

    @property
    def layers(self) -> tuple[int, ...]:
        """The fronts k that are looked at."""
        return tuple(
            sorted({cell.front for cell in self.cells if cell.front is not None and cell.channel not in ONCE_A_ROUND})
        )

    def trace(self, cell: Cell, channel: Channel) -> Trace:
        """Return the tap at which ``channel``, one of a training step, is found at the cell's cut."""
        kind, side = OF_TRAINING[channel]
        if side == "front":
            assert cell.front is not None
            return Trace(kind, cell.front)
        assert cell.back is not None
        return Trace(kind, self.depth - cell.back)

    @property
    def every_crossing(self) -> bool:
        """True if an attack reads each crossing of a sample, not the first alone."""
        return any(reads_every_crossing(self.attack(cell)) for cell in self.cells)

    def traces(self, round_: int) -> frozenset[Trace]:
        """All that is looked at in a training round."""
        return frozenset(
            self.trace(cell, channel)
            for cell in self.cells
            if round_ in cell.rounds and cell.channel in OF_TRAINING and as_active(self.attack(cell)) is None
            for channel in {cell.channel} | also_reads(self.attack(cell))
        )


def make_plan(scenario: Scenario, layers: int, extensions: Sequence[Extension] = ()) -> Plan:
    """All trainings and cells of the scenario and of what its run was extended by, for a model of ``layers`` blocks.

    Raises:
        InputError: a cut exceeds the model, or an attack does not take its settings.
    """
    rounds = _rounds(scenario.audit.rounds, scenario.training.rounds)
    attacks: dict[tuple[str, str], Attack] = {}
    # Keyed by cell: what was asked for twice is there once, where it was asked for first.
    cells: dict[Cell, None] = {}
    impossible: dict[Cell, str] = {}
    entries = attacks_at_cuts(scenario.audit, extensions)
    at_cuts = [_cuts(chosen.cuts, layers, chosen.cut_field) for chosen in entries]
    trainings = trainings_of(scenario, [*dict.fromkeys(cut for cuts in at_cuts for cut in cuts)], layers)
    for planned in trainings:
        for chosen, cuts in zip(entries, at_cuts, strict=True) if planned.attacked else ():
            if (only := planned.spec.cut) is not None:
                cuts = [cut for cut in cuts if cut == only]
            axes = _Axes(scenario, planned, rounds, cuts, layers)
            for entry in chosen.attacks:
                key, attack = attack_of(entry, chosen.attack_field)
                attack = attacks.setdefault(key, attack)
                for cell, reason in _cells_of(attack, key, axes):
                    if reason:
                        impossible.setdefault(cell, reason)
                    else:
                        cells.setdefault(cell)
    place = [each.spec.name for each in trainings].index
    order = [str(name) for name in scenario.audit.adversaries].index

    def turn(cell: Cell) -> tuple[int, int]:
        return place(cell.training), order(cell.adversary)

    without = sorted(impossible.items(), key=lambda item: turn(item[0]))
    return Plan(tuple(trainings), tuple(sorted(cells, key=turn)), tuple(without), attacks, layers, rounds)


@dataclass(frozen=True)
class _Axes:
    """All that the cells of one attack range over."""

    scenario: Scenario
    """Adversaries, their knowledge, and the last round."""
    planned: PlannedTraining
    """The training that is attacked."""
    rounds: Sequence[int]
    """The training rounds that are replayed."""
    cuts: Sequence[tuple[int, int]]
    layers: int
    """Blocks of the model."""

    def cell(
        self, key: tuple[str, str], attack: Attack, adversary: str, channel: Channel, round_: int,
        also: tuple[int, ...] = (),
    ) -> Cell:  # fmt: skip
        """Return the cell of an attack in a round, before any cut is named, which reads rounds before it ``also``."""
        spec, level = self.planned.spec, _level(self.scenario.audit.knowledge, adversary, channel, runs_copies(attack))
        return Cell(
            *key, adversary, level, channel, None, None, round_, spec.defense, spec.strategy, spec.seed, spec.name,
            _question(self.scenario, attack, adversary, self.rounds), also,
        )  # fmt: skip


def _cells_of(attack: Attack, key: tuple[str, str], axes: _Axes) -> Iterator[tuple[Cell, str]]:
    """Every cell of one attack, with the reason why it cannot apply, or nothing."""
    scenario, cuts, layers = axes.scenario, axes.cuts, axes.layers
    last = scenario.training.rounds
    for adversary in scenario.audit.adversaries:
        sees = readable_by(adversary)
        readable = sorted(attack.channels & sees, key=list(Channel).index) if also_reads(attack) <= sees else []
        known = MEASURED.get(attack.secret, frozenset())
        for channel in readable or [min(attack.channels, key=list(Channel).index)]:
            reason = ""
            if not readable:
                reason = f"{adversary} sees none of the channels that this attack reads"
            elif (as_active(attack) is not None) != (adversary == ACTIVE):
                reason = (
                    "this attack does not choose what is sent, so its result is that for the adversary server"
                    if adversary == ACTIVE
                    else f"this attack chooses what is sent, and {adversary} does not"
                )
            elif channel in axes.planned.removes:
                reason = f"{axes.planned.spec.defense} takes {channel} away"
            elif adversary == PEER and channel in OF_TRAINING:
                reason = f"what crosses to a peer as {channel} is of its own users, whom it knows"
            elif channel not in known:
                reason = f"this version does not record {channel} for attacks on {attack.secret}"
            of_the_trained = channel in OF_THE_TRAINED
            if reason:
                yield axes.cell(key, attack, adversary, channel, last + of_the_trained), reason
                continue
            audited = (last,) if adversary == ACTIVE else axes.rounds  # it is there from the first round to the last
            for round_, also in [(last + 1, ())] if of_the_trained else _rounds_read(attack, channel, audited):
                cell = axes.cell(key, attack, adversary, channel, round_, also)
                sides = frozenset[str]().union(*(SIDES.get(each, ()) for each in {channel} | also_reads(attack)))
                if not sides:
                    closed_all = channel == Channel.METADATA and all(sum(cut) == layers for cut in cuts)
                    yield cell, NOTHING if closed_all else ""
                    continue
                if axes.planned.spec.cut is not None:  # another cut is another training, whatever the channel is of
                    sides = frozenset({"front", "back"})
                for front, back in cuts:
                    if front + back < layers or channel in WITHOUT_TRUNK:
                        k, m = front if "front" in sides else None, back if "back" in sides else None
                        yield replace(cell, front=k, back=m), ""
                closed = [cut for cut in cuts if sum(cut) == layers and channel not in WITHOUT_TRUNK]
                yield from ((replace(cell, front=front, back=back), NOTHING) for front, back in closed)


def _rounds_read(attack: Attack, channel: Channel, audited: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """Return the rounds that have a cell, each with the earlier audited ones that the cell reads, too.

    In the last one, what crossed earlier of the same sample is read with it. `linkage` instead links the rows of a
    round with those of the one before.
    """
    *earlier, newest = audited
    if reads_all_rounds(attack) and channel in ONCE_A_ROUND:
        return [(newest, tuple(earlier))]
    again = reads_every_crossing(attack) and channel in OF_TRAINING and attack.secret != "linkage"
    return [*((round_, ()) for round_ in earlier), (newest, tuple(earlier) if again else ())]


def _question(scenario: Scenario, attack: Attack, adversary: str, rounds: Sequence[int]) -> str:
    """Return all else that the cells of an attack depend on, as canonical JSON."""
    audit = scenario.audit
    asked: dict[str, Any] = {"victims": audit.victims, "auxiliary": audit.auxiliary}
    if attack.secret == "linkage":  # links each round's rows with those of the audited round before
        asked["rounds"] = [*rounds]
    if adversary == PEER:
        asked["peer"] = audit.peer
    return json.dumps(asked, sort_keys=True)


def _level(knowledge: Literal["strongest", "base", "auxiliary"], adversary: str, channel: Channel, copies: bool) -> str:
    """Return the level of knowledge: pairs help only whoever reads activations; who is sent updates has the fronts, and
    a peer has its own model.

    Args:
        copies: whether the attack makes use of them.
    """
    sees = readable_by(adversary)
    if knowledge == "auxiliary" and Channel.FRONT_ACTIVATIONS in sees and channel != Channel.MODEL_OUTPUT:
        return "auxiliary"
    if adversary == PEER and copies and knowledge == "strongest":
        return "own"
    return "front" if copies and knowledge == "strongest" and Channel.CLIENT_UPDATE in sees else "base"


def _cuts(cuts: Any, layers: int, field: str) -> list[tuple[int, int]]:
    """The cuts asked for, in order. ``all`` are those with a trunk, and the one that leaves all to the client."""
    if cuts == "all":
        return [*((k, m) for k in range(layers) for m in range(layers - k)), (layers, 0)]
    for front, back in cuts:
        if front < 0 or back < 0 or front + back > layers:
            raise InputError(
                f"{field}: [{front}, {back}] does not fit the {layers} blocks of this backbone"
                f" (accepted: all, or pairs with front + back <= {layers})"
            )
    return sorted(cuts)


def _rounds(rounds: Any, last: int) -> tuple[int, ...]:
    if rounds == "last":
        return (last,)
    if rounds == "all":
        return tuple(range(1, last + 1))
    wrong = [r for r in rounds if not 1 <= r <= last]
    if wrong:
        raise InputError(f"audit.rounds: there is no round {wrong[0]} (accepted: last, all, or rounds 1 to {last})")
    return tuple(sorted(set(rounds)))


def attack_of(entry: str | Mapping[str, Mapping[str, Any]], field: str) -> tuple[tuple[str, str], Attack]:
    """Make the attack that an entry names; return its name and settings with it.

    Raises InputError, ``field`` first, for what is no attack, or does not take these settings.
    """
    attack: Attack = plugins.make("attacks", entry, field)
    name, settings = plugins.name_and_settings(entry)
    missing = [part for part in ("name", "secret", "channels", "controls", "run") if not hasattr(attack, part)]
    if missing:
        raise InputError(f"{field}: {name} is not an attack: it has no {missing[0]}")
    return (name, json.dumps(settings, sort_keys=True)), attack

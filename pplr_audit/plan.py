"""Which cells an audit consists of: every attack on every channel that its adversary sees, at every cut asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pplr_audit import plugins
from pplr_audit.cells import Cell
from pplr_audit.channels import Channel
from pplr_audit.errors import InputError
from pplr_audit.scenario import Scenario
from pplr_audit.views import Attack, channels_of

AT_THE_FRONT = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
"""Channels that depend on k alone: computed and attacked once a k, not once a (k, m)."""
MEASURED: Mapping[str, frozenset[Channel]] = {"history": AT_THE_FRONT, "membership": frozenset({Channel.MODEL_OUTPUT})}
"""By secret, the channels that this version records for attacks and holds the truth of."""
OF_THE_TRAINED = frozenset({Channel.INFERENCE_ACTIVATIONS, Channel.INFERENCE_OUTPUT, Channel.MODEL_OUTPUT})
"""Channels of the trained models; the others are of a round."""


@dataclass(frozen=True)
class Plan:
    """The cells in the order they run, those that cannot apply with the reason, and the attacks by cell."""

    cells: tuple[Cell, ...]
    impossible: tuple[tuple[Cell, str], ...]
    attacks: Mapping[tuple[str, str], Attack]
    """By name and settings; one object for all cells, so that what it learns at one cut serves the others."""
    layers: tuple[int, ...]
    """The fronts k that are looked at."""
    rounds: tuple[int, ...]
    """The training rounds that are replayed."""

    def attack(self, cell: Cell) -> Attack:
        return self.attacks[cell.attack, cell.settings]


def make_plan(scenario: Scenario, layers: int, defense: str = "none") -> Plan:
    """All cells of the scenario for a model of ``layers`` blocks.

    Raises:
        InputError: a cut exceeds the model, or an attack does not take its settings.
    """
    audit = scenario.audit
    fronts, closed = _fronts(audit.cuts, layers)
    rounds = _rounds(audit.rounds, scenario.training.rounds)
    attacks = dict(_attack(entry) for entry in audit.attacks)
    cells: list[Cell] = []
    impossible: list[tuple[Cell, str]] = []
    for adversary in audit.adversaries:
        sees = channels_of(adversary)
        level = "front" if audit.knowledge == "strongest" and Channel.CLIENT_UPDATE in sees else "base"
        for (name, settings), attack in attacks.items():
            readable = sorted(attack.channels & sees, key=list(Channel).index)
            known = MEASURED.get(attack.secret, frozenset())
            for channel in readable or [min(attack.channels, key=list(Channel).index)]:
                reason = ""
                if not readable:
                    reason = f"{adversary} sees none of the channels that this attack reads"
                elif channel not in known:
                    reason = f"this version does not record {channel} for attacks on {attack.secret}"
                if reason:
                    at = scenario.training.rounds + (channel in OF_THE_TRAINED)
                    impossible.append(
                        (Cell(name, settings, adversary, level, channel, None, None, at, defense), reason)
                    )
                    continue
                for round_ in rounds if channel not in OF_THE_TRAINED else (scenario.training.rounds + 1,):
                    cell = Cell(name, settings, adversary, level, channel, None, None, round_, defense)
                    if channel not in AT_THE_FRONT:
                        cells.append(cell)
                        continue
                    cells += [_at(cell, front, None) for front in fronts]
                    reason = "no block is left for the server (k + m = L), so nothing crosses here"
                    impossible += [(_at(cell, front, back), reason) for front, back in closed]
    return Plan(tuple(cells), tuple(impossible), attacks, fronts, rounds)


def _at(cell: Cell, front: int, back: int | None) -> Cell:
    return Cell(
        cell.attack, cell.settings, cell.adversary, cell.knowledge, cell.channel, front, back, cell.round, cell.defense
    )


def _fronts(cuts: Any, layers: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """The fronts with something behind them, and the cuts that leave nothing to the server."""
    if cuts == "all":
        return tuple(range(layers)), [(layers, 0)]
    for front, back in cuts:
        if front < 0 or back < 0 or front + back > layers:
            raise InputError(
                f"audit.cuts: [{front}, {back}] does not fit the {layers} blocks of this backbone"
                f" (accepted: all, or pairs with front + back <= {layers})"
            )
    open_ = sorted({front for front, back in cuts if front + back < layers})
    return tuple(open_), [(front, back) for front, back in cuts if front + back == layers]


def _rounds(rounds: Any, last: int) -> tuple[int, ...]:
    if rounds == "last":
        return (last,)
    if rounds == "all":
        return tuple(range(1, last + 1))
    wrong = [r for r in rounds if not 1 <= r <= last]
    if wrong:
        raise InputError(f"audit.rounds: there is no round {wrong[0]} (accepted: last, all, or rounds 1 to {last})")
    return tuple(sorted(set(rounds)))


def _attack(entry: str | Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, str], Attack]:
    attack: Attack = plugins.make("attacks", entry, "audit.attacks")
    name, settings = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    return (name, json.dumps(settings, sort_keys=True)), attack

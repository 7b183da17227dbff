"""Which cells an audit consists of: every attack on every channel that its adversary sees, at every cut asked for."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pplr_audit import plugins
from pplr_audit.cells import Cell
from pplr_audit.channels import Channel
from pplr_audit.errors import InputError
from pplr_audit.extension import Extension, asks
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

    @property
    def size(self) -> int:
        """How many cells there are, those that cannot apply included."""
        return len(self.cells) + len(self.impossible)

    def attack(self, cell: Cell) -> Attack:
        return self.attacks[cell.attack, cell.settings]


def make_plan(scenario: Scenario, layers: int, extensions: Sequence[Extension] = (), defense: str = "none") -> Plan:
    """All cells of the scenario and of what its run was extended by, for a model of ``layers`` blocks.

    Raises:
        InputError: a cut exceeds the model, or an attack does not take its settings.
    """
    rounds = _rounds(scenario.audit.rounds, scenario.training.rounds)
    attacks: dict[tuple[str, str], Attack] = {}
    # Keyed by cell: what was asked for twice is there once, where it was asked for first.
    cells: dict[Cell, None] = {}
    impossible: dict[Cell, str] = {}
    fronts: set[int] = set()
    for ask in asks(scenario.audit, extensions):
        open_, closed = _fronts(ask.cuts, layers, ask.cut_field)
        fronts.update(open_)
        for entry in ask.attacks:
            key, attack = _attack(entry, ask.attack_field)
            attack = attacks.setdefault(key, attack)
            for cell, reason in _cells_of(attack, key, scenario, rounds, open_, closed, defense):
                if reason:
                    impossible.setdefault(cell, reason)
                else:
                    cells.setdefault(cell)
    order = [str(name) for name in scenario.audit.adversaries].index
    runnable = sorted(cells, key=lambda cell: order(cell.adversary))
    without = sorted(impossible.items(), key=lambda item: order(item[0].adversary))
    return Plan(tuple(runnable), tuple(without), attacks, tuple(sorted(fronts)), rounds)


def _cells_of(
    attack: Attack, key: tuple[str, str], scenario: Scenario, rounds: Sequence[int], fronts: Sequence[int],
    closed: Sequence[tuple[int, int]], defense: str,
) -> Iterator[tuple[Cell, str]]:  # fmt: skip
    """Every cell of one attack, with the reason why it cannot apply, or nothing."""
    last = scenario.training.rounds
    for adversary in scenario.audit.adversaries:
        sees = channels_of(adversary)
        level = "front" if scenario.audit.knowledge == "strongest" and Channel.CLIENT_UPDATE in sees else "base"
        readable = sorted(attack.channels & sees, key=list(Channel).index)
        known = MEASURED.get(attack.secret, frozenset())
        for channel in readable or [min(attack.channels, key=list(Channel).index)]:
            reason = ""
            if not readable:
                reason = f"{adversary} sees none of the channels that this attack reads"
            elif channel not in known:
                reason = f"this version does not record {channel} for attacks on {attack.secret}"
            of_the_trained = channel in OF_THE_TRAINED
            if reason:
                yield Cell(*key, adversary, level, channel, None, None, last + of_the_trained, defense), reason
                continue
            for round_ in (last + 1,) if of_the_trained else rounds:
                cell = Cell(*key, adversary, level, channel, None, None, round_, defense)
                if channel not in AT_THE_FRONT:
                    yield cell, ""
                    continue
                yield from ((replace(cell, front=front), "") for front in fronts)
                nothing = "no block is left for the server (k + m = L), so nothing crosses here"
                yield from ((replace(cell, front=front, back=back), nothing) for front, back in closed)


def _fronts(cuts: Any, layers: int, field: str) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """The fronts with something behind them, and the cuts that leave nothing to the server."""
    if cuts == "all":
        return tuple(range(layers)), [(layers, 0)]
    for front, back in cuts:
        if front < 0 or back < 0 or front + back > layers:
            raise InputError(
                f"{field}: [{front}, {back}] does not fit the {layers} blocks of this backbone"
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


def _attack(entry: str | Mapping[str, Mapping[str, Any]], field: str) -> tuple[tuple[str, str], Attack]:
    attack: Attack = plugins.make("attacks", entry, field)
    name, settings = plugins.name_and_settings(entry)
    return (name, json.dumps(settings, sort_keys=True)), attack

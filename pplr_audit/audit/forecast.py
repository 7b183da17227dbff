"""A plan before it runs: trainings, replays and cells; what is there, and about what the rest takes.

Times come from one step of the model on this machine: a round takes as many positions as its batches have, padding
included, and serving a third of a training position's time, as nothing goes back. Clients and trainings that go side by
side share the time. An attack takes what the same attack took in this run before, and otherwise at most its budget.
They are good for hours against minutes, not for seconds.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import Int

from pplr_audit.audit.cell import Cell
from pplr_audit.audit.plan import Plan
from pplr_audit.audit.replay.records import AT_ONCE
from pplr_audit.audit.run_cell import is_done, result_path, trains_reserve
from pplr_audit.audit.trainings import PlannedTraining
from pplr_audit.runs.ledger import Ledger
from pplr_audit.runs.store import Store
from pplr_audit.scenario.compositions import NONE
from pplr_audit.scenario.schema import Scenario
from pplr_audit.threat_model.attack import crafts_start, steps_read
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.job import Job
from pplr_audit.training.run_job import has_begun, is_whole, rounds_done
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.threads import limited

COPIES = 3
"""Tensors that a state holds for each parameter: its value and two moments of AdamW."""
FORWARD = 1 / 3
"""Share of a training step's time that a forward pass alone takes (one forward, two back)."""
STEPS = 3
"""Steps that are timed; the fastest counts, since the first one allocates."""


@dataclass(frozen=True)
class Speed:
    """Seconds that a position of a training step takes on this machine."""

    per_position: float

    @staticmethod
    def measured(job: Job, threads: int) -> "Speed":
        """Time steps of the uncut model on the first client's first batch."""
        client = job.federation.clients[0]
        samples, task, model = job.private.samples[client.name], job.model.task, job.model.whole.model
        rows = client.plan(1)[0]
        prompts = [task.prompts.build(samples.history[row], int(samples.targets[row])) for row in rows]
        positions = len(prompts) * max(map(len, prompts))
        spent = []
        with limited(threads):
            for _ in range(STEPS):
                started = time.perf_counter()
                task.loss(model, prompts, task.base_encoding).backward()
                spent.append(time.perf_counter() - started)
        model.zero_grad(set_to_none=True)
        return Speed(min(spent) / positions)


def forecast(plan: Plan, job: Job, scenario: Scenario, root: Path, speed: Speed, width: int = 1) -> dict[str, Any]:
    """Return the plan as a document: ``trainings``, ``replays``, ``cells`` and ``total``.

    Args:
        job: the run's own training, whose clients and model stand for those of all others.
        root: the run's directory, which need not be there.
        width: processes at a time.
    """
    store = Store.load(root) if Ledger.exists(root) else None
    beside = min(width, len(job.federation.clients))
    of_rounds = replace(speed, per_position=speed.per_position / beside)
    trainings = [_training(each, plan, job, root, of_rounds) for each in plan.trainings]
    alone = width < 2 or sum(not each["whole"] for each in trainings) == 1  # else each is made in a process of its own
    rounds = [(each, round_) for each in plan.trainings for round_ in plan.kept(each)]
    replays = [row for each, round_ in rounds for row in _replays(each, round_, plan, job, store, of_rounds, alone)]
    trainings += [_hijacked(spec, plan, job, root, store, speed) for spec in plan.hijacked_trainings(scenario)]
    cells = _cells(plan, scenario, store)
    parts = (trainings, [each for each in replays if each["left"]], cells)
    return {
        "schema": "pplr-audit/plan/1", "directory": str(root), "trainings": trainings, "replays": replays,
        "cells": cells,
        "total": {
            "seconds": sum(row["seconds"] for part in parts for row in part if row["seconds"] is not None),
            "seconds_at_most": sum(row["seconds_at_most"] for row in cells if row["seconds"] is None),
            "bytes": sum(row["bytes"] for row in trainings),
            "scratch_bytes": max((row["scratch_bytes"] for row in replays if row["left"]), default=0),
        },
    }  # fmt: skip


def _training(planned: PlannedTraining, plan: Plan, job: Job, root: Path, speed: Speed) -> dict[str, Any]:
    spec = planned.spec
    done, rounds = rounds_done(root, spec), spec.training.rounds
    whole = is_whole(root, spec, plan.kept(planned)) if has_begun(root, spec) else False
    positions = sum(_positions(job, round_) for round_ in range(done + 1, rounds + 1))
    served = 0 if whole else _served_positions(job) * (2 if planned.measures.references else 1)
    seconds = (positions + FORWARD * served) * speed.per_position
    bytes_ = 0 if whole else _bytes(job, len({*plan.kept(planned), rounds + 1}))
    return _row(spec, done, whole=whole, attacked=planned.attacked, seconds=seconds, bytes_=bytes_)


def _row(
    spec: TrainingSpec, done: int, *, whole: bool, attacked: bool, seconds: float, bytes_: int
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": spec.name, "strategy": spec.strategy, "defense": spec.defense, "seed": spec.seed,
        "rounds": spec.training.rounds, "done": done, "attacked": attacked, "whole": whole, "seconds": seconds,
        "bytes": bytes_,
    }  # fmt: skip


def _bytes(job: Job, states: int) -> int:
    """Return the size of so many stored states of all clients."""
    state = sum(value.numel() * value.element_size() for value in job.model.initial.values()) * COPIES
    return states * len(job.federation.clients) * state


def _positions(job: Job, round_: int, steps: int | None = None) -> int:
    """Return the positions of a round, or of the first ``steps`` of each client alone."""
    return sum(client.positions(round_, steps) for client in job.federation.clients)


def _lengths(job: Job) -> Int[np.ndarray, "samples"]:
    """Tokens of each training sample."""
    samples = job.private.samples.values()
    return np.concatenate([job.model.prompts.lengths(own.history, own.targets) for own in samples])


def _served_positions(job: Job) -> int:
    """Positions that measuring the utility of a training puts through the model: a prompt, and a title a beam."""
    users, scenario = len(job.private.members), job.scenario
    users = min(users, scenario.data.test_users or users)
    lengths = _lengths(job)
    title = job.model.prompts.titles.lengths.mean()
    beams = scenario.model.beams if scenario.model.recommender == "bigrec" else 0
    return int(users * (lengths.mean() + beams * title))


def _hijacked(
    spec: TrainingSpec, plan: Plan, job: Job, root: Path, store: Store | None, speed: Speed
) -> dict[str, Any]:  # fmt: skip
    """One training under a server of an attack; it begins again where it was broken off.

    Where the server chooses what a round begins with, that round alone is trained.
    """
    cells = [each for each in plan.cells if plan.hijack(each, job.scenario) == spec]
    whole = store is not None and all(is_done(each, store) for each in cells)
    last, one = spec.training.rounds, any(crafts_start(plan.attack(each)) is not None for each in cells)
    rounds = range(last if one else 1, last + 1)
    positions = 0 if whole else sum(_positions(job, round_) for round_ in rounds)
    seconds, bytes_ = positions * speed.per_position, 0 if whole else _bytes(job, 1)
    done = min(rounds_done(root, spec), len(rounds))
    row = _row(spec, done, whole=whole, attacked=True, seconds=seconds, bytes_=bytes_)
    return {**row, "rounds": len(rounds)}


def _replays(
    planned: PlannedTraining, round_: int, plan: Plan, job: Job, store: Store | None, speed: Speed, alone: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """Return what is run again of a round: what crossed of the victims, single steps, and the round on the reserve.

    What crosses is recorded while the round is trained where that is still to come and no other training goes beside.
    """
    part = plan.part(planned.spec)
    left = tuple(cell for cell in part.cells if store is None or not is_done(cell, store))
    traces = replace(part, cells=left).traces(round_)
    victims = len(job.private.victims(job.scenario.audit.victims, planned.spec.seed))
    width = int(job.model.whole.model.config.hidden_size)
    kept = int(len(traces) * victims * _lengths(job).mean() * width * 4)
    to_come = store is None or rounds_done(store.root, planned.spec) < round_
    live = alone and to_come and planned.spec.defense == NONE and kept <= AT_ONCE
    seconds = _positions(job, round_) * speed.per_position
    common = {"training": planned.spec.name, "round": round_}
    found = [{
        **common, "of": "victims", "taps": len(traces), "left": bool(traces), "live": live,
        "seconds": 0.0 if live or not traces else seconds, "scratch_bytes": kept,
    }]  # fmt: skip
    return found + [{**common, **row} for row in _again(round_, part, left, job, speed)]


def _again(
    round_: int, part: Plan, left: Sequence[Cell], job: Job, speed: Speed
) -> list[dict[str, Any]]:  # fmt: skip
    """Return what is trained again of a round: its first steps as often as attacks read them, and on the reserve.

    There it is trained once for all attacks that let it be as it is, and once for each hijacked training.
    """
    common, found = {"taps": 0, "live": False, "scratch_bytes": 0}, []
    own = [cell for cell in part.cells if round_ in cell.rounds]
    seconds = _positions(job, round_) * speed.per_position
    single = {cell: steps_read(part.attack(cell)) for cell in own if cell.channel == Channel.TRUNK_UPDATE}
    reserve = bool(len(job.private.reserve))
    for steps in sorted({*single.values()} - {0}):
        reads = [cell for cell, read in single.items() if read == steps]
        asked = bool({*reads} & {*left})
        twice = 2 if reserve and any(cell.round == round_ for cell in reads) else 1  # its control takes them, too
        taken = twice * _positions(job, round_, steps) * speed.per_position
        found.append({**common, "of": "steps", "steps": steps, "left": asked, "seconds": taken if asked else 0.0})
    whole = [cell for cell in own if cell.round == round_ and not single.get(cell) and _on_reserve(cell, part)]
    trainings = dict.fromkeys(part.hijack(cell, job.scenario) for cell in whole)
    for hijack in trainings if reserve else ():
        asked = any(part.hijack(cell, job.scenario) == hijack for cell in whole if cell in left)
        of = {} if hijack is None else {"training": hijack.name}
        found.append({**common, **of, "of": "reserve", "left": asked, "seconds": seconds if asked else 0.0})
    return found


def _on_reserve(cell: Cell, part: Plan) -> bool:
    return trains_reserve(cell, part.attack(cell))


def _cells(plan: Plan, scenario: Scenario, store: Store | None) -> list[dict[str, Any]]:
    """One row for each attack of each training."""
    rows = []
    for spec in plan.attacked:
        part = plan.part(spec)
        for attack, settings in dict.fromkeys((cell.attack, cell.settings) for cell in part.cells):
            own = [cell for cell in part.cells if (cell.attack, cell.settings) == (attack, settings)]
            paths = [result_path(cell) for cell in own]
            there = [path for path in paths if store is not None and store.exists(path)]
            left, took = len(own) - len(there), _took(store, there)
            rows.append({
                "training": spec.name, "attack": attack, "settings": settings, "cells": len(own), "done": len(there),
                "seconds": 0.0 if not left else None if took is None else took * left,
                "seconds_at_most": left * scenario.audit.budget.seconds,
            })  # fmt: skip
    return rows


def _took(store: Store | None, paths: Sequence[str]) -> float | None:
    """Return the median seconds of finished cells; None where there are none."""
    if store is None or not paths:
        return None
    spent = [max((_seconds(row) for row in store.read_json(path)["findings"]), default=0.0) for path in paths]
    return float(median(spent))


def _seconds(row: Mapping[str, Any]) -> float:
    return float(row["seconds"] or 0.0)

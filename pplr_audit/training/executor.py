"""Executors: what trains the trainings of a plan that are not there yet, one after the other or side by side.

Both do the same with each training, with the same number of threads, and leave the same bytes in its folder.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from pplr_audit.errors import InputError, RunError
from pplr_audit.models.precision import Precision
from pplr_audit.runs.progress import Clock, Silent
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training.job import Inputs, Job
from pplr_audit.training.onlooker import Onlooker
from pplr_audit.training.run_job import Measures, opened, rounds_done, train_job
from pplr_audit.training.side_by_side import allowed, in_processes
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.threads import Choice, limited, usable, wait_asleep


@dataclass(frozen=True)
class Task:
    """One training to make, or to finish."""

    spec: TrainingSpec
    kept: Sequence[int] = ()
    """Rounds whose start is kept for replay."""
    measures: Measures = field(default_factory=Measures)
    look_on: Callable[[Job], Onlooker | None] | None = None
    """Gives whoever looks on while it trains, unless it trains in a process of its own."""


@dataclass(frozen=True)
class Place:
    """Where and how the trainings of a run are made."""

    root: Path
    """The run's directory."""
    scenario: Scenario
    """The scenario as it was asked for."""
    threads: Choice
    """Threads of each training."""
    precision: Precision | None = None
    """The precision that the run began in, for ``precision: auto``."""


class Executor(Protocol):
    """Trains tasks; answers each with the reason for which it broke off, or None."""

    forks: bool
    """True if clients of one training can go side by side."""

    def run(self, tasks: Sequence[Task], place: Place, inputs: Inputs, clock: Clock) -> Iterator[str | None]:
        """Yield the outcome of each task, in order.

        Raises:
            InputError: data, model or a file of a training do not fit.
            RunError: the disk refuses a file, or a process was killed; the same call continues.
        """
        ...

    def width(self, place: Place) -> int:
        """Return how many processes may work on one training, or attack one, at a time."""
        ...


class Serial:
    """One training after the other, in this process."""

    forks = False

    def run(self, tasks: Sequence[Task], place: Place, inputs: Inputs, clock: Clock) -> Iterator[str | None]:
        for task in tasks:
            yield _outcome(task, place, inputs, clock)

    def width(self, place: Place) -> int:
        return 1


class Processes:
    """Several trainings at a time, each in a process of its own; of a single training, several clients at a time.

    Args:
        most: processes at a time, by default as many as there are cores; with the threads of each there are never more
            threads than that.
    """

    forks = sys.platform == "linux"

    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def run(self, tasks: Sequence[Task], place: Place, inputs: Inputs, clock: Clock) -> Iterator[str | None]:
        width = min(len(tasks), self.width(place))
        if width < 2:  # then the clients of a training go side by side
            with allowed(self.width(place)):
                yield from Serial().run(tasks, place, inputs, clock)
            return
        rounds = sum(task.spec.training.rounds for task in tasks)
        with clock.phase(f"training {len(tasks)} models, {width} at a time", rounds) as advance:
            seen = 0

            def look() -> None:
                nonlocal seen
                done = sum(_rounds_done(place.root, task.spec) for task in tasks)
                advance(done - seen)
                seen = done

            fork = self.forks and place.threads.number == 1
            alone = [Task(task.spec, task.kept, task.measures) for task in tasks]
            calls = [partial(_train_apart, task, place, inputs if fork else None) for task in alone]
            yield from in_processes(calls, width, get_context("fork") if fork else _server(), look)
            advance(rounds - seen)

    def width(self, place: Place) -> int:
        return max(1, (self._most or usable()) // place.threads.number)


def executor(name: str) -> Executor:
    """Return the executor of this name: ``serial`` or ``processes``."""
    return Processes() if name == "processes" else Serial()


def _outcome(task: Task, place: Place, inputs: Inputs, clock: Clock) -> str | None:
    """Train one task here; return why it broke off, or None. Raises what stops all others too."""
    job = inputs.job(task.spec, place.scenario, task.kept)
    with opened(place.root, task.spec) as store:
        try:
            onlooker = None if task.look_on is None else task.look_on(job)
            train_job(job, store, clock, place.threads, task.measures, onlooker)
        except RunError as error:
            if isinstance(error.__cause__, OSError):  # a full disk stops everyone
                raise
            store.event("training_failed", error=str(error))
            return str(error)
    return None


def _rounds_done(root: Path, spec: TrainingSpec) -> int:
    try:
        return rounds_done(root, spec)
    except InputError:  # its process is just beginning it
        return 0


def _train_apart(task: Task, place: Place, inputs: Inputs | None) -> str | None:
    """Train one task in a process of its own; ``inputs`` are those of a parent that it is a fork of."""
    clock = Clock(Silent())
    with limited(place.threads.number):
        made = Inputs(clock.phase, place.precision) if inputs is None else inputs.announced_to(clock.phase)
        return _outcome(task, place, made, clock)


def _server() -> Any:
    """Return the context of processes that are no forks of this one, whose threads would not survive in them."""
    wait_asleep()
    try:
        context: Any = get_context("forkserver")
    except ValueError:  # Windows
        return get_context("spawn")
    context.set_forkserver_preload([__name__])
    return context

"""Executors: what trains the trainings of a plan that are not there yet, one after the other or side by side.

Both do the same with each training, with the same number of threads, and leave the same bytes in its folder.
"""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from pplr_audit.errors import InputError, RunError
from pplr_audit.models.precision import Precision
from pplr_audit.runs.progress import Clock, Silent
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training.job import Inputs
from pplr_audit.training.run_job import Measures, opened, rounds_done, train_job
from pplr_audit.training.side_by_side import allowed, end_with_parent
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.threads import Choice, limited, usable, wait_asleep

LOOK = 0.5
"""Seconds between two looks at how far other processes are."""


@dataclass(frozen=True)
class Task:
    """One training to make, or to finish."""

    spec: TrainingSpec
    kept: Sequence[int] = ()
    """Rounds whose start is kept for replay."""
    measures: Measures = field(default_factory=Measures)


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
            with _Pool(width) as pool:
                waiting = [pool.submit(task, place) for task in tasks]
                for pending in waiting:
                    while not pool.finished(pending, LOOK):
                        done = sum(_rounds_done(place.root, task.spec) for task in tasks)
                        advance(done - seen)
                        seen = done
                    yield pool.outcome(pending)
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
            train_job(job, store, clock, place.threads, task.measures)
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


class _Pool:
    """Processes of which ``width`` run at a time; none outlives this one."""

    def __init__(self, width: int) -> None:
        self._width, self._context = width, _context()
        self._waiting: list[_Pending] = []
        self._running: list[_Pending] = []

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for pending in self._running:
            pending.process.kill()
            pending.process.join()

    def submit(self, task: Task, place: Place) -> "_Pending":
        pending = _Pending.of(self._context, task, place)
        self._waiting.append(pending)
        return pending

    def finished(self, pending: "_Pending", seconds: float) -> bool:
        """Wait up to ``seconds`` for anything to end; answer whether ``pending`` has."""
        self._start()
        if pending.answer is None:
            connection.wait([each.process.sentinel for each in self._running], seconds)
            for each in [each for each in self._running if not each.process.is_alive()]:
                each.end()
                self._running.remove(each)
            self._start()
        return pending.answer is not None

    @staticmethod
    def outcome(pending: "_Pending") -> str | None:
        assert pending.answer is not None
        error, text = pending.answer
        if error is not None:
            raise error
        return text

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._width:
            pending = self._waiting.pop(0)
            with _without_interrupts():
                pending.process.start()
            pending.far_end.close()
            self._running.append(pending)


@dataclass
class _Pending:
    """One task in a process of its own."""

    name: str
    process: BaseProcess
    near_end: connection.Connection
    far_end: connection.Connection
    answer: tuple[Exception | None, str | None] | None = None

    @classmethod
    def of(cls, context: BaseContext, task: Task, place: Place) -> "_Pending":
        near, far = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(task, place, far), daemon=True)  # type: ignore[attr-defined]
        return cls(task.spec.name, process, near, far)

    def end(self) -> None:
        """Take the answer of a process that has ended."""
        if self.near_end.poll():
            self.answer = self.near_end.recv()
        else:
            code = self.process.exitcode
            what = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
            self.answer = RunError(f"{self.name}: its process {what}; the same command continues it"), None
        self.near_end.close()
        self.process.join()


def _work(task: Task, place: Place, answer: connection.Connection) -> None:
    """Train one task in this process, and answer as `_outcome` does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process stops it
    threading.Thread(target=end_with_parent, daemon=True).start()  # it holds the training's lock
    found: tuple[Exception | None, str | None]
    try:
        with limited(place.threads.number):
            clock = Clock(Silent())
            found = None, _outcome(task, place, Inputs(clock.phase, place.precision), clock)
    except (InputError, RunError) as error:
        found = type(error)(str(error)), None
    answer.send(found)
    answer.close()


def _context() -> BaseContext:
    """Fork from a server that has imported everything and computed nothing, where there is such a thing."""
    wait_asleep()
    try:
        context: Any = get_context("forkserver")
    except ValueError:  # Windows
        return get_context("spawn")
    context.set_forkserver_preload([__name__])
    return context  # type: ignore[no-any-return]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A server that is started within lets Ctrl-C pass: it goes to this process, which ends the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

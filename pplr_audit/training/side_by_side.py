"""Tasks side by side in forked processes: clients of a round, users of a client, cells of an audit.

A forked process has all that this one has in memory, so nothing is read or built again; what it computes comes back
through a pipe, from a process's own fork and from nobody else. It computes with one thread: the threads of OpenMP do
not survive a fork. Bits are those of one task after the other, as every task draws from seeds of its own.
"""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from pplr_audit.errors import RunError

T = TypeVar("T")
Task = Callable[[], T]
LOOK = 0.5
"""Seconds between two looks at how far other processes are."""
_width: ContextVar[int] = ContextVar("width", default=1)


@contextmanager
def allowed(width: int) -> Iterator[None]:
    """Let ``width`` tasks run at a time within the block; 1: one after the other, in this process."""
    token = _width.set(width)
    try:
        yield
    finally:
        _width.reset(token)


def width(tasks: int) -> int:
    """Return how many of so many tasks run at a time here."""
    import torch  # takes a while, and `pplr-audit --help` comes by here

    able = sys.platform == "linux" and torch.get_num_threads() == 1 and parent_process() is None
    return min(tasks, _width.get()) if able else 1


def side_by_side(tasks: Sequence[Task[T]]) -> Iterator[T]:
    """Yield what each task returns, in order, as many at a time in forks as are allowed here.

    What a task changes in memory is lost: it returns all that matters. What it raises is raised here, in its turn.

    Raises:
        RunError: a process was killed.
    """
    at_once = width(len(tasks))
    if at_once < 2:
        yield from (task() for task in tasks)
    else:
        yield from in_processes(tasks, at_once, get_context("fork"))


def in_processes(
    tasks: Sequence[Task[T]], at_once: int, context: Any, look: Callable[[], None] = lambda: None
) -> Iterator[T]:
    """Do the same in processes of a ``context`` of multiprocessing; none outlives this call.

    Args:
        look: called every `LOOK` seconds while it waits.
    """
    waiting = [_Apart(task, context) for task in tasks]
    started: list[_Apart[T]] = []
    try:
        for each in waiting:
            while not each.ended:
                _keep_busy(waiting, started, at_once)
                running = [one for one in started if not one.ended]
                for ready in connection.wait([one.near for one in running], LOOK):
                    next(one for one in running if one.near is ready).end()
                look()
            yield each.result()
    finally:
        for each in started:
            each.stop()


def _keep_busy(waiting: "Sequence[_Apart[T]]", started: "list[_Apart[T]]", at_once: int) -> None:
    running = sum(not each.ended for each in started)
    for each in waiting[len(started) : len(started) + at_once - running]:
        each.start()
        started.append(each)


class _Apart(Generic[T]):
    """One task in a process of its own."""

    def __init__(self, task: Task[T], context: Any) -> None:
        self._context, self._task = context, task
        self._process: BaseProcess | None = None
        self._answer: tuple[BaseException | None, T | None] | None = None

    @property
    def ended(self) -> bool:
        return self._answer is not None

    def start(self) -> None:
        self.near, far = self._context.Pipe(duplex=False)
        self._process = self._context.Process(target=_work, args=(self._task, far), daemon=True)
        self._process.start()
        far.close()

    def end(self) -> None:
        """Take the answer of a process, which has one or is gone."""
        assert self._process is not None
        try:
            self._answer = pickle.loads(self.near.recv_bytes())  # torch would share memory with a process that is gone
        except (EOFError, OSError):  # it was killed before its answer, or within
            self._process.join()
            self._answer = RunError(f"a process of this run ended with {self._process.exitcode}"), None
        self.near.close()
        self._process.join()

    def result(self) -> T:
        assert self._answer is not None
        error, found = self._answer
        if error is not None:
            raise error
        return found  # type: ignore[return-value]

    def stop(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(task: Task[Any], answer: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process stops it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    found: tuple[BaseException | None, Any]
    try:
        found = None, task()
    except Exception as error:
        found = error, None
    answer.send_bytes(pickle.dumps(found))
    answer.close()


def _end_with_parent() -> None:
    """End this process when its parent has ended: nobody waits for it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

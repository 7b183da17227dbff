"""The threads that a training computes with, and the way they wait for each other.

The number is chosen once, when a run begins, and kept by whatever continues it: sums over another number of threads
differ in their last digits, and so do weights and findings. Threads that wait do so asleep. By spinning, two of them on
two cores take twelve times as long as one as soon as another program takes turns with them.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from pplr_audit.errors import InputError

ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Variables that GNU's (the first) and LLVM's or Intel's (both) OpenMP runtime read when they are loaded."""
CHOSEN = "OMP_NUM_THREADS"
MOST = 1024
"""More threads than this are a mistake, or a damaged file."""
FLOP_PER_THREAD = 2.5e6
"""FLOP of one matrix product: with less, a second thread costs as much as it brings (measured forward and back on two
cores: .7 times as fast with 1.0 MFLOP in all, 1.6 times with 3.9, twice with 8.9)."""
SLOW = 5.0
"""Seconds from which the first round of a call may be slow; later ones are compared with the fastest before."""
SMALL = 512
"""Hidden size up to which what a client's step holds in memory is small beside the model."""
PROBE = 0.4
"""Seconds for which the processor is watched."""


def wait_asleep() -> None:
    """Let threads of OpenMP that wait sleep, unless the environment says otherwise.

    The runtime reads this once, when it is loaded: call it before anything imports torch or scikit-learn.
    """
    for name, value in ASLEEP.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Choice:
    """A number of threads, and by what it was chosen."""

    number: int
    reason: str


@dataclass(frozen=True)
class Cores:
    """The cores that this process may use, and how many of them other programs kept busy (a mean over a while)."""

    usable: int
    taken: float

    @property
    def free(self) -> int:
        """The cores that are left, at least one."""
        return max(1, min(self.usable, int(len(_places()) - self.taken + 0.5)))


def usable() -> int:
    """Cores by affinity and by the limit of a container, each counted once even if it runs two threads at a time."""
    import joblib  # takes a while, and `pplr-audit --help` comes by here

    return max(1, min(int(joblib.cpu_count()), psutil.cpu_count(logical=False) or os.cpu_count() or 1))


def watched(seconds: float = PROBE) -> Cores:
    """Watch for ``seconds`` what other programs take."""
    watch = _Watch()
    time.sleep(seconds)
    return watch.look()


def asked_by_environment() -> int | None:
    """Return ``OMP_NUM_THREADS`` of the environment; None if it is unset or no number."""
    said = os.environ.get(CHOSEN, "").split(",")[0].strip()
    return int(said) if said.isdecimal() and 1 <= int(said) <= MOST else None


def choose(width: int | None, rows: int, tokens: int, beside: int = 1) -> Choice:
    """Choose the number of threads for a training that begins now.

    ``OMP_NUM_THREADS`` counts as a choice. Else it is one thread for each free core, but no more than the model can
    use; and one alone for a small model of which several clients can train side by side, each on a core.

    Args:
        width: the hidden size; None where it is not known yet.
        rows: sequences in a batch.
        tokens: tokens in a sequence.
        beside: clients that can train side by side.
    """
    if (number := asked_by_environment()) is not None:
        return Choice(number, CHOSEN)
    if width is not None and width <= SMALL and beside >= usable() > 1:
        return Choice(1, "a core for each client")
    cores = watched()
    useful = cores.free if width is None else max(1, round(2 * rows * tokens * width**2 / FLOP_PER_THREAD))
    if useful < cores.free:
        return Choice(useful, "the size of the model")
    return Choice(cores.free, "the free cores")


def checked(number: int, source: str) -> int:
    """``number`` where it can be a number of threads. Raises InputError that names ``source``."""
    if not 1 <= number <= MOST:
        raise InputError(f"{source}: {number} threads (accepted: 1 to {MOST})")
    return number


@contextmanager
def limited(number: int) -> Iterator[None]:
    """Compute with ``number`` threads: torch, and the libraries below NumPy, SciPy and scikit-learn."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class Pace:
    """Says, once, that a round was slow because other programs kept the cores busy.

    Args:
        threads: how many the training computes with.
        say: called with one line of text.
    """

    def __init__(self, threads: int, say: Callable[[str], None]) -> None:
        self._threads, self._say = threads, say
        self._watch = _Watch()
        self._fastest = float("inf")
        self._said = False

    def round_done(self, number: int, seconds: float) -> None:
        """Round ``number`` took ``seconds``."""
        cores = self._watch.look()
        self._watch = _Watch()
        crowded = self._threads + cores.taken > len(_places()) + 0.5
        slow = seconds > (SLOW if self._fastest == float("inf") else 1.25 * self._fastest)
        self._fastest = min(self._fastest, seconds)
        if crowded and slow and not self._said:
            self._said = True
            self._say(
                f"round {number} took {seconds:.0f} s: other programs kept {cores.taken:.1f} of {len(_places())} cores"
                f" busy beside the {self._threads} thread{'s' if self._threads > 1 else ''} of this training"
            )


class _Watch:
    """Load on the cores that this process may use from now on, without its own."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy(), _own()

    def look(self) -> Cores:
        """Mean over the time since the watch began."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        taken = (_busy() - self._busy - (_own() - self._own)) / seconds
        return Cores(usable(), min(max(taken, 0.0), float(len(_places()))))


def _places() -> list[int]:
    """The numbers of the cores on which this process may run."""
    process = psutil.Process()
    affinity = getattr(process, "cpu_affinity", None)  # macOS has none
    return list(affinity()) if affinity is not None else list(range(os.cpu_count() or 1))


def _busy() -> float:
    """Seconds for which these cores have worked, for anyone, since the machine started."""
    times = psutil.cpu_times(percpu=True)
    return sum(sum(t) - t.idle - getattr(t, "iowait", 0.0) - _guests(t) for t in (times[at] for at in _places()))


def _guests(times: object) -> float:
    """Linux counts the time of guests twice: by itself, and as the user's."""
    return float(getattr(times, "guest", 0.0)) + float(getattr(times, "guest_nice", 0.0))


def _own() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)

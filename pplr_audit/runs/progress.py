"""Progress of a long run: bars on a terminal, silence otherwise; and what the user should know, anywhere."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from pplr_audit.errors import visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


_WIDTH = 28
"""Width of a phase's name, so that the bars of several stand below each other."""


_BAR = 12
"""Width of a bar, so that the note behind it has room on 80 columns."""


class Advance(Protocol):
    """Say that ``n`` more steps of a phase are done, and in a few words what comes next."""

    def __call__(self, n: int = 1, note: str = "") -> None: ...


class Progress(Protocol):
    """Receiver of the announcements of phases."""

    def phase(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Begin a phase of ``total`` steps (None: unknown), inside of another one or after it."""
        ...

    def say(self, text: str) -> None:
        """Tell the user something that they did not ask for and should know, in a line."""
        ...


class Silent:
    """Says nothing."""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        yield _nothing

    def say(self, text: str) -> None:
        pass


class Lines(Silent):
    """Says nothing of phases, and in a line of its own what the user should know."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        print(visible(text), file=self._stream, flush=True)


class Bars:
    """A bar for each phase that is under way, on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: RichProgress | None = None
        self._depth = 0

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        if self._bars is None:
            self._bars = _rich_bars(self._stream)
        bars = self._bars
        if self._depth == 0:
            bars.start()
        self._depth += 1
        task = bars.add_task(visible(name), total=total, note="")

        def advance(n: int = 1, note: str = "") -> None:
            bars.update(task, advance=n, note=visible(note))

        try:
            yield advance
        finally:
            self._depth -= 1
            bars.stop_task(task)
            bars.update(task, note="")
            if total is None:  # however many steps it were, it has ended
                bars.update(task, total=1, completed=1)
            if self._depth == 0:
                # What ended stays as a line; the next phase draws its own, or this one would be drawn again.
                bars.stop()
                self._bars = None
            else:
                bars.remove_task(task)

    def say(self, text: str) -> None:
        if self._bars is None:
            print(visible(text), file=self._stream, flush=True)
        else:  # above the bars, which are drawn again below it
            self._bars.console.print(visible(text), markup=False, highlight=False)


class Clock:
    """Announces phases and remembers how long each took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        started = time.perf_counter()
        with self._progress.phase(name, total) as advance:
            yield advance
        self.seconds[name] = round(time.perf_counter() - started, 3)

    def apart(self) -> "Clock":
        """Return a clock that announces to the same, and keeps its times to itself."""
        return Clock(self._progress)

    def say(self, text: str) -> None:
        """Say it as `Progress` does."""
        self._progress.say(text)


def to(stream: TextIO) -> Progress:
    """Bars if ``stream`` is a terminal that can draw them, else nothing but what the user should know."""
    return Bars(stream) if stream.isatty() and os.environ.get("TERM") != "dumb" else Lines(stream)


def _nothing(n: int = 1, note: str = "") -> None:
    pass


def _rich_bars(stream: TextIO) -> "RichProgress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=_WIDTH)),
        BarColumn(bar_width=_BAR),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=Console(file=stream))

"""The two streams of the command line, which stay safe to write to when the disk is full or the reader is gone."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, TextIO


class _ErrorStream:
    """The error stream, which drops what it cannot write: no work fails because nobody can be told about it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def open_streams() -> None:
    """Make standard output and the error stream safe to write to, a closed one included: it drops what it gets."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
    sys.stderr = _ErrorStream(sys.stderr)


def flushed(stream: TextIO | None) -> OSError | None:
    """Write what Python still holds of ``stream``, or drop it and return why it cannot be written.

    Python would try after the exit code is chosen, print "Exception ignored" and end with code 120.
    """
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        discard(stream)
        return error
    return None


def discard(stream: TextIO) -> None:
    """Let ``stream`` drop what it holds and what it gets, if it is a file of the system."""
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def not_printed(error: OSError) -> str:
    """Say that standard output took nothing."""
    return f"what was to be printed: cannot be written: {error.strerror}"

"""Text for a terminal, where names and messages that others wrote must not act, and the two streams it goes to."""

import contextlib
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any, TextIO

_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    r"""``text`` with the characters that move the cursor, change colors or reverse the direction spelled out.

    >>> print(visible("evil\x1b[2J\u202ename"))
    evil\x1b[2J\u202ename
    """
    return "".join(_spelled(c) if unicodedata.category(c) in _ACTING else c for c in text)


def visible_lines(text: str) -> str:
    """The same, keeping line ends: for messages of several lines."""
    return "\n".join(visible(line) for line in text.split("\n"))


def visible_json(text: str) -> str:
    r"""A JSON document with those characters as JSON escapes them: the same values, and nothing acts.

    >>> print(visible_json('["evil\u202ename"]'))
    ["evil\u202ename"]
    """
    return "".join(
        _escaped(c) if c != "\n" and unicodedata.category(c) in _ACTING else c  # a line end stands between values only
        for c in text
    )


def _escaped(character: str) -> str:
    pair = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pair[at]:02x}{pair[at + 1]:02x}" for at in range(0, len(pair), 2))


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()


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

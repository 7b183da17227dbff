"""The errors that a user can mend, and the two ends of an attack. All else is a bug and keeps its traceback."""

import errno
import unicodedata

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Codes of an OSError for a disk that is full, by itself, by a quota, or by a limit on the size of files."""


class InputError(Exception):
    """Wrong usage, scenario, data, model folder or run directory: exit code 2.

    The message is one line that names the file, the field or the line, and what is accepted.
    """


class RunError(Exception):
    """The run failed while running (a full disk, a loss that is not finite): exit code 1."""


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

"""Text for a terminal, where names and messages that others wrote must not act."""

import unicodedata

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


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()

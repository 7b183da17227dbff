"""Text that came from data: titles, names and messages that somebody else wrote.

Escaping for HTML or Markdown is the renderer's; what is taken away here is what no escaping makes harmless:
characters that control a terminal or reverse the direction of the text, lone surrogates that no file can hold,
towers of combining marks, and strings without end.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

LIMIT = 600
"""Characters kept of one string: the longest real title seen is about 700 tokens of template-free text."""

_JOINERS = "\u200c\u200d"  # Persian words and emoji need them; they neither hide nor reorder text
_MARKS_IN_A_ROW = 4


def plain(text: str, limit: int = LIMIT) -> str:
    """``text`` on one line, without control, direction and invisible characters, at most ``limit`` characters long.

    >>> plain("a\\u202eb\\x1b[31m\\nc")
    'a\ufffdb\ufffd[31m c'
    >>> plain("abcdef", limit=4)
    'abc…'
    """
    kept: list[str] = []
    marks = 0
    for character in " ".join(text[: 4 * limit].split()):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > _MARKS_IN_A_ROW:
            continue
        invisible = category in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
        kept.append("\ufffd" if invisible else character)
    line = "".join(kept)
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def cleaned(value: Any) -> Any:
    """A copy of a document with every string in it made ``plain``, keys included."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): cleaned(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(child) for child in value]
    return value

"""Tables that fit a terminal: lines break between words, else behind an underscore, and inside a name only then."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 100
"""Characters of a line from which on columns have a blank at each side."""


def fitted_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> "Table":
    """Return a table of at most ``width`` letters in which nothing is cut off, if columns of one letter fit."""
    from rich.table import Table
    from rich.text import Text

    blank, edge = (1, True) if width >= WIDE else (0, False)
    table = Table(title=Text(title), title_justify="left", padding=(0, blank), show_edge=edge)
    lines = len(head) + 1 if edge else len(head) - 1
    widths = _widths([head, *rows], width - lines - 2 * blank * len(head))
    for name, at_most in zip(head, widths, strict=True):
        table.add_column(broken(name, at_most), width=at_most, overflow="fold")
    for row in rows:
        # Text, not str: a title or a client's name must not be read as rich markup
        table.add_row(*(Text(broken(cell, at_most)) for cell, at_most in zip(row, widths, strict=True)))
    return table


def broken(text: str, width: int) -> str:
    """Break a text into lines of at most ``width`` letters, as far as its words and their parts allow.

    >>> broken("loss on inference_activations", 15).split("\\n")
    ['loss on', 'inference_', 'activations']
    """
    lines = [""]
    for word in text.split(" "):
        for place, piece in enumerate([word] if len(word) <= width else _parts(word)):
            joined = f"{lines[-1]} {piece}" if lines[-1] and not place else f"{lines[-1]}{piece}"
            if lines[-1] and len(joined) > width:
                lines.append(piece)
            else:
                lines[-1] = joined
    return "\n".join(lines)


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return widths that fit into ``room``: the widest column is narrowed first, and what breaks well before others."""
    columns = [*zip(*rows, strict=True)]
    widths = [max(map(len, cells)) for cells in columns]
    words = [max(len(word) for cell in cells for word in cell.split(" ")) for cells in columns]
    parts = [max(len(p) for cell in cells for word in cell.split(" ") for p in _parts(word)) for cells in columns]
    while sum(widths) > max(room, len(widths)):
        widest = max(range(len(widths)), key=lambda at: (widths[at] > words[at], widths[at] > parts[at], widths[at]))
        widths[widest] -= 1
    return widths


def _parts(word: str) -> list[str]:
    """Parts of a name: each ends with an underscore, but for the last."""
    return re.findall(r"[^_]*_+|[^_]+", word) or [word]

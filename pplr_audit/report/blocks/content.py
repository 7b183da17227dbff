"""Building blocks of a report before it is HTML or Markdown: sections of blocks, all plain text and numbers.

Both renderers walk the same sections, so that they cannot tell different stories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pplr_audit.report.blocks.chart import Chart, Entry


@dataclass(frozen=True)
class Cell:
    """One table cell: what it says, a smaller note under it, and a mark that renderers may style.

    Marks: ``number`` (right-aligned, as is ``strong``), ``value`` (with its interval in the note), ``near`` (a value
    that is not above its baseline), ``status`` (no value, and why), or none.
    """

    text: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first ``headers`` cells of a row name the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    headers: int = 1

    @property
    def right(self) -> tuple[bool, ...]:
        """True for each right-aligned column: those of bare numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.columns)
        return tuple(any(cell.mark in ("number", "strong") for cell in column) for column in columns)


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of short statements."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figure:
    """Charts that belong together. Whatever they show also stands in a table beside them."""

    caption: str
    charts: tuple[Chart, ...]

    @property
    def legend(self) -> tuple[Entry, ...]:
        """The legend that all charts share, to be shown once; empty where they differ."""
        legends = {chart.legend for chart in self.charts}
        return self.charts[0].legend if len(legends) == 1 else ()


@dataclass(frozen=True)
class Word:
    """A word of a text, and whether the other text has it too."""

    text: str
    shared: bool


@dataclass(frozen=True)
class Comparison:
    """A true text beside its guess. ``hit`` is null where the texts are shown as read, without a verdict."""

    label: str
    truth: tuple[Word, ...]
    guess: tuple[Word, ...]
    hit: bool | None


@dataclass(frozen=True)
class History:
    """One user's history as an attack recovered it, or the next items of several; ``columns`` name rows and truths."""

    title: str
    score: str
    comparisons: tuple[Comparison, ...]
    columns: tuple[str, str] = ("slot", "true history")


@dataclass(frozen=True)
class Fold:
    """Blocks that are there but closed."""

    title: str
    blocks: tuple["Block", ...]


Block = Text | Items | Facts | Table | Figure | History | Fold


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def numbers(*texts: str) -> tuple[Cell, ...]:
    """Cells of right-aligned numbers."""
    return tuple(Cell(text, mark="number") for text in texts)


def labels(*texts: str) -> tuple[Cell, ...]:
    """Cells of plain words."""
    return tuple(Cell(text) for text in texts)


def listed(words: Sequence[str]) -> str:
    """Words as a sentence has them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""

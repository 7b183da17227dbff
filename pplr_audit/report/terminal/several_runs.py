"""Several runs on a terminal: what updates say in each, by the settings in which they differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pplr_audit.report.blocks.content import Cell, Section, Table
from pplr_audit.report.terminal.fitted import fitted_table

if TYPE_CHECKING:
    from rich.table import Table as Shown


def several_runs_table(section: Section, width: int) -> "Shown":
    """The table of the page, as its cells stand there."""
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    rows: Sequence[Sequence[str]] = [[_text(cell) for cell in row] for row in table.rows]
    return fitted_table(section.title, table.columns, rows, width)


def _text(cell: Cell) -> str:
    near = "≈ " if cell.mark == "near" else ""
    note = f" {cell.note}" if cell.mark in ("near", "value") else ""
    return f"{near}{cell.text}{note}"

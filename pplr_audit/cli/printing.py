"""Prints the results of commands: one JSON document, or tables, and nothing of any library."""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from pplr_audit.errors import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console

    from pplr_audit.pipeline import AuditResult


def chatter_aside() -> contextlib.redirect_stdout[Any]:
    """Whatever a library prints inside goes to the error stream: standard output holds only what was asked for."""
    return contextlib.redirect_stdout(sys.stderr)


def print_json(document: Any) -> None:
    typer.echo(visible_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)))


def print_findings(result: "AuditResult", as_json: bool) -> None:
    """The document alone, or the table and then the path of the report."""
    if as_json:
        print_json(result.document)
        return
    from pplr_audit.report.terminal.findings import summary_table
    from pplr_audit.report.terminal.updates import updates_table

    screen = console()
    for table in (summary_table(result.document, screen.width), updates_table(result.document, screen.width)):
        if table is not None:
            screen.print(table, markup=False, highlight=False)
    typer.echo(visible(str(result.report)))


def print_line(text: str) -> None:
    """A sentence: on a terminal broken between words, else one line."""
    console().print(text, markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())


def console() -> "Console":
    """Standard output; where it is no terminal, wide enough for the table whoever reads it."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)

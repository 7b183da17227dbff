"""The examination as a person reads it: a table on a terminal, plain lines elsewhere or where tables are broken."""

from typing import TYPE_CHECKING, TextIO

from pplr_audit.errors import visible

if TYPE_CHECKING:
    from pplr_audit.cli.doctor import Examination

_STYLES = {"ok": "green", "optional": "dim", "warning": "yellow", "failed": "bold red"}


def show(found: "Examination", stream: TextIO) -> None:
    """Write it to ``stream``, the verdict last."""
    try:
        if stream.isatty():
            _table(found, stream)
        else:
            _lines(found, stream)
    except ImportError:  # the library that draws tables may be the broken one
        _lines(found, stream)
    print(_verdict(found), file=stream)


def _table(found: "Examination", stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None)
    for name in ("", "what", "found", "what to do"):
        table.add_column(name, overflow="fold")
    table.columns[0].no_wrap = True
    group = ""
    for check in found.checks:
        if group and check.group != group:
            table.add_section()
        group = check.group
        state = Text(check.state, style=_STYLES[check.state])
        table.add_row(state, *(Text(visible(text)) for text in (check.name, check.found, check.advice)))
    Console(file=stream).print(table)


def _lines(found: "Examination", stream: TextIO) -> None:
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        advice = f" -> {check.advice}" if check.advice else ""
        print(visible(f"{check.state:8}  {check.name:{width}}  {check.found}{advice}"), file=stream)


def _verdict(found: "Examination") -> str:
    if found.able:
        return "The main job can run: pplr-audit run quickstart"
    wrong = [check.name for check in found.checks if check.state == "failed"]
    return visible(f"The main job cannot run: {', '.join(wrong)}")

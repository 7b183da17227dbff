"""The command that puts runs beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from pplr_audit.cli import option_values as values
from pplr_audit.cli.printing import console
from pplr_audit.errors import visible
from pplr_audit.scenario.paths import expanded


def compare(
    directories: Annotated[list[Path], typer.Argument(metavar="RUN...", hidden=True)],
    out: Annotated[Path | None, typer.Option(help="Write the page into this folder, too.")] = None,
) -> None:
    """Compare what updates say in runs that were trained in other ways.

    That is: by optimizer, batch size, local steps, rank and whatever else they differ in.

    RUN... are the directories of two or more runs of the same data, in which updates were attacked. They are only read.
    """
    from pplr_audit.report.comparison import compared
    from pplr_audit.report.terminal.several_runs import several_runs_table
    from pplr_audit.report.write import write_elsewhere

    found, folder = compared([expanded(each, "RUN") for each in directories]), values.folder(out)
    screen = console()
    screen.print(several_runs_table(found.section, screen.width), markup=False, highlight=False)
    for path in write_elsewhere(folder, found.files()) if folder is not None else ():
        typer.echo(visible(str(path)))

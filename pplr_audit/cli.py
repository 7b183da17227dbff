"""The command line: parse, call, print. What it calls is imported where it is called, so that help is instant."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperGroup

from pplr_audit import __version__
from pplr_audit.errors import InputError, RunError
from pplr_audit.listing import Kind
from pplr_audit.paths import expanded
from pplr_audit.terminal import visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console

DEBUG = "PPLR_AUDIT_DEBUG"
_FORMATS = "Any of html, md and json, with commas (default: html,md)."


class ExitCodes(TyperGroup):
    """Turns what went wrong into one message and an exit code: 1 while running, 2 wrong input, 130 stopped."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise _failed(str(error), 2) from None
        except RunError as error:
            raise _failed(str(error), 1) from None
        except KeyboardInterrupt:
            raise _failed("stopped; the same command continues", 130) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            text = f"internal error: {type(error).__name__}: {error} (set {DEBUG}=1 to see where)"
            raise _failed(text, 1) from None


# Arguments are described in the commands' own words (hidden=True leaves them out of a second list): of what typer 0.20
# would print about them, click 8.5 loses the help and a stray backslash is left.
app = typer.Typer(
    cls=ExitCodes,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The command ``pplr-audit``."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pplr-audit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Measure what leaks when a language model is fine-tuned as a federated recommender the PPLR way."""


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", hidden=True)],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one field. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory (default: runs/NAME-HASH).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings document and nothing else.")] = False,
) -> None:
    """Train, attack, score, report. The same command continues a run that was stopped.

    SCENARIO is the name of a shipped scenario (see: pplr-audit list scenarios) or a YAML file.
    """
    from pplr_audit import scenario as scenarios

    chosen = scenarios.load(scenario, settings or ())
    from pplr_audit import audit, progress

    # Whatever a library prints on the way, only the document goes to standard output.
    with contextlib.redirect_stdout(sys.stderr):
        result = audit.run(chosen, expanded(out, "--out") if out else None, progress.to(sys.stderr))
    if as_json:
        typer.echo(json.dumps(result.document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from pplr_audit.report.summary import summary_table

    _console().print(summary_table(result.document), markup=False, highlight=False)
    typer.echo(visible(str(result.directory / f"report.{chosen.report.formats[0]}")))


@app.command()
def data(
    path: Annotated[str, typer.Argument(metavar="PATH", hidden=True)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="A field of the scenario's data section. May be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON and nothing else.")] = False,
) -> None:
    """Say what a data set holds, before anyone trains on it: users, items, lengths, times, attributes, titles missing.

    PATH is a folder, a file in it, a zip, or synthetic. Name the reader, its columns or a filter by --set, as in
    --set 'data.reader={table: {user: uid, item: pid}}' or --set data.core=5.
    """
    from pplr_audit import inspection, progress

    found = inspection.inspect(path, settings or (), progress.to(sys.stderr))
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from pplr_audit.report.overview import overview_table

    _console().print(overview_table(found), markup=False, highlight=False)


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(metavar="KIND", hidden=True)]) -> None:
    """What there is to choose from, one line each.

    KIND is attacks, defenses, scenarios, models, readers or strategies.
    """
    from pplr_audit.listing import listing

    found = listing(kind)
    width = max(map(len, found), default=0)
    for name, description in found.items():
        typer.echo(visible(f"{name:{width}}  {description}".rstrip()))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    formats: Annotated[str, typer.Option("--format", metavar="NAMES", show_default=False, help=_FORMATS)] = "html,md",
    redact: Annotated[bool, typer.Option("--redact", help="Leave out all examples of users' data.")] = False,
) -> None:
    """Write the report of a run again and print the paths of the files.

    RUN is the directory of a run.
    """
    wanted = _formats(formats)
    from pplr_audit import audit

    for path in audit.write_report(expanded(directory, "RUN"), wanted, redact):
        typer.echo(visible(str(path)))


def _formats(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",")]
    for name in chosen:
        if name not in ("html", "md", "json"):
            raise InputError(f"--format: unknown format {name!r} (accepted: html, md, json, with commas)")
    return chosen


def _failed(message: str, code: int) -> typer.Exit:
    typer.echo(visible_lines(message), err=True)
    return typer.Exit(code)


def _console() -> "Console":
    """Standard output; where it is no terminal, wide enough for the table whoever reads it."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)

"""How a command ends: one message on the error stream, and the exit code that goes with it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click
import typer
from typer.core import TyperGroup

from pplr_audit.cli.streams import discard, not_printed
from pplr_audit.errors import NO_SPACE, InputError, RunError, visible_lines

DEBUG = "PPLR_AUDIT_DEBUG"


class ExitCodes(TyperGroup):
    """Turns what went wrong into one message and an exit code: 1 while running, 2 wrong input, 130 stopped."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _exit_codes():  # --help and --version are printed here
            return super().make_context(*args, **more)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:  # both click 8.5 and typer 0.20 add what may be meant: once is enough
            wrong, *meant = error.format_message().split(" Did you mean ")
            raise click.UsageError(" Did you mean ".join([wrong, *meant[-1:]]), ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _failed(str(error), 2) from None
    except RunError as error:
        raise _failed(str(error), 1) from None
    except MemoryError as error:
        said = f" ({error})" if str(error) else ""
        raise _failed(
            f"there is not enough memory{said}; fewer users, tokens or a smaller model need less", 1
        ) from None
    except KeyboardInterrupt:
        raise _failed("stopped; the same command continues", 130) from None
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        raise _failed(_unforeseen(error), 1) from None


def _unforeseen(error: Exception) -> str:
    """A full disk where anything but the run's own files is written, or else a mistake of ours."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        if error.filename is None:
            discard(sys.stdout)  # else the part that Python still holds would be refused once more at the end
            return not_printed(error)
        return f"{error.filename}: cannot be written: {error.strerror}"
    return f"internal error: {type(error).__name__}: {error} (set {DEBUG}=1 to see where)"


def _failed(message: str, code: int) -> typer.Exit:
    typer.echo(visible_lines(message), err=True)
    return typer.Exit(code)

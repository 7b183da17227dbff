"""Values of the command line's options, each checked or refused in one line."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pplr_audit.errors import InputError, visible
from pplr_audit.scenario.paths import expanded
from pplr_audit.training import threads as threads_

if TYPE_CHECKING:
    from pplr_audit.scenario import Scenario

EXECUTORS = ("serial", "processes")


def loaded(source: str, settings: list[str] | None) -> "Scenario":
    """The scenario; a note about an old name in it is one line on the error stream."""
    from pplr_audit import scenario as scenarios

    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", FutureWarning)
        chosen = scenarios.load(source, settings or ())
    for each in noted:
        typer.echo(visible(str(each.message)), err=True)
    return chosen


def formats(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",")]
    for name in chosen:
        if name not in ("html", "md", "json"):
            raise InputError(f"--format: unknown format {name!r} (accepted: html, md, json, with commas)")
    return chosen


def require_executor(name: str) -> None:
    if name not in EXECUTORS:
        raise InputError(f"--executor: unknown name {name!r} (accepted: {', '.join(EXECUTORS)})")


def threads(number: int | None) -> int | None:
    """Not typer's own check of a range, which imports what draws tables."""
    return None if number is None else threads_.checked(number, "--threads")


def folder(out: Path | None) -> Path | None:
    return expanded(out, "--out") if out else None


def required_folder(out: Path | None) -> Path:
    """Not typer's own check, whose help imports what draws tables."""
    if out is None:
        raise InputError("--out: give the directory for answers and findings")
    return expanded(out, "--out")

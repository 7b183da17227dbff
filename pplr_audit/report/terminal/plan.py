"""A plan on a terminal: the trainings, what is replayed, the attacks; what is there, and about what the rest takes."""

import json
from typing import TYPE_CHECKING, Any

from pplr_audit.report.findings.series import spelled
from pplr_audit.report.words.quantities import duration, several, size
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.runs.documents import Document

if TYPE_CHECKING:
    from rich.table import Table


def plan_table(document: Document) -> "Table":
    """One row for each training, replay and attack."""
    from rich.table import Table

    document = cleaned(document)
    table = Table(title=f"Plan of {document['directory']}", title_justify="left")
    for name in ("step", "there", "time", "disk"):
        table.add_column(name, justify="left" if name == "step" else "right", overflow="fold")
    many = len(document["trainings"]) > 1
    seeds = len({row["seed"] for row in document["trainings"]}) > 1
    for row in document["trainings"]:
        beside = ([] if row["defense"] == "none" else [row["defense"]]) + ([f"seed {row['seed']}"] if seeds else [])
        about = f"train {row['name']}" + (f" ({', '.join(beside)})" if beside else "")
        there = f"{row['done']} of {several(row['rounds'], 'round')}"
        table.add_row(about, there, _about(row["seconds"]), size(row["bytes"]) if row["bytes"] else "")
    for row in document["replays"]:
        if row["left"]:
            table.add_row(_replay(row, many), "", "while it is trained" if row["live"] else _about(row["seconds"]), "")
    for row in document["cells"]:
        settings = json.loads(row["settings"])
        named = f"{row['attack']} ({spelled(settings)})" if settings else row["attack"]
        about = f"attack by {named}" + (f" on {row['training']}" if many else "")
        known = row["seconds"] is not None
        time = _about(row["seconds"]) if known else f"up to {duration(row['seconds_at_most'])}"
        table.add_row(about, f"{row['done']} of {several(row['cells'], 'cell')}", time, "")
    table.caption, table.caption_justify = _total(document["total"]), "left"
    return table


def _replay(row: dict[str, Any], many: bool) -> str:
    round_ = f"round {row['round']}" + (f" of {row['training']}" if many else "")
    if row["of"] == "reserve":
        return f"train {round_} on users of the reserve, as a control"
    if row["of"] == "steps":
        return f"train the first {several(row['steps'], 'step')} of {round_} again, for their gradients"
    return f"{'record' if row['live'] else 'replay'} {round_} at {several(row['taps'], 'tap')}"


def _total(total: dict[str, Any]) -> str:
    if not any(total.values()):
        return "Nothing is left to do."
    beyond = f", and up to {duration(total['seconds_at_most'])} for attacks" if total["seconds_at_most"] else ""
    scratch = f"; {size(total['scratch_bytes'])} more while it attacks" if total["scratch_bytes"] else ""
    return f"Left: about {duration(total['seconds'])}{beyond}; {size(total['bytes'])} on disk{scratch}."


def _about(seconds: float) -> str:
    return f"about {duration(seconds)}" if seconds else "nothing left"

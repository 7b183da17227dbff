"""Updates on a terminal: the strongest attack on each channel that carries one."""

from typing import TYPE_CHECKING

from pplr_audit.report.findings.recipe import recipe_words
from pplr_audit.report.findings.series import above_baseline, baseline_words
from pplr_audit.report.findings.update_channels import Said, attacked, said_by_updates
from pplr_audit.report.terminal.fitted import fitted_table
from pplr_audit.report.words.quantities import MISSING, interval, number
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.report.words.vocabulary import STATUS, cut_words
from pplr_audit.runs.documents import Document, judged

if TYPE_CHECKING:
    from rich.table import Table

HEAD = ("channel", "what", "value", "95% interval", "baseline", "cut", "by")


def updates_table(findings: Document, width: int) -> "Table | None":
    """One row for each channel and secret, with how a round was trained; none where no update was attacked."""
    from rich.text import Text

    findings = cleaned(judged(findings))
    if not attacked(findings):
        return None
    table = fitted_table("What updates say", HEAD, [_row(each) for each in said_by_updates(findings)], width)
    table.caption, table.caption_justify = Text(recipe_words(findings["run"])), "left"
    return table


def _row(said: Said) -> tuple[str, ...]:
    under = f" ({', '.join(said.under.values())})" if said.under else ""
    row = said.found
    if row is None:
        first = said.tried[0]
        what = f"{said.secret} {first['metric']}{under}"
        return (said.channel, what, STATUS[first["status"]], *[MISSING] * 3, first["attack"])
    metric, near = row["metric"], "" if above_baseline(row) else "≈ "
    return (
        said.channel, f"{said.secret} {metric}{under}", near + number(metric, row["value"]),
        interval(metric, row["ci"]), baseline_words(row).removeprefix("baseline "), cut_words(row["cut"]),
        row["attack"],
    )  # fmt: skip

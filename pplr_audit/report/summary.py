"""The findings on a terminal: the strongest attack on each secret at each cut, then utility."""

from typing import TYPE_CHECKING

from pplr_audit.report.cells import (
    Finding,
    above_baseline,
    depths,
    distinct,
    is_measured,
    metrics_in_order,
    overall,
    strongest,
)
from pplr_audit.report.charts.utility import strategy_name
from pplr_audit.report.document import Document
from pplr_audit.report.price import cost_at_front, headline_utility
from pplr_audit.report.quantities import MISSING, interval, number, percent, size
from pplr_audit.report.untrusted import cleaned
from pplr_audit.report.vocabulary import REFERENCES, STATUS

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str, str, str, str, str, str]


def summary_table(findings: Document) -> "Table":
    """One row for each secret and cut, then membership, then utility; costs beside the cuts."""
    from rich.table import Table
    from rich.text import Text

    findings = cleaned(findings)
    table = Table(title=Text(f"{findings['run']['name']}: strongest attack at each cut"), title_justify="left")
    for name in ("cut", "what", "value"):
        table.add_column(name, no_wrap=True)
    for name in ("95% interval", "baseline", "by", "client holds", "wire a round"):
        table.add_column(name)
    rows = [*_leaks(findings), *_utility(findings)]
    for row in rows:
        # Text, not str: a title or a client's name must not be read as rich markup
        table.add_row(*(Text(cell) for cell in row))
    return table


def _leaks(findings: Document) -> list[Row]:
    rows = overall(findings["findings"])
    out: list[Row] = []
    for secret in sorted(distinct(rows, "secret"), key=lambda name: name == "membership"):
        for defense in distinct(rows, "defense"):
            mine = [row for row in rows if row["secret"] == secret and row["defense"] == defense]
            metrics = metrics_in_order([row for row in mine if is_measured(row)] or mine, secret)
            of_metric = [row for row in mine if metrics and row["metric"] == metrics[0]]
            what = secret if defense == "none" else f"{secret} ({defense})"
            for side in ("front", "back"):
                cut_rows = [row for row in of_metric if _side(row) == side]
                for depth in depths(cut_rows):
                    at = [row for row in cut_rows if row["cut"][side] == depth]
                    out.append(
                        _leak(f"{'k' if side == 'front' else 'm'}={depth}", what, at, _price(findings, side, depth))
                    )
            anywhere = [row for row in of_metric if row["cut"] is None]
            # An adversary for whom an attack has nothing to read is in the report; here it would say nothing.
            if anywhere and (any(map(is_measured, anywhere)) or len(anywhere) == len(of_metric)):
                out.append(_leak("any", what, anywhere, ("", "")))
    return out


def _side(row: Finding) -> str | None:
    if row["cut"] is None:
        return None
    return "front" if row["cut"]["front"] is not None else "back"


def _leak(cut: str, what: str, rows: list[Finding], price: tuple[str, str]) -> Row:
    found = strongest(rows)
    if found is None:
        return (
            cut,
            f"{what} {rows[0]['metric']}",
            STATUS[rows[0]["status"]],
            MISSING,
            MISSING,
            rows[0]["attack"],
            *price,
        )
    metric = found["metric"]
    near = "" if above_baseline(found) else "≈ "
    return (
        cut,
        f"{what} {metric}",
        near + number(metric, found["value"]),
        interval(metric, found["ci"]),
        number(metric, found["baseline"]),
        f"{found['attack']} on {found['channel']}",
        *price,
    )


def _price(findings: Document, side: str, depth: int) -> tuple[str, str]:
    """What holding so much in front costs; a depth behind has no price of its own."""
    cost = cost_at_front(findings, depth) if side == "front" else None
    return (percent(cost["client_share"]), size(cost["wire_bytes_per_round"])) if cost else (MISSING, MISSING)


def _utility(findings: Document) -> list[Row]:
    metric, rows = headline_utility(findings)
    return [
        (
            "",
            f"utility {metric}",
            number(metric, row["value"]),
            interval(metric, row["ci"]),
            "",
            f"{strategy_name(row)}{' (reference)' if row['strategy'] in REFERENCES else ''}",
            "",
            "",
        )
        for row in rows
    ]

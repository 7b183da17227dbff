"""The findings on a terminal: the strongest attack on each secret at each cut, then utility."""

from typing import TYPE_CHECKING

from pplr_audit.report.charts.utility import strategy_name
from pplr_audit.report.findings.by_cut import Pair, is_closed, said, sides_of, speakers_along
from pplr_audit.report.findings.series import (
    Finding,
    above_baseline,
    baseline_words,
    distinct,
    is_measured,
    metrics_in_order,
    overall,
    strongest,
)
from pplr_audit.report.sentences.few_users import narrow_intervals
from pplr_audit.report.sentences.price import cost_at, failed_rivals, headline_utility, left_out
from pplr_audit.report.sentences.protocol import groups, unfair_coins
from pplr_audit.report.sentences.unfinished import unfinished
from pplr_audit.report.terminal.fitted import fitted_table
from pplr_audit.report.words.quantities import MISSING, interval, number, percent, size
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.report.words.vocabulary import REFERENCES, STATUS
from pplr_audit.runs.documents import WITHOUT_TRUNK_UNKNOWN, Document, judged

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str, str, str, str, str, str]


HEAD = ("cut", "what", "value", "95% interval", "baseline", "by", "client holds", "wire a round")
LEGEND = "k, m: how many blocks the client keeps in front and behind. ≈: not above the baseline."


def summary_table(findings: Document, width: int) -> "Table":
    """One row for each secret and cut, then membership, then utility; costs beside the cuts. ``width`` is in letters.

    Lines are broken between words, or behind an underscore of a name, and nothing is cut off.
    """
    from rich.text import Text

    findings = cleaned(judged(findings))
    title = f"{findings['run']['name']}: strongest attack at each cut"
    table = fitted_table(title, HEAD, [*_leaks(findings), *_utility(findings)], width)
    say_missing(table, findings)
    told = [LEGEND, *([str(table.caption)] if table.caption else [])]
    table.caption, table.caption_justify = Text("\n".join(told)), "left"
    return table


def say_missing(table: "Table", document: Document) -> None:
    """Below the table, who is in it, what is missing and why (users, channels of cuts without a trunk, attacks that
    ended without a value, rivals), and warnings.
    """
    from rich.text import Text

    layers = document["run"]["layers"]
    closed = any(row["cut"] and is_closed(row["cut"], layers) for row in document.get("findings", ()))
    told = [*groups(document), *left_out(document), *([WITHOUT_TRUNK_UNKNOWN] if closed else [])]
    told += [*unfinished(document), *failed_rivals(document), *unfair_coins(document), *narrow_intervals(document)]
    if told:
        table.caption, table.caption_justify = Text("\n".join(told)), "left"


def _leaks(findings: Document) -> list[Row]:
    rows = overall(findings["findings"])
    out: list[Row] = []
    for secret in sorted(distinct(rows, "secret"), key=lambda name: name == "membership"):
        for defense in distinct(rows, "defense"):
            mine = [row for row in rows if row["secret"] == secret and row["defense"] == defense]
            metrics = metrics_in_order([row for row in mine if is_measured(row)] or mine, secret)
            of_metric = [row for row in mine if metrics and row["metric"] == metrics[0]]
            what = secret if defense == "none" else f"{secret} ({defense})"
            sides = sides_of(of_metric, findings["run"]["layers"])
            at_cut = {c: r for side in sides for c, r in speakers_along(of_metric, side, findings["run"]).items()}
            out += [_leak(said(cut, sides), what, row, _price(findings, cut)) for cut, row in at_cut.items()]
            anywhere = [row for row in of_metric if row["cut"] is None]
            # An adversary for whom an attack has nothing to read is in the report; here it would say nothing.
            if anywhere and (any(map(is_measured, anywhere)) or len(anywhere) == len(of_metric)):
                out.append(_leak("any", what, strongest(anywhere) or anywhere[0], ("", "")))
    return out


def _leak(cut: str, what: str, row: Finding, price: tuple[str, str]) -> Row:
    metric = row["metric"]
    if not is_measured(row):
        return cut, f"{what} {metric}", STATUS[row["status"]], MISSING, MISSING, row["attack"], *price
    near = "" if above_baseline(row) else "≈ "
    return (
        cut,
        f"{what} {metric}",
        near + number(metric, row["value"]),
        interval(metric, row["ci"]),
        baseline_words(row).removeprefix("baseline "),
        f"{row['attack']} on {row['channel']}",
        *price,
    )


def _price(findings: Document, cut: Pair) -> tuple[str, str]:
    cost = cost_at(findings, cut)
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

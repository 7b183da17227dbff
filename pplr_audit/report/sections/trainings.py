"""Section on other trainings: the strongest attack on each strategy, and figures over several seeds."""

from collections.abc import Iterable, Sequence

from pplr_audit.report.blocks.content import Block, Cell, Section, Table, Text, labels, numbers
from pplr_audit.report.findings.series import Finding, distinct, headline, settings_words, strongest, value_cell
from pplr_audit.report.words.quantities import interval, number, several
from pplr_audit.report.words.vocabulary import cut_words, metric_words, secret_words
from pplr_audit.runs.documents import Document

STRATEGIES = (
    "Rivals were attacked in the same way as this run's own strategy, on the same users. Findings are corrected for "
    "those of their own strategy."
)
SEEDS = (
    "Everything was drawn and trained again under each seed: coins, clients, adapters and the order of samples. The "
    "interval is over seeds (Student's t), and never narrower than what resampling users shows."
)
SHOWN = 12
"""Findings shown over seeds for each secret, those of the largest mean."""


def trainings(findings: Document) -> tuple[Section, ...]:
    """Tables of strategies and seeds; no section where the run has one strategy and one seed."""
    blocks: list[Block] = []
    if findings.get("strategies"):
        blocks += [Text(STRATEGIES), _strategies([*findings["findings"], *findings["strategies"]])]
    if findings.get("seeds") or findings.get("utility_seeds"):
        seeds = (findings.get("seeds") or findings["utility_seeds"])[0]["seeds"]
        blocks.append(Text(f"{several(len(seeds), 'seed')}: {', '.join(map(str, seeds))}. {SEEDS}"))
        blocks += [
            _seeds(findings.get("seeds", ()), secret) for secret in distinct(findings.get("seeds", ()), "secret")
        ]
        if findings.get("utility_seeds"):
            blocks.append(_utility(findings["utility_seeds"]))
    return (Section("trainings", "Other trainings", tuple(blocks)),) if blocks else ()


def _strategies(rows: Sequence[Finding]) -> Table:
    """The strongest finding of each strategy without a defense, for each secret by its headline metric."""
    plain = [row for row in rows if row["defense"] == "none"]
    body = []
    for secret in distinct(plain, "secret"):
        of_secret = [row for row in plain if row["secret"] == secret]
        metric = headline(of_secret, secret)
        for strategy in distinct(of_secret, "strategy") if metric else ():
            found = strongest(r for r in of_secret if r["strategy"] == strategy and r["metric"] == metric)
            named = labels(secret_words(secret), metric_words(str(metric)), strategy)
            where = f"{found['attack']} on {found['channel']}" if found else ""
            body.append((*named, value_cell(found), Cell(where), Cell(cut_words(found["cut"]) if found else "")))
    columns = ("secret", "metric", "strategy", "strongest", "attack", "cut")
    return Table("Leakage of each strategy: its strongest finding, with 95% interval and baseline.", columns,
                 tuple(body), headers=3)  # fmt: skip


def _seeds(rows: Iterable[Finding], secret: str) -> Table:
    """Means over seeds of one secret's findings by its headline metric, the largest first."""
    own = [row for row in rows if row["secret"] == secret]
    metric = headline([{**row, "status": "ok"} for row in own], secret)
    shown = sorted((row for row in own if row["metric"] == metric), key=lambda row: -row["value"])[:SHOWN]
    rounds = {where: {row["round"] for row in own if row["channel"] == where} for where in distinct(own, "channel")}
    body = []
    for row in shown:
        where = row["channel"] + (f", round {row['round']}" if len(rounds[row["channel"]]) > 1 else "")
        mode, settings = str(row["detail"].get("mode", "")), settings_words(row)
        called = " ".join(part for part in (row["attack"], mode, f"({settings})" if settings else "") if part)
        named = labels(called, where, cut_words(row["cut"]), row["strategy"], row["defense"])
        body.append((*named, *_over_seeds(row)))
    columns = ("attack", "channel", "cut", "strategy", "defense", "mean over seeds", "95% interval", "each seed")
    caption = f"{secret_words(secret)}, {metric_words(str(metric))}, over seeds."
    return Table(caption, columns, tuple(body), headers=5)


def _utility(rows: Sequence[Document]) -> Table:
    body = tuple(
        (*labels(row["strategy"], row["defense"], metric_words(row["metric"])), *_over_seeds(row)) for row in rows
    )
    columns = ("strategy", "defense", "metric", "mean over seeds", "95% interval", "each seed")
    return Table("Utility over seeds, all clients.", columns, body, headers=3)


def _over_seeds(row: Document) -> tuple[Cell, ...]:
    metric = row["metric"]
    each = ", ".join(number(metric, value) for value in row["values"])
    return (*numbers(number(metric, row["value"]), interval(metric, row["ci"])), Cell(each))

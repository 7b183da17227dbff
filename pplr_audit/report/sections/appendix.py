"""Every finding, as the document has it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pplr_audit.report.blocks.content import Cell, Fold, Section, Table, Text
from pplr_audit.report.findings.details import SPREAD
from pplr_audit.report.findings.series import Finding, above_baseline, is_measured, reason
from pplr_audit.report.words.quantities import MISSING, duration, interval, number
from pplr_audit.report.words.vocabulary import COMPARED, STATUS, cut_words
from pplr_audit.runs.documents import Document

LIMIT = 400
"""Characters of a detail."""


def every_finding(findings: Document) -> Section:
    """The whole list, closed until asked for."""
    rows = findings["findings"]
    title = "Every finding"
    if not rows:
        return Section("findings", title, (Text("This audit has no findings."),))
    return Section("findings", title, (Fold(f"All {len(rows):,} rows", (_table(rows),)),))


def _table(rows: Sequence[Finding]) -> Table:
    """One row for each finding; what is the same in all of them is said once, so that the rest fits on a page."""
    records = [_record(row) for row in rows]
    told_once = {
        name: cell.text
        for name, cell in records[0].items()
        if name not in ("attack", "metric", "value")
        and len(rows) > 1
        and len({record[name] for record in records}) == 1
    }
    columns = tuple(name for name in records[0] if name not in told_once)
    same = ", ".join(f"{name} {text}" for name, text in told_once.items() if text)
    caption = "Every finding of the audit" + (f". The same in every row: {same}." if same else "")
    return Table(caption, columns, tuple(tuple(record[name] for name in columns) for record in records))


def _record(row: Finding) -> dict[str, Cell]:
    metric, measured = row["metric"], is_measured(row)
    return {
        "attack": Cell(row["attack"]),
        "secret": Cell(row["secret"]),
        "metric": Cell(metric),
        "cut": Cell(cut_words(row["cut"])),
        "channel": Cell(row["channel"]),
        "value": Cell(number(metric, row["value"]), mark="near" if measured and not above_baseline(row) else "number"),
        "95% interval": Cell(interval(metric, row["ci"]), mark="number"),
        "baseline": Cell(number(metric, row["baseline"]), mark="number"),
        "compared with": Cell(_compared(row)),
        "corrected p": Cell(_corrected(row), mark="number"),
        "n": Cell(f"{row['n']:,}", mark="number"),
        "status": Cell(STATUS[row["status"]], reason(row), mark="" if measured else "status"),
        "defense": Cell(row["defense"]),
        "adversary": Cell(row["adversary"]),
        "knowledge": Cell(row["knowledge"]),
        "round": Cell(MISSING if row["round"] is None else str(row["round"])),
        "client": Cell(row["client"]),
        "adaptive": Cell("yes" if row["adaptive"] else "no"),
        "time": Cell(duration(row["seconds"]), mark="number"),
        "detail": Cell(_detail(row)),
    }


def _compared(row: Finding) -> str:
    """Each comparison with its value, its interval where it is an estimate, and its one-sided p-value."""
    metric = row["metric"]
    said = []
    for each in row.get("comparisons", ()):
        exact = each["ci"][0] == each["ci"][1]
        value = number(metric, each["value"]) + ("" if exact else f" {interval(metric, each['ci'])}")
        draws = f", {each['draws']} draws" if "draws" in each else ""
        said.append(f"{COMPARED.get(each['name'], each['name'])} {value}{draws} (p {each['p']:.2g})")
    return "; ".join(said)


def _corrected(row: Finding) -> str:
    """Its p-value and the number of findings that it is corrected for."""
    return f"{row['corrected']['p']:.2g} of {row['corrected']['over']}" if "corrected" in row else ""


def _detail(row: Finding) -> str:
    """Write a detail as JSON with rounded numbers; the spread over users has a table of its own."""
    rest = {key: _rounded(value) for key, value in row["detail"].items() if key not in ("reason", SPREAD)}
    text = json.dumps(rest, ensure_ascii=False, sort_keys=True) if rest else ""
    return text if len(text) <= LIMIT else f"{text[: LIMIT - 1]}…"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value

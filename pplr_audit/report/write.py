"""Puts the report into the run directory: checked against its schema first, written last."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pplr_audit.report.document import validate, validate_evidence
from pplr_audit.report.html import render_html
from pplr_audit.report.markdown import render_markdown
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.store import Store

FINDINGS, EVIDENCE = "findings.json", "evidence.json"


def write_reports(
    store: Store, document: dict[str, Any], evidence: dict[str, Any], formats: Sequence[str], *, redact: bool = False
) -> list[Path]:
    """Write findings, evidence and the report in each of ``formats`` (html, md, json); answers the report's files."""
    validate(document)
    validate_evidence(evidence)
    reach("report")
    store.write_json(FINDINGS, document)
    store.write_json(EVIDENCE, evidence)
    written = []
    for form in formats:
        name = FINDINGS
        if form == "html":
            name = "report.html"
            store.write_text(name, render_html(document, evidence, redact=redact))
        elif form == "md":
            name = "report.md"
            store.write_text(name, render_markdown(document, evidence, redact=redact))
        written.append(store.root / name)
    return written

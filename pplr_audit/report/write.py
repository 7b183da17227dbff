"""Puts findings and reports into the run directory: checked against their schemas first, the reports last."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pplr_audit.errors import InputError
from pplr_audit.report.findings.redaction import redacted
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.runs.atomic import make_private_folder, write_whole
from pplr_audit.runs.documents import Document, validate, validate_evidence
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.store import Store, as_json

FINDINGS, EVIDENCE = "findings.json", "evidence.json"
FILES = {"html": "report.html", "md": "report.md", "json": FINDINGS}
REDACTED = "findings.redacted.json"
"""File of the format json where it is redacted: the run keeps its findings."""


def write_documents(store: Store, document: dict[str, Any], evidence: dict[str, Any]) -> None:
    """Write findings and evidence; they are the run's own, and never redacted."""
    validate(document)
    validate_evidence(evidence)
    reach("report")
    store.write_json(FINDINGS, document)
    store.write_json(EVIDENCE, evidence)


def read_documents(store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    """Findings and evidence of a run.

    Raises InputError that names the file and what in it cannot be.
    """
    document, evidence = store.read_json(FINDINGS), store.read_json(EVIDENCE)
    validate(document, str(store.root / FINDINGS))
    validate_evidence(evidence, str(store.root / EVIDENCE))
    return document, evidence


def write_reports(
    store: Store, document: Document, evidence: Document, formats: Sequence[str], *, redact: bool
) -> list[Path]:
    """Write the report in each of ``formats`` (html, md, json) and return its files.

    With ``redact`` those that are there in other formats are written again, too: none of them is left as it was.
    """
    there = [form for form in ("html", "md") if redact and form not in formats and store.exists(FILES[form])]
    for name, text in reports(document, evidence, [*formats, *there], redact=redact):
        if name != FINDINGS:
            store.write_text(name, text)
    return [store.root / _name(form, redact) for form in formats]


def write_elsewhere(folder: Path, files: Iterable[tuple[str, str]]) -> list[Path]:
    """Write `reports` into a folder outside the run and return them. Raises InputError if it cannot be made."""
    written = []
    try:
        make_private_folder(folder.absolute())
    except OSError as error:
        raise InputError(f"--out: {folder}: cannot be made: {error.strerror}") from None
    for name, text in files:
        write_whole(folder, name, text.encode())
        written.append(folder / name)
    return written


def reports(
    document: Document, evidence: Document, formats: Sequence[str], *, redact: bool
) -> Iterator[tuple[str, str]]:
    """The name and the text of the report's file in each of ``formats``."""
    for form in formats:
        if form == "html":
            text = render_html(document, evidence, redact=redact)
        elif form == "md":
            text = render_markdown(document, evidence, redact=redact)
        else:
            text = as_json(redacted(document, evidence)[0] if redact else document)
        yield _name(form, redact), text


def _name(form: str, redact: bool) -> str:
    return REDACTED if redact and form == "json" else FILES[form]

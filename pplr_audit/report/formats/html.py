"""The report as one HTML file: no script, no network, nothing to load."""

from collections.abc import Sequence
from typing import Any

from pplr_audit.report.blocks.content import Section
from pplr_audit.report.findings.redaction import NOTE, redacted
from pplr_audit.report.sections import sections
from pplr_audit.report.sentences.answer import answer
from pplr_audit.report.sentences.claims import Sentence
from pplr_audit.report.sentences.identity import identity
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.runs.documents import Document, judged

VERDICTS = {
    "above": "▲ above the baseline",
    "not_above": "≈ not above the baseline",
    "unmeasured": "✗ not measured",
}


def render_html(findings: Document, evidence: Document, *, redact: bool = False) -> str:
    """Both documents as one page. The same documents give the same bytes.

    Args:
        findings: a valid findings document (``document.validate``).
        evidence: a valid evidence document (``document.validate_evidence``).
        redact: leave out every text that came from data, with a note in its place.
    """
    findings, evidence = _safe(findings, evidence, redact)
    run = findings["run"]
    return render_page(run, identity(run), sections(findings, evidence), answer(findings), redact=redact)


def render_page(
    run: Document, identity: str, sections: Sequence[Section], sentences: Sequence[Sentence] = (), *, redact: bool
) -> str:
    """Render sections as one page, under the answer where there is one.

    Args:
        run: its name and version head the page.
    """
    page: str = (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            identity=identity,
            sentences=sentences,
            sections=sections,
            verdicts=VERDICTS,
            redact=redact,
            redaction_note=NOTE,
        )
    )
    return page.strip() + "\n"


def _safe(findings: Document, evidence: Document, redact: bool) -> tuple[Document, Document]:
    """Redaction comes first: it looks for titles as they were written."""
    findings = judged(findings)
    if redact:
        findings, evidence = redacted(findings, evidence)
    return cleaned(findings), cleaned(evidence)


def _environment() -> Any:
    import jinja2  # here, so that the command line can import this module to print help

    return jinja2.Environment(
        loader=jinja2.PackageLoader("pplr_audit.report.formats"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

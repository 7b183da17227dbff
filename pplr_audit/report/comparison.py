"""Several runs on one page: what updates say by the settings of their trainings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pplr_audit import __version__
from pplr_audit.errors import InputError
from pplr_audit.report.blocks.content import Section
from pplr_audit.report.findings.redaction import redacted
from pplr_audit.report.findings.several_runs import require_comparable
from pplr_audit.report.formats.html import render_page
from pplr_audit.report.formats.markdown import render_section
from pplr_audit.report.sections.several_runs import several_runs
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.report.write import FINDINGS, read_documents
from pplr_audit.runs.documents import Document, judged
from pplr_audit.runs.store import Store

FILES = ("comparison.html", "comparison.md")


@dataclass(frozen=True)
class Comparison:
    """Findings of several runs; redacted where the report of one of them is."""

    documents: Sequence[Document]
    redact: bool

    @property
    def section(self) -> Section:
        """Return what the page shows."""
        return several_runs(self.documents)

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of each file."""
        title, run = f"Comparison of {len(self.documents)} runs", self.documents[0]["run"]
        identity = f"{run['data']['name']}, {run['backbone']} with {run['recommender']} ({run['layers']} blocks)."
        html, markdown = FILES
        yield html, render_page({"name": title, "version": __version__}, identity, [self.section], redact=self.redact)
        yield markdown, f"# {title}\n\n{render_section(self.section)}\n"


def compared(directories: Sequence[Path]) -> Comparison:
    """Read the findings of runs that are to be compared.

    Raises InputError for fewer than two runs, one without findings or attacks on updates, and runs of different data.
    """
    if len(set(directories)) < 2:
        raise InputError("RUN: give the directories of two or more runs to compare")
    read, redact = {}, False
    for directory in dict.fromkeys(directories):
        with Store.load(directory) as store:
            if not store.exists(FINDINGS):
                raise InputError(f"{directory}: it has no findings yet; continue it with pplr-audit run or attack")
            read[str(directory)] = read_documents(store)
            redact = redact or bool(store.manifest.get("redact", False))
    require_comparable({name: document for name, (document, _) in read.items()})
    every = [(judged(document), evidence) for document, evidence in read.values()]
    documents = [redacted(*each)[0] if redact else each[0] for each in every]
    return Comparison([cleaned(document) for document in documents], redact)

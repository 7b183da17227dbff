"""The sections of the report, in reading order. A section that has nothing to show says so instead of vanishing.

Updates, attributes and other trainings are the exceptions: few audits ask for them.
"""

from pplr_audit.report.blocks.content import Section
from pplr_audit.report.sections.appendix import every_finding
from pplr_audit.report.sections.attributes import attributes
from pplr_audit.report.sections.costs import costs
from pplr_audit.report.sections.histories import histories
from pplr_audit.report.sections.leakage import leakage
from pplr_audit.report.sections.membership import membership
from pplr_audit.report.sections.method import method, reproduce
from pplr_audit.report.sections.threat import threat
from pplr_audit.report.sections.training import training
from pplr_audit.report.sections.trainings import trainings
from pplr_audit.report.sections.updates import updates
from pplr_audit.report.sections.utility import utility
from pplr_audit.runs.documents import Document


def sections(findings: Document, evidence: Document) -> tuple[Section, ...]:
    """Everything under the answer."""
    return (
        threat(findings),
        leakage(findings),
        *updates(findings),
        histories(evidence),
        *attributes(findings),
        membership(findings, evidence),
        utility(findings),
        *trainings(findings),
        costs(findings),
        training(findings, evidence),
        method(findings),
        every_finding(findings),
        reproduce(findings),
    )

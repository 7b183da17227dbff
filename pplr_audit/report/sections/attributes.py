"""Section on attributes: what the crossing tells of users, next to what client and items alone tell."""

from typing import Any

from pplr_audit.report.blocks.content import Section, Table, Text, labels, numbers
from pplr_audit.report.findings.series import Finding, is_measured, overall, series, value_cell
from pplr_audit.report.words.quantities import MISSING, number
from pplr_audit.report.words.vocabulary import cut_words
from pplr_audit.runs.documents import Document

LEAD = (
    "An attack learns an attribute from users of whom it is known and tells it of the others; everyone is asked for "
    "once, and never by who learned from them. Beside its area under the ROC curve stand three that see nothing of "
    "what crosses: the majority (the commonest value, said of everyone, ranks nobody), the client alone, and the bag "
    "of items, which is the same classifier on the user's true items. An attack above the bag of items would say that "
    "activations tell more of a user than its items do; below it, that who reads the items learns more of the user."
)
MAJORITY = 0.5
"""The area where all are given the same score."""


def attributes(findings: Document) -> tuple[Section, ...]:
    """The areas side by side; no section where none was measured."""
    rows = [row for row in overall(findings["findings"]) if row["secret"] == "attribute" and row["metric"] == "auc"]
    groups: dict[tuple[str, str], list[Finding]] = {}
    for row in filter(is_measured, rows):
        groups.setdefault((str(row["detail"].get("attribute", MISSING)), row["channel"]), []).append(row)
    body = tuple(
        (
            *labels(s.label, *group, cut_words(row["cut"])),
            value_cell(row),
            *numbers(number("auc", MAJORITY), _beside(row, "client_auc"), _beside(row, "bag_of_items_auc")),
        )
        for group, own in groups.items()
        for s in series(own)
        for row in s.rows
    )
    if not body:
        return ()
    columns = ("attack", "attribute", "channel", "cut", "attack's auc", "majority", "client alone", "bag of items")
    caption = "Area under the ROC curve, one value against the others; the attack's with 95% interval and baseline."
    return (Section("attributes", "What users are", (Text(LEAD), Table(caption, columns, body, headers=2))),)


def _beside(row: Finding, name: str) -> str:
    value: Any = row["detail"].get(name)
    return number("auc", value) if isinstance(value, int | float) else MISSING

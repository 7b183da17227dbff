"""Section on attributes: what the crossing tells of users, next to what client and items alone tell."""

from typing import Any

from pplr_audit.report.blocks.content import Section, Table, Text, labels, numbers
from pplr_audit.report.findings.series import Finding, is_measured, overall, series, value_cell
from pplr_audit.report.words.quantities import MISSING, number
from pplr_audit.report.words.vocabulary import cut_words
from pplr_audit.runs.documents import Document

LEAD = (
    "An attack learns an attribute from users whose value is known and guesses it for the others. Every user is "
    "guessed once, by a classifier that did not learn from this user. The area under the ROC curve is shown beside "
    "three others that see nothing of what crosses: the majority (everyone gets the most common value), the client "
    "alone, and the bag of items (the same classifier on the user's true items). An attack above the bag of items "
    "means that activations tell more about a user than the items do. An attack below it means that an adversary "
    "learns more by reading the items."
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

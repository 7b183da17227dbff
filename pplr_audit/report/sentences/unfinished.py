"""Attacks that ended without a value though they applied: what the terminal says of them, with the reason."""

from pplr_audit.report.words.vocabulary import STATUS
from pplr_audit.runs.documents import Document

ENDED = ("failed", "budget_exhausted")
MOST = 3
"""Reasons that are told; the others are counted."""


def unfinished(document: Document) -> list[str]:
    """Return a sentence for each attack, channel and reason, the first ones."""
    cells: dict[tuple[str, str, str, str], set[str]] = {}
    for row in document.get("findings", ()):
        if row["status"] in ENDED:
            reason = str(row["detail"].get("reason", "no reason is known"))
            cut = f"{row['cut']} {row['round']} {row['adversary']}"
            cells.setdefault((row["attack"], row["channel"], STATUS[row["status"]], reason), set()).add(cut)
    told = [_sentence(*key, len(cuts)) for key, cuts in cells.items()]
    more = len(told) - MOST
    return [*told[:MOST], *([f"{more} more reasons are in the report."] if more > 0 else [])]


def _sentence(attack: str, channel: str, status: str, reason: str, cells: int) -> str:
    times = "" if cells == 1 else f" in {cells} cells"
    return f"{attack} on {channel}{times}: {status}: {reason.rstrip('.')}."

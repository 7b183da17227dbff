"""What is said of intervals over few users, which may miss their level."""

from pplr_audit.report.findings.details import covered_of
from pplr_audit.report.findings.series import distinct, is_measured
from pplr_audit.report.words.quantities import percent
from pplr_audit.runs.documents import Document


def narrow_intervals(findings: Document) -> list[str]:
    """One sentence for the metrics whose findings say it; nothing where none does."""
    rows = [row for row in findings.get("findings", ()) if is_measured(row) and covered_of(row["detail"])]
    if not rows:
        return []
    told = [ends for row in rows if (ends := covered_of(row["detail"]))]
    low, high = min(ends[0] for ends in told), max(ends[1] for ends in told)
    least = min(row["n"] for row in rows)
    return [
        f"Few users ({least:,}): 95% intervals of {', '.join(distinct(rows, 'metric'))} over so few may be too narrow. "
        f"In simulations they held the truth in {percent(low)} to {percent(high)} of the cases."
    ]

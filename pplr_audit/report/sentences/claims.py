"""Findings in words: who does what, with which interval, next to which baseline, and what that is worth.

The words keep to what was measured. A number above its baseline is a leak; one that is not shows only what the tested
attacks could not do.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pplr_audit.report.blocks.content import listed
from pplr_audit.report.findings.series import Finding, above_baseline, clear_of_baseline, hardest, is_measured, reason
from pplr_audit.report.words.quantities import interval, number
from pplr_audit.report.words.vocabulary import COMPARED, STATUS, metric_claim, secret_words


@dataclass(frozen=True)
class Sentence:
    """One part of the answer. Verdicts: ``above``, ``not_above`` (the baseline), ``unmeasured``, ``price``."""

    topic: str
    text: str
    verdict: str


def claim(row: Finding) -> str:
    """Say who does what, with which attack on which channel."""
    mode = f" ({row['detail']['mode']})" if "mode" in row["detail"] else ""
    who = row["adversary"].replace("_", " ")
    how = f"attack {row['attack']}{mode} on {row['channel']}"
    return f"the {who} {metric_claim(row['metric'], value(row))} ({beside_baseline(row)}; {how})"


def amount(row: Finding) -> str:
    """Value, interval, and how they stand to the baseline."""
    return f"{value(row)} ({beside_baseline(row)})"


def value(row: Finding) -> str:
    """Value and interval."""
    return f"{number(row['metric'], row['value'])} {interval(row['metric'], row['ci'])}"


def beside_baseline(row: Finding) -> str:
    """The baseline, and whether the value stands clear of it and of all else that it is compared with."""
    baseline = f"baseline {number(row['metric'], row['baseline'])}"
    if above_baseline(row):
        return baseline
    if clear_of_baseline(row):
        return f"above the {baseline} by itself, not as the best of the {row['corrected']['over']} that it is one of"
    below = row["ci"][1] < row["baseline"]
    at = hardest(row)
    if at is None or at[1] == row["baseline"]:
        what = f"the {baseline}"
    else:
        what = f"{COMPARED.get(at[0], at[0])}, {number(row['metric'], at[1])}"
        below = any(each["name"] == at[0] and each["difference_ci"][1] < 0 for each in row["comparisons"])
    return f"below {what}" if below else f"not distinguishable from {what}"


def unmeasured(rows: Sequence[Finding], secret: str, topic: str) -> Sentence:
    """Write the sentence about a secret without a single value."""
    about = secret_words(secret)
    if not rows:
        return Sentence(
            topic, f"No attack on {about} was part of this audit, so it says nothing about it.", "unmeasured"
        )
    why = reason(rows[0]) or "none"
    text = f"No attack on {about} gave a value ({statuses(rows)}). This does not mean 0. First reason given: {why}."
    return Sentence(topic, text.replace("..", "."), "unmeasured")


def statuses(rows: Sequence[Finding]) -> str:
    """Count the findings by status, in words."""
    return listed([f"{n} {STATUS[status]}" for status, n in sorted(Counter(row["status"] for row in rows).items())])


def hedge(rows: Sequence[Finding], shown: Sequence[Finding]) -> str:
    """Say what a figure does not show, and among how many findings a verdict was reached."""
    attacks = len({(row["attack"], str(row["detail"].get("mode"))) for row in rows if is_measured(row)})
    above = [row for row in shown if above_baseline(row)]
    if not above:
        return "No tested attack exceeded the baseline; one that was not tested may."
    tried = (
        "Only one attack was tried; a better one may do more."
        if attacks == 1
        else f"This is the strongest of {attacks} attacks tried; a better one may do more."
    )
    over = max(row["corrected"]["over"] if "corrected" in row else 1 for row in above)
    return f"{tried} It stays above the baseline after correction for all {over} findings." if over > 1 else tried


def verdict(rows: Sequence[Finding], among: int = 1) -> str:
    """Return ``above`` if any of these stands above its baseline; ``among`` as of `above_baseline`."""
    return "above" if any(above_baseline(row, among) for row in rows) else "not_above"

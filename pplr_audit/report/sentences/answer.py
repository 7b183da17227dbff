"""The answer in plain sentences, computed from the findings: what can be read, who can be recognized, at what price."""

from collections.abc import Sequence

from pplr_audit.report.findings.series import (
    Finding,
    distinct,
    first_defense,
    headline,
    is_measured,
    overall,
    strongest,
)
from pplr_audit.report.sentences.claims import (
    Sentence,
    beside_baseline,
    claim,
    hedge,
    statuses,
    unmeasured,
    value,
    verdict,
)
from pplr_audit.report.sentences.leakage import reading
from pplr_audit.report.sentences.price import utility_sentence, wire_sentence
from pplr_audit.report.words.vocabulary import SECRETS, cut_words, metric_claim
from pplr_audit.runs.documents import Document


def answer(findings: Document) -> tuple[Sentence, ...]:
    """Write the answer: what the server can read, who can be recognized, what it costs; then further secrets and
    defenses.
    """
    rows = overall(findings["findings"])
    defense = first_defense(rows)
    of_defense = [row for row in rows if row["defense"] == defense]
    sentences = [
        reading(findings["run"], [row for row in of_defense if row["secret"] == secret], secret)
        for secret in dict.fromkeys(["history", *(s for s in _secrets(rows) if s != "membership")])
    ]
    sentences.append(_membership([row for row in of_defense if row["secret"] == "membership"]))
    sentences += [_defended(rows, other) for other in distinct(rows, "defense") if other != defense]
    price = f"{wire_sentence(findings)} {utility_sentence(findings)}"
    return (*sentences, Sentence("Cost and utility", price, "price"))


def _secrets(rows: Sequence[Finding]) -> list[str]:
    """Return the secrets of the findings in the order of the vocabulary, then new ones."""
    found = distinct(rows, "secret")
    return [*(s for s in SECRETS if s in found), *(s for s in found if s not in SECRETS)]


def _membership(rows: Sequence[Finding]) -> Sentence:
    """The strongest attack on membership anywhere, and what it finds at the fewest false alarms that were resolved."""
    topic = "Recognizing members"
    metric = headline(rows, "membership")
    if metric is None:
        return unmeasured(rows, "membership", topic)
    of_metric = [row for row in rows if row["metric"] == metric]
    found = strongest(of_metric)
    assert found is not None  # a headline metric has a measured row
    text = f"Telling users who were trained on from users who were not, {claim(found)}"
    tails = [row for row in rows if is_measured(row) and row["metric"].startswith("tpr@") and _same_attack(row, found)]
    if tails and metric == "auc":
        tail = min(tails, key=lambda row: float(row["metric"].partition("@")[2]))
        text += f"; it {metric_claim(tail['metric'], value(tail))} ({beside_baseline(tail)})"
    return Sentence(topic, f"{text}. {hedge(of_metric, [found])}", verdict([found]))


def _same_attack(row: Finding, other: Finding) -> bool:
    """True if both are of one attack with the same settings and mode, at the same place."""
    fields = ("attack", "channel", "cut", "adversary", "knowledge", "round", "client", "defense", "adaptive")
    told = ("mode", "settings")
    return all(row[f] == other[f] for f in fields) and all(row["detail"].get(t) == other["detail"].get(t) for t in told)


def _defended(rows: Sequence[Finding], defense: str) -> Sentence:
    """The worst that was measured under a defense, for each secret."""
    parts, worst = [], []
    for secret in _secrets(rows):
        mine = [row for row in rows if row["defense"] == defense and row["secret"] == secret]
        metric = headline(mine, secret)
        found = strongest(row for row in mine if row["metric"] == metric)
        if found is not None:
            worst.append(found)
            at = f"At {cut_words(found['cut'])} " if found["cut"] else ""
            parts.append(f"{secret}: {at}{claim(found)}")
        elif mine:
            parts.append(f"{secret}: no value ({statuses(mine)})")
    text = f"The most that was measured under this defense. {'. '.join(parts)}."
    return Sentence(f"Defense {defense}", text, verdict(worst, len(worst)) if worst else "unmeasured")

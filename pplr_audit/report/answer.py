"""The answer in plain sentences, computed from the findings: what can be read, who can be recognized, at what price.

The words keep to what was measured. A number above its baseline is a leak; one that is not shows only what the tested
attacks could not do.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pplr_audit.report.cells import (
    Finding,
    above_baseline,
    depths,
    distinct,
    first_defense,
    headline,
    is_measured,
    overall,
    reason,
    strongest,
    strongest_by_depth,
)
from pplr_audit.report.content import listed
from pplr_audit.report.document import Document
from pplr_audit.report.price import utility_sentence, wire_sentence
from pplr_audit.report.quantities import interval, number
from pplr_audit.report.vocabulary import SECRETS, STATUS, cut_words, metric_claim


@dataclass(frozen=True)
class Sentence:
    """One part of the answer. Verdicts: ``above``, ``not_above`` (the baseline), ``unmeasured``, ``price``."""

    topic: str
    text: str
    verdict: str


def answer(findings: Document) -> tuple[Sentence, ...]:
    """What the server can read, who can be recognized, what it costs; one more for each further secret and defense."""
    rows = overall(findings["findings"])
    defense = first_defense(rows)
    of_defense = [row for row in rows if row["defense"] == defense]
    secrets = ["history", *(s for s in ("label", "attribute") if s in distinct(rows, "secret"))]
    sentences = [_reading(findings["run"], of_defense, secret) for secret in secrets]
    sentences.append(_membership([row for row in of_defense if row["secret"] == "membership"]))
    sentences += [_defended(rows, other) for other in distinct(rows, "defense") if other != defense]
    price = f"{wire_sentence(findings)} {utility_sentence(findings)}"
    return (*sentences, Sentence("Cost and utility", price, "price"))


def _reading(run: Document, rows: Sequence[Finding], secret: str) -> Sentence:
    """What is read at the shallowest cut, the one that ran, and the deepest."""
    topic = {"history": "Reading histories", "label": "Reading the next item"}.get(secret, f"Reading the {secret}")
    rows = [row for row in rows if row["secret"] == secret]
    metric = headline(rows, secret)
    if metric is None:
        return _unmeasured(rows, secret, topic)
    rows = [row for row in rows if row["metric"] == metric]
    side = "front" if any(row["cut"] and row["cut"]["front"] is not None for row in rows) else "back"
    best = strongest_by_depth(rows, side)
    if not best:
        found = strongest(rows)
        assert found is not None  # a headline metric has a measured row
        return Sentence(topic, f"Wherever the cut is, {_claim(found)}. {_hedge(rows, [found])}", _verdict([found]))
    shallow, deep, ran = min(best), max(best), run["cut"][side]
    held = [_held(depth, side, run) for depth in (shallow, ran, deep)]
    parts = [f"With {held[0]} on the client, {_claim(best[shallow])}"]
    if ran in best and ran not in (shallow, deep):
        parts.append(f"with {held[1]}, {_amount(best[ran])}")
    if deep != shallow:
        parts.append(f"with {held[2]}, {_amount(best[deep])}")
    more = [_trend(best[shallow], best[deep])] if deep != shallow else []
    letter = "k" if side == "front" else "m"
    peak = max(best, key=lambda k: best[k]["value"])
    if best[peak]["value"] > max(best[shallow]["ci"][1], best[deep]["ci"][1]):
        more.append(f"The most is read at {letter}={peak}: {_amount(best[peak])}.")
    gaps = [k for k in depths(row for row in rows if row["cut"] and row["cut"][side] is not None) if k not in best]
    if gaps:
        more.append(_gaps(rows, side, gaps))
    shown = list(best.values())
    return Sentence(topic, " ".join([f"{'; '.join(parts)}.", *more, _hedge(rows, shown)]), _verdict(shown))


def _membership(rows: Sequence[Finding]) -> Sentence:
    """The strongest attack on membership anywhere, and what it finds at the fewest false alarms that were resolved."""
    topic = "Recognizing members"
    metric = headline(rows, "membership")
    if metric is None:
        return _unmeasured(rows, "membership", topic)
    of_metric = [row for row in rows if row["metric"] == metric]
    found = strongest(of_metric)
    assert found is not None  # a headline metric has a measured row
    text = f"Telling users who were trained on from users who were not, {_claim(found)}"
    tails = [row for row in rows if is_measured(row) and row["metric"].startswith("tpr@") and _same_attack(row, found)]
    if tails and metric == "auc":
        tail = min(tails, key=lambda row: float(row["metric"].partition("@")[2]))
        text += f"; it {metric_claim(tail['metric'], _measured(tail))} ({_beside_baseline(tail)})"
    return Sentence(topic, f"{text}. {_hedge(of_metric, [found])}", _verdict([found]))


def _same_attack(row: Finding, other: Finding) -> bool:
    fields = ("attack", "channel", "cut", "adversary", "knowledge", "round", "client")
    return all(row[f] == other[f] for f in fields) and row["detail"].get("mode") == other["detail"].get("mode")


def _defended(rows: Sequence[Finding], defense: str) -> Sentence:
    """The worst that was measured under a defense, for each secret."""
    parts, worst = [], []
    for secret in SECRETS:
        mine = [row for row in rows if row["defense"] == defense and row["secret"] == secret]
        metric = headline(mine, secret)
        found = strongest(row for row in mine if row["metric"] == metric)
        if found is not None:
            worst.append(found)
            at = f"At {cut_words(found['cut'])} " if found["cut"] else ""
            parts.append(f"{secret}: {at}{_claim(found)}")
        elif mine:
            parts.append(f"{secret}: no value ({_statuses(mine)})")
    text = f"The most that was measured under this defense. {'. '.join(parts)}."
    return Sentence(f"Defense {defense}", text, _verdict(worst) if worst else "unmeasured")


def _unmeasured(rows: Sequence[Finding], secret: str, topic: str) -> Sentence:
    about = f"{secret} ({SECRETS[secret]})"
    if not rows:
        return Sentence(
            topic, f"No attack on {about} was part of this audit, so it says nothing about it.", "unmeasured"
        )
    why = reason(rows[0]) or "none"
    text = (
        f"No attack on {about} gave a value ({_statuses(rows)}): that is not a finding of 0. First reason given: {why}."
    )
    return Sentence(topic, text.replace("..", "."), "unmeasured")


def _statuses(rows: Sequence[Finding]) -> str:
    return listed([f"{n} {STATUS[status]}" for status, n in sorted(Counter(row["status"] for row in rows).items())])


def _gaps(rows: Sequence[Finding], side: str, gaps: Sequence[int]) -> str:
    """Depths without a value, and why: nothing to read there is another matter than an attack that failed."""
    at = [row for row in rows if row["cut"] and row["cut"][side] in gaps]
    letter = "k" if side == "front" else "m"
    why = f"{STATUS[at[0]['status']]}: {reason(at[0])}".rstrip(".")
    return f"No attack gave a value at {listed([f'{letter}={k}' for k in gaps])} ({why}); that is not a finding of 0."


def _held(depth: int, side: str, run: Document) -> str:
    here = ", the cut that ran" if depth == run["cut"][side] else ""
    if side == "back":
        return f"{depth} of {run['layers']} blocks at the back (m={depth}{here})"
    if depth == 0:
        return f"only the embeddings (k=0{here})"
    return f"{depth} of {run['layers']} blocks in front (k={depth}{here})"


def _claim(row: Finding) -> str:
    """Who does what, with which attack on which channel."""
    mode = f" ({row['detail']['mode']})" if "mode" in row["detail"] else ""
    who = row["adversary"].replace("_", " ")
    how = f"attack {row['attack']}{mode} on {row['channel']}"
    return f"the {who} {metric_claim(row['metric'], _measured(row))} ({_beside_baseline(row)}; {how})"


def _amount(row: Finding) -> str:
    """Value, interval, and how they stand to the baseline."""
    return f"{_measured(row)} ({_beside_baseline(row)})"


def _measured(row: Finding) -> str:
    return f"{number(row['metric'], row['value'])} {interval(row['metric'], row['ci'])}"


def _beside_baseline(row: Finding) -> str:
    baseline = f"baseline {number(row['metric'], row['baseline'])}"
    if above_baseline(row):
        return baseline
    return f"below the {baseline}" if row["ci"][1] < row["baseline"] else f"not distinguishable from the {baseline}"


def _trend(shallow: Finding, deep: Finding) -> str:
    if not above_baseline(deep):
        return (
            "At the deepest cut measured no tested attack exceeded the baseline."
            if above_baseline(shallow)
            else "Neither exceeds its baseline."
        )
    if deep["ci"][1] < shallow["ci"][0]:
        return "Keeping more blocks on the client lowers it and does not end it."
    if deep["ci"][0] > shallow["ci"][1]:
        return "Keeping more blocks on the client did not lower it."
    return "Keeping more blocks on the client does not measurably lower it."


def _hedge(rows: Sequence[Finding], shown: Sequence[Finding]) -> str:
    attacks = len({(row["attack"], row["detail"].get("mode")) for row in rows if is_measured(row)})
    if not any(above_baseline(row) for row in shown):
        return "No tested attack exceeded the baseline; one that was not tested may."
    return (
        "Only one attack was tried; a better one may do more."
        if attacks == 1
        else (f"This is the strongest of {attacks} attacks tried; a better one may do more.")
    )


def _verdict(rows: Sequence[Finding]) -> str:
    return "above" if any(above_baseline(row) for row in rows) else "not_above"

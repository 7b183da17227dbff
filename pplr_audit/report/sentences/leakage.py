"""Sentences on what an adversary reads of a secret: by depth in front and behind, by channel, in serving.

At a cut the strongest attack counts, on whichever channel: what crosses on one side of the trunk may carry what the
other side does not.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist

from pplr_audit.report.blocks.content import listed
from pplr_audit.report.findings.by_cut import (
    SIDES,
    Pair,
    Side,
    measured,
    said,
    sides_of,
    speaker,
    speakers,
    speakers_along,
    where,
)
from pplr_audit.report.findings.series import (
    Finding,
    above_baseline,
    distinct,
    headline,
    is_measured,
    reason,
    strongest,
)
from pplr_audit.report.sentences.claims import Sentence, amount, claim, hedge, unmeasured, verdict
from pplr_audit.report.words.vocabulary import KNOWLEDGE, STATUS, learned_words, phase
from pplr_audit.runs.documents import Document

TOPICS = {
    "history": "Reading histories", "label": "Reading the next item", "items": "Reading a client's items",
    "targets": "Reading a client's next items", "owner": "Naming whose update it is",
    "recommendation": "Reading what was recommended",
}  # fmt: skip


def reading(run: Document, rows: Sequence[Finding], secret: str) -> Sentence:
    """Write the sentence on one secret under one defense: the finding, and what it does not show."""
    topic = TOPICS.get(secret, f"Reading the {secret}")
    metric = headline(rows, secret)
    if metric is None:
        return unmeasured(rows, secret, topic)
    rows = [row for row in rows if row["metric"] == metric]
    phases = [[row for row in rows if phase(row["channel"]) == name] for name in ("training", "serving")]
    first, served = phases if any(map(is_measured, phases[0])) else (phases[1], [])
    sides = sides_of(first, run["layers"])
    over = measured(speakers(first, run["layers"]))
    if not sides or not over:
        found = strongest(rows)
        assert found is not None  # a headline metric has a measured row
        return Sentence(topic, f"Wherever the cut is, {claim(found)}. {hedge(rows, [found])}", verdict([found]))
    if len(sides) == 1:
        along = speakers_along(first, sides[0], run)
        parts, shown = _by_depth(along, sides[0], run), [*measured(along).values()]
    else:
        parts, shown = [*_over_cuts(first, run), *_channels(first, run)], [*over.values()]
    parts += _serving(served, run)
    text = " ".join([*parts, hedge(rows, shown), *_needed(shown)])
    if first is not phases[0]:
        text = f"When the trained model serves: {text[0].lower()}{text[1:]}"
    return Sentence(topic, text, verdict(shown))


def _by_depth(found: Mapping[Pair, Finding], side: Side, run: Document) -> list[str]:
    """The shallowest cut, the one that ran and the deepest; the trend, the peak, and depths without a value."""
    best = measured(found)
    at = SIDES.index(side)
    depths = {cut[at]: row for cut, row in best.items()}
    shallow, deep, ran = min(depths), max(depths), run["cut"][side]
    parts = [f"With {_held(shallow, side, run)} on the client, {claim(depths[shallow])}"]
    if ran in depths and ran not in (shallow, deep):
        parts.append(f"with {_held(ran, side, run)}, {amount(depths[ran])}")
    if deep != shallow:
        parts.append(f"with {_held(deep, side, run)}, {amount(depths[deep])}")
    more = [_trend(depths, side)] if deep != shallow else []
    peak = max(best, key=lambda cut: float(best[cut]["value"]))
    if best[peak]["value"] > max(depths[shallow]["ci"][1], depths[deep]["ci"][1]):
        more.append(f"The most is read at {said(peak, [side])}: {amount(best[peak])}.")
    return [f"{'; '.join(parts)}.", *more, *_gaps(found, [side])]


def _over_cuts(rows: Sequence[Finding], run: Document) -> list[str]:
    """Describe leakage where both sides matter: the cut that ran, and the cuts that give away most and least."""
    found = speakers(rows, run["layers"])
    best = measured(found)
    ran = (run["cut"]["front"], run["cut"]["back"])
    start = ran if ran in best else min(best)
    here = ", the cut that ran" if start == ran else ""
    parts = [f"With k={start[0]} blocks in front and m={start[1]} at the back{here}, {claim(best[start])}."]
    least, most = (pick(best, key=lambda cut: (above_baseline(best[cut]), best[cut]["value"])) for pick in (min, max))
    if best[least]["value"] == best[most]["value"]:
        parts.append(f"It is as much at each of the {len(best)} cuts (k, m) with a value.")
    else:
        parts.append(
            f"Of the {len(best)} cuts (k, m) with a value the most is read at {said(most)}, {amount(best[most])}, "
            f"the least at {said(least)}, {amount(best[least])}."
        )
    # Without a trunk no activations cross, and what updates, models and losses tell there was not measured: no gap.
    return [*parts, *_gaps({cut: row for cut, row in found.items() if sum(cut) < run["layers"]}, SIDES)]


def _channels(rows: Sequence[Finding], run: Document) -> list[str]:
    """Each channel by itself at the cut that ran, where several carry the secret."""
    ran = (run["cut"]["front"], run["cut"]["back"])
    found = {
        channel: speaker([row for row in rows if row["channel"] == channel], ran, run["layers"])
        for channel in distinct([row for row in rows if is_measured(row)], "channel")
    }
    told = [f"{channel} {amount(row)} by {row['attack']}" for channel, row in found.items() if row and is_measured(row)]
    if len(told) < 2:
        return []
    return [f"Channel by channel, at the cut that ran: {listed(told)}."]


def _serving(rows: Sequence[Finding], run: Document) -> list[str]:
    """Describe leakage while the trained model serves, from the shallowest to the deepest cut."""
    best: dict[Pair, Finding] = {}
    for side in sides_of(rows, run["layers"]):
        best |= measured(speakers_along(rows, side, run))
    if not best:
        return []
    sides = sides_of(rows, run["layers"])
    ends = dict.fromkeys([min(best), max(best)])
    return [f"When the trained model serves: {listed([f'{amount(best[cut])} at {said(cut, sides)}' for cut in ends])}."]


def _needed(shown: Sequence[Finding]) -> list[str]:
    """Say what the adversaries of these findings had to know."""
    known: dict[str, None] = {}
    for row in shown:
        weights, text = KNOWLEDGE.get(row["knowledge"], ""), learned_words(row["detail"])
        learned = f"to learn from, {text}" if text else ""
        if weights or learned:
            known[" and, ".join(filter(None, (weights, learned)))] = None
    return [f"What the adversary had to know besides, at most: {'; or '.join(known)}."] if known else []


def _gaps(found: Mapping[Pair, Finding], sides: Sequence[Side]) -> list[str]:
    """Depths without a value, and why: nothing to read there is another matter than an attack that failed."""
    gaps = {cut: row for cut, row in found.items() if not is_measured(row)}
    if not gaps:
        return []
    row = next(iter(gaps.values()))
    why = f"{STATUS[row['status']]}: {reason(row)}".rstrip(".")
    places = listed([said(cut, sides) for cut in gaps]) if len(sides) == 1 else where([*gaps])
    return [f"No attack gave a value at {places} ({why}); this does not mean 0."]


def _held(depth: int, side: Side, run: Document) -> str:
    here = ", the cut that ran" if depth == run["cut"][side] else ""
    if side == "back":
        return f"{depth} of {run['layers']} blocks at the back (m={depth}{here})"
    if depth == 0:
        return f"only the embeddings (k=0{here})"
    return f"{depth} of {run['layers']} blocks in front (k={depth}{here})"


def _trend(depths: Mapping[int, Finding], side: Side) -> str:
    """Say where leakage falls from depth to depth, from where on it no longer does, and where it ends."""
    order, letter = sorted(depths), {"front": "k", "back": "m"}[side]
    above = [depth for depth in order if above_baseline(depths[depth])]
    if not above:
        return (
            "Neither exceeds its baseline." if len(order) == 2 else "At none of the depths does it exceed its baseline."
        )
    ends = _end(order, above[-1], letter)
    falls, rises, since = _changes(depths, letter)
    risen = f" It rises {listed(rises)}." if rises else ""
    if ends:
        fallen = f" Keeping more blocks on the client lowers it {listed(falls)}." if falls else ""
        return f"{ends}{fallen}{risen}"
    changed = since != order[-1] and (falls or rises)
    rest = f" Beyond {letter}={since} there is no further visible change." if changed else ""
    if not falls:
        return f"Keeping more blocks on the client does not measurably lower it.{risen}{rest}"
    return f"Keeping more blocks on the client lowers it {listed(falls)} and does not end it.{risen}{rest}"


def _end(order: Sequence[int], last: int, letter: str) -> str:
    """Say from where on nothing was read; nothing where the deepest cut is above its baseline."""
    beyond = [depth for depth in order if depth > last]
    if not beyond:
        return ""
    if len(beyond) == 1:
        return "At the deepest cut measured no tested attack exceeded the baseline."
    return f"From {letter}={beyond[0]} on no tested attack exceeded the baseline."


def _changes(depths: Mapping[int, Finding], letter: str) -> tuple[list[str], list[str], int]:
    """Where leakage visibly falls, where it rises, and the depth of the last change."""
    order = sorted(depths)
    falls, rises, since, wider = list[str](), list[str](), order[0], _wider(len(order) - 1)
    for depth in order[1:]:
        (low, high), (before_low, before_high) = (_ends(depths[at], wider) for at in (depth, since))
        if high < before_low or low > before_high:
            (falls if high < before_low else rises).append(f"from {letter}={since} to {letter}={depth}")
            since = depth
    return falls, rises, since


def _wider(comparisons: int) -> float:
    """Return the factor that stretches 95 % intervals so that, of so many pairs without a difference, two come apart in
    at most 5 % of audits (Bonferroni). Two intervals as they are come apart where the difference is beyond 1.96 √2 of
    its standard errors, which is enough for eight pairs.
    """
    normal = NormalDist()
    return max(1.0, normal.inv_cdf(1 - 0.025 / comparisons) / (sqrt(2) * normal.inv_cdf(0.975)))


def _ends(row: Finding, wider: float) -> tuple[float, float]:
    """The ends of a finding's interval, each so many times as far from the value."""
    value, (low, high) = row["value"], row["ci"]
    return value - wider * (value - low), value + wider * (high - value)

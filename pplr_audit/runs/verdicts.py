"""Findings corrected for all that a sentence speaks for: those of one secret, by one metric, under one defense.

That is the widest a sentence goes: "the strongest of 24 attacks" is picked among attacks, modes, channels, cuts, rounds
and adversaries, and never among secrets, metrics or defenses without naming each.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring.influence import Influence
from pplr_audit.scoring.intervals import NO_SPREAD, proportion_interval
from pplr_audit.scoring.verdicts import ALPHA, Claim, agreeing, corrected, simultaneous_level, variance_of

Row = Mapping[str, Any]
SIGNED = frozenset({"kendall_tau"})
"""Metrics from -1 to 1; of others nothing is known but that shares lie between 0 and 1."""


def key(row: Row) -> str:
    """Return the key of a finding in its cell's per-user scores: its metric and mode."""
    return f"{row['metric']}/{row['detail'].get('mode', '')}"


def family(row: Row) -> tuple[str, str, str, str]:
    """Return the family of findings that a sentence with this one speaks for."""
    return row["secret"], row["metric"], row["defense"], str(row["detail"].get("attribute", ""))


def with_verdicts(cells: Sequence[Row], *, seed: int) -> list[dict[str, Any]]:
    """The findings of all cells, with ``corrected`` in each that has a value.

    Args:
        cells: as ``run_cell`` answers, also of an earlier version, which kept no influences: Holm's correction then.
        seed: the scenario's.
    """
    told = [(row, cell.get("influence", {}).get(key(row))) for cell in cells for row in cell["findings"]]
    return _judged(told, derive(seed, "verdicts") % 2**32)


def judged(document: Row) -> dict[str, Any]:
    """A findings document in which all findings are corrected; those of an earlier version are by Holm."""
    return {**document, "findings": _all_judged(document["findings"])}


def _all_judged(rows: Iterable[Row]) -> list[dict[str, Any]]:
    rows = [*rows]
    if all("corrected" in row for row in rows if row["status"] == "ok"):
        return [dict(row) for row in rows]
    return [
        {**given, "corrected": given.get("corrected", found["corrected"])} if "corrected" in found else found
        for given, found in zip(rows, _judged([(row, None) for row in rows], 0), strict=True)
    ]


def _judged(told: Sequence[tuple[Row, Row | None]], seed: int) -> list[dict[str, Any]]:
    found = [dict(row) for row, _ in told]
    families: dict[tuple[str, ...], list[int]] = {}
    for place, (row, _) in enumerate(told):
        if row["status"] == "ok":
            families.setdefault(family(row), []).append(place)
    for places in families.values():
        moved = [_influences(told[place][1]) for place in places]
        claims = [Claim(p_of(told[place][0]), each) for place, (_, each) in zip(places, moved, strict=True)]
        level = simultaneous_level([own for own, _ in moved], seed=seed)
        for place, p in zip(places, corrected(claims, seed=seed), strict=True):
            low, high = _interval(*told[place], level)
            ci = [_agreeing(low, told[place][0], p), high]
            found[place]["corrected"] = {"p": p, "ci": ci, "over": len(places)}
    return found


def p_of(row: Row) -> float:
    """The largest p-value of its comparisons; of a finding of an earlier version by its interval and baseline."""
    if row.get("comparisons"):
        return max(float(each["p"]) for each in row["comparisons"])
    gap, half = row["value"] - row["baseline"], row["value"] - row["ci"][0]
    if half <= 0:
        return 1.0 if gap <= 0 else 0.0
    return float(ndtr(-gap / half * float(ndtri(0.975))))


def _influences(kept: Row | None) -> tuple[Influence, tuple[Influence, ...]]:
    """Return the users' influences on the value and on each difference; empty where none were kept."""
    if kept is None:
        return {}, ()
    value, *differences = (
        dict(zip(kept["users"], each, strict=True)) for each in (kept["value"], *kept["differences"])
    )
    return value, tuple(differences)


def _agreeing(low: float, row: Row, p: float) -> float:
    """The low end as the corrected test decides about what is known exactly, such as chance."""
    found = row.get("comparisons", ())
    hardest = max((each["p"] for each in found), default=1.0)
    for each in found:
        if each["ci"][0] == each["ci"][1] and (p <= ALPHA or each["p"] == hardest):
            low = agreeing(low, each["value"], p)
    return low


def _interval(row: Row, kept: Row | None, level: float) -> list[float]:
    """The finding's interval at the level at which those of all findings hold together."""
    value, (low, high) = row["value"], row["ci"]
    wider = float(ndtri((1 + level) / 2) / ndtri(0.975))
    least = -1.0 if row["metric"] in SIGNED else 0.0
    if kept is not None and (variance := variance_of(_influences(kept)[0], kept["independent"])) > NO_SPREAD:
        span = 1.0 - least
        ends = proportion_interval((value - least) / span, variance / span**2, kept["independent"], level)
        low, high = min(low, least + span * ends[0]), max(high, least + span * ends[1])
    low, high = min(low, value - wider * (value - row["ci"][0])), max(high, value + wider * (row["ci"][1] - value))
    return [float(np.clip(low, least, 1.0)), float(np.clip(high, least, 1.0))]

"""The finding that speaks for a cut (k, m): what depends on one side of the cut holds at every depth of the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pplr_audit.report.findings.series import SUM, Finding, is_measured, place, strongest
from pplr_audit.report.words.quantities import ranges
from pplr_audit.report.words.vocabulary import WITHOUT_TRUNK, cut_words
from pplr_audit.runs.documents import Document

Pair = tuple[int, int]
"""A cut that says both sides: blocks kept in front, k, and behind, m."""
Side = Literal["front", "back"]
SIDES: tuple[Side, Side] = ("front", "back")


def holds_at(row: Finding, cut: Pair) -> bool:
    """True if a finding holds at a cut: it names it, or leaves open the sides that it does not depend on."""
    return place(row["cut"]) in _places(cut)


def speaker(rows: Iterable[Finding], cut: Pair, layers: int) -> Finding | None:
    """The strongest finding at a cut; where none has a value, one that was tried there; where none was, nothing.

    What is read wherever the cut is counts at cuts that were audited; by itself it would read as if no more leaked.
    With no block left for the server (k + m = ``layers``) only what crosses all the same counts.
    """
    return _speaker(_by_place(rows), cut, layers)


def speakers(rows: Sequence[Finding], layers: int) -> dict[Pair, Finding]:
    """``speaker`` at every cut of a model of so many blocks, where there is one."""
    index = _by_place(rows)
    cuts = [(k, m) for k in range(layers + 1) for m in range(layers + 1 - k)]
    return {cut: found for cut in cuts if (found := _speaker(index, cut, layers)) is not None}


def rows_at(rows: Iterable[Finding], cut: Pair, layers: int) -> list[Finding]:
    """Return the findings that hold at a cut, those that name none included; with no block left for the server only
    those of what crosses all the same, and those that name that cut.
    """
    return _rows_at(_by_place(rows), cut, layers)


def _rows_at(index: Mapping[Pair, Sequence[Finding]], cut: Pair, layers: int) -> list[Finding]:
    at = [row for each in _places(cut) for row in index.get(each, ())]
    if sum(cut) == layers:
        at = [row for row in at if row["channel"] in WITHOUT_TRUNK or place(row["cut"]) == cut]
    # Whoever is sent each update is sent no sum: that one says what secure aggregation would leave.
    each = {_asked(row) for row in at if row["channel"] == "client_update" and is_measured(row)}
    return [row for row in at if row["channel"] != SUM or _asked(row) not in each]


def _asked(row: Finding) -> tuple[Any, ...]:
    return row["attack"], row["adversary"], row.get("strategy"), row["defense"]


def _speaker(index: Mapping[Pair, Sequence[Finding]], cut: Pair, layers: int) -> Finding | None:
    at = _rows_at(index, cut, layers)
    if sum(cut) != layers and all(row["cut"] is None for row in at):
        return None
    return strongest(at) or next((row for row in at if row["cut"] is not None), None)


def _by_place(rows: Iterable[Finding]) -> dict[Pair, list[Finding]]:
    index: dict[Pair, list[Finding]] = {}
    for row in rows:
        index.setdefault(place(row["cut"]), []).append(row)
    return index


def _places(cut: Pair) -> tuple[Pair, ...]:
    """Return the places of a cut's findings: by both its sides, by one, by none."""
    k, m = cut
    return (k, m), (k, -1), (-1, m), (-1, -1)


def speakers_along(rows: Sequence[Finding], side: Side, run: Document) -> dict[Pair, Finding]:
    """``speaker`` at each depth of one side that findings name, with the other side as it ran; empty where none does.

    Where findings do not name what ran on the other side, it is at the nearest depth that they do name. A depth that
    leaves the server no block beside it is passed over; where the other side does not matter, it just keeps less. A
    depth that was audited only without a trunk is told without one.
    """
    layers, other = run["layers"], _other(side)
    named = [row["cut"] for row in rows if row["cut"] is not None]
    sides = sides_of(rows, layers)
    if side not in sides:
        return {}
    open_ = [cut for cut in named if not is_closed(cut, layers)]
    beside = {cut[other] for cut in open_ if cut[other] is not None}
    audited = {cut[side] for cut in open_}
    held = min(beside or {run["cut"][other]}, key=lambda depth: (abs(depth - run["cut"][other]), depth))
    index, found = _by_place(rows), {}
    for depth in sorted({cut[side] for cut in named if cut[side] is not None}):
        rest = max(0, min(held, layers - 1 - depth)) if depth in audited else layers - depth
        cut = (depth, rest) if side == "front" else (rest, depth)
        row = _speaker(index, cut, layers) if rest == held or len(sides) == 1 else None
        if row is not None:
            found[cut] = row
    return found


def measured(found: Mapping[Pair, Finding]) -> dict[Pair, Finding]:
    """The cuts that have a value."""
    return {cut: row for cut, row in found.items() if is_measured(row)}


def sides_of(rows: Iterable[Finding], layers: int) -> list[Side]:
    """The sides of the cut that some of these findings depend on.

    A cut without a trunk names both sides whatever its attack depends on, so it counts only where there is no other.
    """
    named = [row["cut"] for row in rows if row["cut"] is not None]
    open_ = [cut for cut in named if not is_closed(cut, layers)] or named
    return [side for side in SIDES if any(cut[side] is not None for cut in open_)]


def is_closed(cut: Mapping[str, Any], layers: int) -> bool:
    """True if a named cut leaves no block for the server."""
    return None not in (cut["front"], cut["back"]) and cut["front"] + cut["back"] == layers


def said(cut: Pair, sides: Sequence[Side] = SIDES) -> str:
    """A cut by the sides that matter.

    >>> said((2, 1)), said((2, 1), ["back"])
    ('k=2, m=1', 'm=1')
    """
    return cut_words({side: depth if side in sides else None for side, depth in zip(SIDES, cut, strict=True)})


def where(cuts: Sequence[Pair]) -> str:
    """Several cuts in few words, those with the same depths of the other side together.

    >>> where([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)])
    'k=0 to 1, m=0 to 2; k=2, m=0'
    """
    behind: dict[int, list[int]] = {}
    for k, m in sorted(cuts):
        behind.setdefault(k, []).append(m)
    alike: dict[tuple[int, ...], list[int]] = {}
    for k, ms in behind.items():
        alike.setdefault(tuple(ms), []).append(k)
    return "; ".join(f"k={ranges(ks)}, m={ranges(ms)}" for ms, ks in alike.items())


def _other(side: Side) -> Side:
    return "back" if side == "front" else "front"


def cuts_by_finding(told: Mapping[Pair, Finding]) -> list[tuple[Finding, list[Pair]]]:
    """Each finding with the cuts that it speaks for."""
    found: dict[int, tuple[Finding, list[Pair]]] = {}
    for cut, row in told.items():
        found.setdefault(id(row), (row, []))[1].append(cut)
    return list(found.values())

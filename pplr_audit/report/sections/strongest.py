"""The strongest attack at every cut (k, m): a map, a line against each depth, the table behind both, what it took."""

from collections.abc import Mapping, Sequence

from pplr_audit.report.blocks.chart import TONES, Chart
from pplr_audit.report.blocks.content import Block, Figure, Fold, Table, labels, listed
from pplr_audit.report.charts.cut_map import cut_map, shade_range
from pplr_audit.report.charts.leakage import leakage_chart
from pplr_audit.report.findings.by_cut import (
    SIDES,
    Pair,
    Side,
    cuts_by_finding,
    holds_at,
    is_closed,
    measured,
    said,
    sides_of,
    speakers,
    speakers_along,
    where,
)
from pplr_audit.report.findings.details import beside_of
from pplr_audit.report.findings.series import Finding, Series, headline, is_measured, place, series, value_cell
from pplr_audit.report.sections.steps import by_step
from pplr_audit.report.sections.users import OPEN_ROWS, users_behind
from pplr_audit.report.words.vocabulary import (
    cut_words,
    knowledge_words,
    learned_words,
    metric_words,
    phase,
    secret_words,
)
from pplr_audit.runs.documents import Document

PHASES = ("training", "serving")


def strongest_by_cut(secret: str, rows: Sequence[Finding], run: Document) -> list[Block]:
    """Show the strongest attack at each cut for one secret and defense; empty where none has a value.

    Args:
        rows: findings of the secret, those that name no cut included: they count at every cut that was audited.
    """
    metric = headline(rows, secret)
    of_metric = [row for row in rows if row["metric"] == metric]
    if metric is None or not any(row["cut"] is not None and is_measured(row) for row in of_metric):
        return []
    phases = {name: [row for row in of_metric if phase(row["channel"]) == name] for name in PHASES}
    phases = {name: mine for name, mine in phases.items() if any(row["cut"] and is_measured(row) for row in mine)}
    told = {name: speakers(mine, run["layers"]) for name, mine in phases.items()}
    attacks = {name: _attacks(mine, run) for name, mine in phases.items()}
    shades = shade_range(metric, of_metric)
    maps = tuple(
        cut_map(_title(name, attacks[name]), _subtitle(attacks[name]), metric, found, run, shades)
        for name, found in told.items()
    )
    words = f"{metric}: {metric_words(metric)}" if metric_words(metric) != metric else metric
    defense = "" if rows[0]["defense"] == "none" else f"; defense {rows[0]['defense']}"
    about = f"{secret_words(secret)}, {words}{defense}"
    lines = _lines(metric, phases, run, maps[0].width)
    caption = f"The most that any attack reads at each cut (k, m), and against depth. {about}"
    places = _places(told, attacks)
    table = _table(secret, metric, places)
    return [
        Figure(caption, (*maps, *lines)),
        table if len(table.rows) <= OPEN_ROWS else Fold(f"Every cut ({len(table.rows)} rows)", (table,)),
        *(users_behind(secret, metric, places, told, run) if secret == "history" else ()),
        *by_step(secret, metric, attacks.get("training", ())),
        _needed(secret, [s for found in attacks.values() for s in found]),
        *_alone(metric, about, attacks, run, shades),
    ]


def _attacks(rows: Sequence[Finding], run: Document) -> list[Series]:
    """Each attack that has a value somewhere, at the cuts with a trunk."""
    tried = [row for row in rows if is_measured(row) or (row["cut"] and not is_closed(row["cut"], run["layers"]))]
    return [s for s in series(tried) if any(map(is_measured, s.rows))]


def _alone(
    metric: str, about: str, attacks: Mapping[str, Sequence[Series]], run: Document, shades: tuple[float, float]
) -> list[Block]:
    """A map of each attack, where there is more than one; many of them folded."""
    maps = tuple(
        cut_map(_title(name, [s]), _subtitle([s]), metric, speakers(s.rows, run["layers"]), run, shades)
        for name, found in attacks.items()
        for s in found
        if len(found) > 1 and s.rows[0]["cut"] is not None
    )
    figure = Figure(f"Each attack by itself at each cut (k, m). {about}", maps)
    if not maps:
        return []
    return [figure if len(maps) <= TONES else Fold(f"Each attack by itself ({len(maps)} maps)", (figure,))]


def _title(name: str, attacks: Sequence[Series]) -> str:
    names = sorted({str(each.rows[0]["attack"]) for each in attacks})
    many = names[0] if len(names) == 1 else f"strongest of {len(names)} attacks"
    told = attacks[0].label if len(attacks) == 1 else many
    return f"{name.capitalize()}: {told}"


def _subtitle(attacks: Sequence[Series]) -> str:
    if len(attacks) > 1:
        return "whichever attack, channel and round gives most"
    first = attacks[0].rows[0]
    return f"{first['channel']}, knows {first['knowledge']}"


def _lines(metric: str, phases: Mapping[str, Sequence[Finding]], run: Document, width: int) -> tuple[Chart, ...]:
    """One picture for each side that matters, training and serving as two lines."""
    charts = []
    sides = sides_of([row for rows in phases.values() for row in rows], run["layers"])
    for side, letter in zip(SIDES, "km", strict=True):
        along = {name: speakers_along(rows, side, run) for name, rows in phases.items()}
        found = {name: at for name, at in along.items() if measured(at)}
        drawn = [
            Series(f"in {name}", tuple(_placed(row, cut, side) for cut, row in at.items()))
            for name, at in found.items()
        ]
        if drawn:
            first = next(iter(next(iter(found.values()))))
            beside = f", with {said(first, [s for s in SIDES if s != side])}" if len(sides) > 1 else ""
            charts.append(leakage_chart(metric, drawn, f"Strongest attack against {letter}{beside}", width))
    return tuple(charts)


def _placed(row: Finding, cut: Pair, side: Side) -> Finding:
    """The finding as one of a depth of one side, whatever it depends on itself."""
    depth = cut[SIDES.index(side)]
    return {**row, "cut": {"front": None, "back": None, side: depth}}


def _places(
    told: Mapping[str, Mapping[Pair, Finding]], attacks: Mapping[str, Sequence[Series]]
) -> list[tuple[str, str, str, Finding]]:
    """Each finding that is the strongest somewhere, with its phase, the cuts where it is and its attack in words."""
    label = {id(row): s.label for found in attacks.values() for s in found for row in s.rows}
    places = []
    for name, found in told.items():
        for row, cuts in cuts_by_finding(found):
            whole = -1 not in place(row["cut"]) or len(cuts) == sum(holds_at(row, cut) for cut in found)
            words = cut_words(row["cut"]) if whole else where(cuts)
            places.append((name, words, label.get(id(row), str(row["attack"])), row))
    return places


def _table(secret: str, metric: str, places: Sequence[tuple[str, str, str, Finding]]) -> Table:
    """One row for each finding that is the strongest somewhere, with the cuts where it is."""
    body = tuple(
        (
            *labels(name, cuts),
            value_cell(row),
            *labels(attack, row["channel"], row["knowledge"], row["adversary"]),
        )
        for name, cuts, attack, row in places
    )
    caption = (
        f"{secret}: the strongest attack at every cut, by {metric}, with 95% interval and baseline. A side of the cut "
        "that is not said does not matter to that attack."
    )
    columns = ("in", "cuts", metric, "attack", "on", "knowing", "by")
    return Table(caption, columns, body, headers=2)


def _needed(secret: str, attacks: Sequence[Series]) -> Table:
    """List the channels that each attack reads and the knowledge that its adversary needs."""
    reads: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for s in attacks:
        first = next((row for row in s.rows if is_measured(row)), s.rows[0])
        key = (first["attack"], first["adversary"], first["knowledge"], learned_words(first["detail"]))
        channels = listed([first["channel"], *beside_of(first["detail"])])
        reads.setdefault(key, {})[channels] = None
    rows = tuple(
        labels(attack, adversary, " or ".join(channels), knowledge_words(level), learned)
        for (attack, adversary, level, learned), channels in reads.items()
    )
    columns = ("attack", "adversary", "reads", "knew, besides the template and the catalogue", "may learn from")
    return Table(f"{secret}: what the adversary had to know, at most", columns, rows)

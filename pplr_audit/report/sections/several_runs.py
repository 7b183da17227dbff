"""Section on several runs: what updates say by the settings in which the runs were trained differently."""

from collections.abc import Sequence

from pplr_audit.report.blocks.content import Block, Cell, Figure, Section, Table, Text, labels, listed
from pplr_audit.report.charts.settings import setting_chart
from pplr_audit.report.findings.series import value_cell
from pplr_audit.report.findings.several_runs import Reading, all_settings, differing, is_number, lines, readings
from pplr_audit.report.words.quantities import MISSING
from pplr_audit.report.words.vocabulary import cut_words, metric_words
from pplr_audit.runs.documents import Document

LEAD = (
    "For each run the strongest attack on each channel of updates, at the cuts that all of these runs audited. "
    "Intervals are 95%, by resampling users, of one training each: a difference between two runs holds for these two "
    "trainings."
)


def several_runs(documents: Sequence[Document]) -> Section:
    """Show a picture for each setting that can be put in order, and the table of all runs."""
    names, found = differing(documents), [*readings(documents)]
    alike = {name: value for name, value in all_settings(documents[0]).items() if name not in names}
    same = ", ".join(f"{name} {value}" for name, value in alike.items())
    differ = f"The runs differ in {listed(names)}." if names else "The runs do not differ in how they were trained."
    blocks: list[Block] = [Text(LEAD), Text(f"{differ} The same in all: {same}.")]
    for name in names:
        charts = tuple(setting_chart(name, drawn) for own in _apart(found) if (drawn := lines(own, name)))
        if charts:
            blocks.append(Figure(f"What updates say against {name}", charts))
    return Section("updates", "What updates say", (*blocks, _table(found, names)))


def _apart(found: Sequence[Reading]) -> list[list[Reading]]:
    """The readings of each secret and channel."""
    groups: dict[tuple[str, str], list[Reading]] = {}
    for each in found:
        groups.setdefault((each.secret, each.channel), []).append(each)
    return [*groups.values()]


def _table(found: Sequence[Reading], names: Sequence[str]) -> Table:
    body = tuple(
        (
            *labels(each.secret, each.channel, *(_value(each.settings[name]) for name in names)),
            value_cell(each.row),
            *labels(*((each.row["attack"], cut_words(each.row["cut"])) if each.row else (MISSING, MISSING))),
        )
        for own in _apart(found)
        for each in own
    )
    metrics = dict.fromkeys((each.secret, each.metric) for each in found)
    told = "; ".join(f"{secret} by {metric}: {metric_words(metric)}" for secret, metric in metrics)
    caption = f"What each channel of updates gives in each run, with 95% interval and baseline. {told}."
    columns = ("secret", "channel", *names, "strongest", "attack", "cut")
    if not body:
        body = ((Cell("No cut was audited in all of these runs.", mark="status"), *labels(*[""] * (len(columns) - 1))),)
    return Table(caption, columns, body, headers=2)


def _value(value: object) -> str:
    return f"{value:.4g}" if is_number(value) else str(value)

"""What an update says against one setting of training, a line for all else in which runs differ."""

from collections.abc import Mapping, Sequence

from pplr_audit.report.blocks.chart import TONES, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, linear_ticks, widened
from pplr_audit.report.findings.series import is_measured, reason, value_words
from pplr_audit.report.findings.several_runs import Reading
from pplr_audit.report.words.quantities import is_rate
from pplr_audit.report.words.vocabulary import STATUS, metric_words

WIDTH, HEIGHT = 300, 220


def setting_chart(setting: str, lines: Mapping[str, Sequence[Reading]]) -> Chart:
    """Draw readings of one secret and channel, with 95% intervals and the baseline of each."""
    first = next(iter(lines.values()))[0]
    values = sorted({each.settings[setting] for own in lines.values() for each in own})
    rows = [each.row for own in lines.values() for each in own if each.row is not None and is_measured(each.row)]
    ends = [end for row in rows for end in (*row["ci"], row["baseline"])]
    low, high = (0.0, 1.0) if is_rate(first.metric) or not ends else widened(min(ends), max(ends))
    scale = Scale(-0.5, len(values) - 0.5, 40, WIDTH - 10)
    title = f"{first.secret} from {first.channel}"
    plot = Plot(scale, Scale(low, high, HEIGHT - 42, 42), title, WIDTH, HEIGHT, metric_words(first.metric))
    plot.x_ticks([(float(at), f"{value:.4g}") for at, value in enumerate(values)], setting)
    ticks = linear_ticks(low, high, 5)
    plot.y_ticks([(tick, f"{100 * tick:.0f}%" if is_rate(first.metric) else f"{tick:.4g}") for tick in ticks])
    drawn = [*lines.items()][:TONES]
    said = []
    for tone, (label, own) in enumerate(drawn):
        plot.name(label or "all else alike", tone)
        points = []
        for each in own:
            x = values.index(each.settings[setting]) + 0.08 * (tone - (len(drawn) - 1) / 2)
            if each.row is None or not is_measured(each.row):
                why = "not tried" if each.row is None else f"{STATUS[each.row['status']]}. {reason(each.row)}"
                plot.gap(x, f"{setting} {each.settings[setting]}: {why}")
                continue
            points.append((x, float(each.row["value"])))
            plot.line([(x, each.row["ci"][0]), (x, each.row["ci"][1])], tone, "whisker")
            plot.line([(x - 0.2, each.row["baseline"]), (x + 0.2, each.row["baseline"])], tone, "dotted")
            plot.mark(points[-1], tone, f"{setting} {each.settings[setting]}: {value_words(each.row)}")
            said.append(f"{label} {setting} {each.settings[setting]}: {value_words(each.row)}".strip())
        if points:
            plot.line(points, tone)
    plot.name("baseline", 0, "dotted")
    return plot.chart(f"{title}, {metric_words(first.metric)}, against {setting}. {'; '.join(said)}.")

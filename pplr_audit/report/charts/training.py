"""One number for each client and round: the training loss, or the learning speed of the dynamic balance."""

from collections.abc import Mapping

from pplr_audit.report.blocks.chart import REFERENCE, TONES, Chart, Plot
from pplr_audit.report.blocks.scales import Scale, linear_ticks, widened

WIDTH, HEIGHT = 440, 232


def rounds_chart(title: str, values: Mapping[str, Mapping[int, float]]) -> Chart:
    """A line for each client; ``values`` maps a client's name to its value in each round."""
    every = [value for by_round in values.values() for value in by_round.values()]
    rounds = sorted({number for by_round in values.values() for number in by_round}) or [0]
    low, high = widened(min(every, default=0.0), max(every, default=1.0))
    plot = Plot(
        Scale(rounds[0] - 0.2, rounds[-1] + 0.2, 50, WIDTH - 10),
        Scale(low, high, HEIGHT - 42, 26),
        title,
        WIDTH,
        HEIGHT,
    )
    plot.x_ticks([(r, str(r)) for r in rounds[:: max(1, len(rounds) // 12)]], "round")
    plot.y_ticks([(t, f"{t:.4g}") for t in linear_ticks(low, high, 4)])
    shown = list(values.items())[:TONES]
    for tone, (client, by_round) in enumerate(shown):
        points = [(float(r), by_round[r]) for r in sorted(by_round)]
        plot.line(points, tone)
        for r, value in points:
            plot.mark((r, value), tone, f"{client}, round {r:.0f}: {value:.4g}")
        plot.name(client, tone)
    if len(values) > len(shown):
        plot.name(f"and {len(values) - len(shown)} more in the table", REFERENCE, "words")
    said = "; ".join(
        f"{name} from {by_round[min(by_round)]:.4g} to {by_round[max(by_round)]:.4g}"
        for name, by_round in shown
        if by_round
    )
    return plot.chart(f"{title} over {len(rounds)} rounds. {said}.")

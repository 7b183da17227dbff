"""Who got what from whom in one round: a square for each pair of clients, the darker the larger the share."""

from collections.abc import Sequence

from pplr_audit.report.charts.chart import Chart, Label, Path, Plot
from pplr_audit.report.charts.scales import Scale

CELL_WIDTH, CELL_HEIGHT = 34, 22
TOP = 44
NAME = 12
"""Characters of a client's name that are shown."""
LEVELS = 10
"""Shades; report.css has one class for each, h0 to h10."""


def mixing_chart(
    round_: int,
    clients: Sequence[str],
    shares: Sequence[Sequence[float]],
    status: Sequence[float] | None,
    speed: Sequence[float] | None,
) -> Chart:
    """Row i is what client i's new model is made of; beside it its learning speed w and learning status l, if any."""
    count = len(clients)
    names = [name if len(name) <= NAME else f"{name[: NAME - 1]}…" for name in clients]
    left = 14 + 6.2 * max(map(len, names))
    right, bottom = left + CELL_WIDTH * count, TOP + CELL_HEIGHT * count
    beside = 96 if speed is not None else 10
    title = f"Round {round_}"
    # Row 0 stands on top, so the scale of y is turned round.
    plot = Plot(
        Scale(0, count, left, right), Scale(0, count, bottom, TOP), title, round(right + beside), round(bottom + 46)
    )
    largest = max((share for row in shares for share in row), default=0.0) or 1.0
    for i, row in enumerate(shares):
        y = TOP + CELL_HEIGHT * i
        for j, share in enumerate(row):
            x = left + CELL_WIDTH * j
            square = f"M{x + 1:.1f} {y + 1}h{CELL_WIDTH - 2}v{CELL_HEIGHT - 2}h-{CELL_WIDTH - 2}Z"
            plot.areas.append(Path(square, 0, f"heat h{round(LEVELS * share / largest)}"))
            plot.labels.append(Label(f"{x + CELL_WIDTH / 2:.1f}", f"{y + 15}", f"{share:.0%}", kind="name"))
        if speed is not None and status is not None:
            said = f"w {speed[i]:.2f}  l {status[i]:.2f}"
            plot.labels.append(Label(f"{right + 8:.1f}", f"{y + 15}", said, "start", "tick"))
    plot.y_ticks([(count - i - 0.5, name) for i, name in enumerate(names)], lines=False, kind="name")
    plot.x_ticks([(j + 0.5, str(j + 1)) for j in range(count)], "from client (in the order of the rows)")
    own = "; ".join(f"{name} keeps {row[i]:.0%}" for i, (name, row) in enumerate(zip(clients, shares, strict=True)))
    return plot.chart(f"Share of each client's parameters in each new model after round {round_}. {own}.")

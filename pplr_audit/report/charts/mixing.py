"""Pairs of clients in one round: who got what from whom, and how alike they are."""

from collections.abc import Sequence

from pplr_audit.report.blocks.chart import Chart, Label, Path, Plot
from pplr_audit.report.blocks.scales import Scale

CELL_WIDTH, CELL_HEIGHT = 34, 22
TOP = 44
NAME = 12
"""Characters of a client's name that are shown."""
WIDTH = 150
"""Room for the title, at least."""
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
    said = None
    if speed is not None and status is not None:
        said = [f"w {w:.2f}  l {level:.2f}" for w, level in zip(speed, status, strict=True)]
    own = "; ".join(f"{name} keeps {row[i]:.0%}" for i, (name, row) in enumerate(zip(clients, shares, strict=True)))
    about = f"Share of each client's parameters in each new model after round {round_}. {own}."
    axis = "from client (in the order of the rows)"
    return _squares(f"Round {round_}", clients, shares, "{:.0%}", axis, about, said)


def similarity_chart(round_: int, clients: Sequence[str], similarity: Sequence[Sequence[float]]) -> Chart:
    """S of PPLR's balance: how alike the clients' parameters, or updates, are."""
    pairs = [
        f"{clients[i]} and {clients[j]} {similarity[i][j]:.2f}" for i in range(len(clients)) for j in range(i)
    ]  # fmt: skip
    about = f"Similarity S between clients in round {round_}. {'; '.join(pairs)}."
    return _squares(f"Similarity S, round {round_}", clients, similarity, "{:.2f}", "client", about)


def _squares(
    title: str, clients: Sequence[str], values: Sequence[Sequence[float]], form: str, axis: str, about: str,
    beside: Sequence[str] | None = None,
) -> Chart:  # fmt: skip
    """A square for each pair, the darker the larger its value; none below 0 is shaded."""
    count = len(clients)
    names = [name if len(name) <= NAME else f"{name[: NAME - 1]}…" for name in clients]
    left = 14 + 6.2 * max(map(len, names))
    right, bottom = left + CELL_WIDTH * count, TOP + CELL_HEIGHT * count
    # Row 0 stands on top, so the scale of y is turned round.
    plot = Plot(
        Scale(0, count, left, right), Scale(0, count, bottom, TOP), title,
        round(max(right + (96 if beside else 10), WIDTH)), round(bottom + 46),
    )  # fmt: skip
    largest = max((value for row in values for value in row), default=0.0)
    largest = largest if largest > 0 else 1.0
    for i, row in enumerate(values):
        y = TOP + CELL_HEIGHT * i
        for j, value in enumerate(row):
            x = left + CELL_WIDTH * j
            square = f"M{x + 1:.1f} {y + 1}h{CELL_WIDTH - 2}v{CELL_HEIGHT - 2}h-{CELL_WIDTH - 2}Z"
            plot.areas.append(Path(square, 0, f"heat h{round(LEVELS * max(value, 0.0) / largest)}"))
            plot.labels.append(Label(f"{x + CELL_WIDTH / 2:.1f}", f"{y + 15}", form.format(value), kind="name"))
        if beside is not None:
            plot.labels.append(Label(f"{right + 8:.1f}", f"{y + 15}", beside[i], "start", "tick"))
    plot.y_ticks([(count - i - 0.5, name) for i, name in enumerate(names)], lines=False, kind="name")
    plot.x_ticks([(j + 0.5, str(j + 1)) for j in range(count)], axis)
    return plot.chart(about)

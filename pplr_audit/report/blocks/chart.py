"""One picture, as positions. Every tone has its own shape and dash, so that color is never the only difference."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pplr_audit.report.blocks.scales import Scale

TONES = 6
"""Series that one picture tells apart: as many as there are shapes, dashes and color-blind safe colors."""

REFERENCE = -1
"""The tone of what is not a series: baselines, references, diagonals."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Path:
    """A line or an area: SVG path data, the tone, and what it says when pointed at.

    Kinds: ``line``, ``dotted`` (baseline), ``whisker``, ``area``; of a map ``heat h0`` to ``heat h10``, ``closed``,
    ``ran``.
    """

    d: str
    tone: int
    kind: str = "line"
    tip: str = ""


@dataclass(frozen=True)
class Mark:
    """A point with its shape and what it says when pointed at."""

    d: str
    tone: int
    tip: str
    hollow: bool = False


@dataclass(frozen=True)
class Label:
    """Text at a position; ``anchor`` as in SVG."""

    x: str
    y: str
    text: str
    anchor: str = "middle"
    kind: str = "note"


@dataclass(frozen=True)
class Entry:
    """A legend entry: a line of the kind of the picture's (or none), a shape (or none), and a name."""

    label: str
    tone: int
    shape: str
    kind: str
    hollow: bool = False
    line: str = "M1 7H27"


@dataclass(frozen=True)
class Chart:
    """A finished picture. ``subtitle`` explains a title that is a technical name."""

    title: str
    subtitle: str
    description: str
    width: int
    height: int
    frame: str
    grid: tuple[str, ...]
    areas: tuple[Path, ...]
    lines: tuple[Path, ...]
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]
    legend: tuple[Entry, ...]


@dataclass
class Plot:
    """Collects the parts of a picture in data coordinates; ``chart`` ends it."""

    x: Scale
    y: Scale
    title: str
    width: int
    height: int
    subtitle: str = ""
    grid: list[str] = field(default_factory=list)
    areas: list[Path] = field(default_factory=list)
    lines: list[Path] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    legend: list[Entry] = field(default_factory=list)

    def x_ticks(self, ticks: Sequence[tuple[float, str]], name: str, lines: bool = False) -> None:
        """Tick labels under the frame, and the axis name under them."""
        for value, text in ticks:
            self.labels.append(Label(_at(self.x(value)), _at(self.y.start + 15), text, kind="tick"))
            if lines:
                self.grid.append(f"M{_at(self.x(value))} {_at(self.y.start)}V{_at(self.y.stop)}")
        middle = (self.x.start + self.x.stop) / 2
        self.labels.append(Label(_at(middle), _at(self.y.start + 32), name, kind="axis"))

    def y_ticks(self, ticks: Sequence[tuple[float, str]], lines: bool = True, kind: str = "tick") -> None:
        """Tick labels left of the frame, with grid lines."""
        for value, text in ticks:
            y = self.y(value)
            self.labels.append(Label(_at(self.x.start - 7), _at(y + 4), text, "end", kind))
            if lines:
                self.grid.append(f"M{_at(self.x.start)} {_at(y)}H{_at(self.x.stop)}")

    def line(self, points: Sequence[Point], tone: int, kind: str = "line") -> None:
        """A line through data points."""
        self.lines.append(Path(self._path(points), tone, kind))

    def band(self, lower: Sequence[Point], upper: Sequence[Point], tone: int) -> None:
        """The area between two lines."""
        self.areas.append(Path(self._path([*lower, *reversed(upper)]) + "Z", tone, "area"))

    def mark(self, point: Point, tone: int, tip: str, hollow: bool = False) -> None:
        """A data point."""
        self.marks.append(Mark(shape_at(self.x(point[0]), self.y(point[1]), tone), tone, tip, hollow))

    def gap(self, value: float, tip: str, height: float | None = None) -> None:
        """A cross, on the floor of the frame where no height is said: here something was tried and has no value."""
        y = self.y.start - 8 if height is None else self.y(height)
        self.marks.append(Mark(_cross(self.x(value), y), REFERENCE, tip, hollow=True))
        entry = Entry("no value, see the table", REFERENCE, _cross(14, 7), "mark", hollow=True)
        if entry not in self.legend:
            self.legend.append(entry)

    def note_over(self, point: Point, text: str) -> None:
        """A few words over a data point."""
        self.labels.append(Label(_at(self.x(point[0])), _at(self.y(point[1]) - 10), text))

    def note_under(self, point: Point, text: str) -> None:
        """A few words under a data point."""
        self.labels.append(Label(_at(self.x(point[0])), _at(self.y(point[1]) + 14), text))

    def note(self, point: Point, text: str) -> None:
        """A few words to the right of a data point, or to its left where the frame ends."""
        x, y = self.x(point[0]), self.y(point[1]) + 4
        fits = x + 10 + 6 * len(text) < self.x.stop
        self.labels.append(Label(_at(x + 9 if fits else x - 9), _at(y), text, "start" if fits else "end"))

    def name(self, label: str, tone: int, kind: str = "line", hollow: bool = False) -> None:
        """A legend entry; kinds ``dotted`` and ``rule`` have no shape, ``mark`` no line, ``words`` neither."""
        shape = "" if kind in ("dotted", "rule", "words") else shape_at(14, 7, tone)
        self.legend.append(Entry(label, tone, shape, kind, hollow))

    def chart(self, description: str) -> Chart:
        """The finished picture; ``description`` says in words what it shows."""
        x0, x1, y0, y1 = _at(self.x.start), _at(self.x.stop), _at(self.y.start), _at(self.y.stop)
        return Chart(
            self.title,
            self.subtitle,
            description,
            self.width,
            self.height,
            f"M{x0} {y1}V{y0}H{x1}",
            tuple(self.grid),
            tuple(self.areas),
            tuple(self.lines),
            tuple(self.marks),
            tuple(self.labels),
            tuple(self.legend),
        )

    def _path(self, points: Sequence[Point]) -> str:
        """Path data, without the points that would fall on the pixel before them."""
        kept: list[tuple[float, float]] = []
        for value_x, value_y in points:
            at = (self.x(value_x), self.y(value_y))
            if not kept or abs(at[0] - kept[-1][0]) + abs(at[1] - kept[-1][1]) > 0.25:
                kept.append(at)
        if len(kept) == 1:  # a line that is one point long would not be drawn at all
            kept.append((kept[0][0] + 0.3, kept[0][1]))
        return "M" + "L".join(f"{_at(x)} {_at(y)}" for x, y in kept)


def shape_at(x: float, y: float, tone: int, r: float = 4.0) -> str:
    """The shape of a tone around a position: circle, square, triangle, diamond, triangle down, bar."""
    shapes = {
        0: f"M{_at(x - r)} {_at(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 -{2 * r} 0Z",
        1: f"M{_at(x - 3.6)} {_at(y - 3.6)}h7.2v7.2h-7.2Z",
        2: f"M{_at(x)} {_at(y - 4.8)}l4.6 8.2h-9.2Z",
        3: f"M{_at(x)} {_at(y - 5.2)}l4.4 5.2l-4.4 5.2l-4.4 -5.2Z",
        4: f"M{_at(x)} {_at(y + 4.8)}l4.6 -8.2h-9.2Z",
        5: f"M{_at(x - 2)} {_at(y - 5)}h4v10h-4Z",
    }
    return shapes.get(tone, shapes[0])


def _cross(x: float, y: float, r: float = 4) -> str:
    """Two strokes through a position."""
    rising = f"M{_at(x - r)} {_at(y + r)}L{_at(x + r)} {_at(y - r)}"
    return f"M{_at(x - r)} {_at(y - r)}L{_at(x + r)} {_at(y + r)}{rising}"


def _at(position: float) -> str:
    """A position with one decimal: enough for a pixel, and the same bytes on every machine."""
    return f"{position:.1f}".removesuffix(".0")

"""Charts as SVG: lines, intervals and stacked bars. They are 440 units wide, for phones and screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.report.page.axes import Axis, axis
from dials_mpi.report.page.markup import Markup, details, element, joined, table
from dials_mpi.report.panels import apart

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 42
LETTER = 7.2  # the width of a letter of a level's name
LABEL_HEIGHT = 13
ROW, ROW_TOP = 36, 8  # of a bar or an interval with its label, and the place of the first one
DASHES = 1.8  # a dash of matplotlib, in units of this drawing


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    x, y, error: [T]; NaN: not known. colour, dash: of CSS and SVG. ends: indices at which an unfinished run
    ends. exact: whether its points are in the table of numbers and shown under the pointer.
    """

    label: str
    colour: str
    dash: str | None
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    ends: Sequence[int] = ()
    dots: bool = False
    exact: bool = True


class Chart(NamedTuple):
    """A figure of the page, and what the script needs to show the values under the pointer."""

    figure: Markup
    data: Mapping[str, Any]


def line_chart(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, levels: Mapping[str, float] | None = None
) -> Chart:
    """Lines with bands. levels: values of y that are drawn across, with their names to the right."""
    parts = [_frame(x, y)]
    parts += _levels(levels or {}, x, y)
    parts += [_band(line, x, y) for line in lines if line.error is not None]
    parts += [_line(line, x, y) for line in lines]
    exact = [line for line in lines if line.exact]
    rows = [row for line in exact for row in _numbers(line, x.name, y.name)]
    chart = _svg(f"{title}: {y.name} against {x.name}", HEIGHT, parts)
    numbers = details("Numbers", table(rows, f"{title}: {y.name}", titled=True)) if rows else Markup("")
    figure = element("figure", element("figcaption", title), chart, numbers, class_="chart lines")
    series = [_hover(line, x, y) for line in exact]
    return Chart(figure, {"x": x.name, "y": y.name, "top": y.end, "bottom": y.start, "series": series})


def x_axis(
    name: str, lines: Sequence[Line], levels: Mapping[str, float] | None = None, **options: Any
) -> Axis:
    """The axis below a chart of these lines; levels leave room for their names."""
    values = np.concatenate([line.x for line in lines])
    room = LETTER * max(map(len, levels)) + 2 * RIGHT if levels else RIGHT
    return axis(name, values, LEFT, WIDTH - room, zero=True, **options)


def y_axis(
    name: str, lines: Sequence[Line], levels: Mapping[str, float] | None = None, **options: Any
) -> Axis:
    """The axis to the left of a chart of these lines and levels."""
    sides = [line.y + sign * _error(line) for line in lines for sign in (-1, 1)]
    log = options.get("log", False)
    if log:
        sides = [np.where(side > 0, side, np.nan) for side in [*sides, *(line.y for line in lines)]]
    values = np.concatenate([*sides, np.array([*(levels or {}).values()], float)])
    return axis(name, values, HEIGHT - BOTTOM, TOP, **options)


def _error(line: Line) -> np.ndarray:
    return np.zeros(len(line.y)) if line.error is None else np.nan_to_num(line.error)


def _svg(label: str, height: float, parts: Sequence[str]) -> Markup:
    box = f"0 0 {WIDTH} {height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=label, focusable="false")


def _frame(x: Axis, y: Axis) -> Markup:
    """Grid lines, ticks and names of both axes."""
    parts = []
    for value, text in y.ticks:
        at = f"{float(y.place(value)):.1f}"
        parts.append(element("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid"))
        parts.append(element("text", text, x=x.start - 6, y=at, class_="tick end"))
    for value, text in x.ticks:
        at = f"{float(x.place(value)):.1f}"
        parts.append(element("text", text, x=at, y=y.start + 15, class_="tick middle"))
    parts.append(element("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    parts.append(element("text", x.name, x=(x.start + x.end) / 2, y=y.start + 33, class_="name middle"))
    parts.append(element("text", y.name, x=1, y=8, class_="name"))
    return joined(parts)


def _levels(levels: Mapping[str, float], x: Axis, y: Axis) -> list[Markup]:
    """Dashed lines, with their names as close to them as there is room."""
    places = [float(y.place(level)) for level in levels.values()]
    height = y.start - y.end
    shares = apart([(y.start - place) / height for place in places], LABEL_HEIGHT / height)
    parts = []
    for name, place, share in zip(levels, places, shares, strict=True):
        at, beside = f"{place:.1f}", f"{y.start - share * height:.1f}"
        line = f"M{x.start} {at}H{x.end}L{x.end + 7} {beside}"
        parts.append(element("path", d=line, class_="level"))
        parts.append(element("text", name, x=x.end + 10, y=beside, class_="tick"))
    return parts


def _band(line: Line, x: Axis, y: Axis) -> Markup:
    """The area between the line plus and minus its error, where both are known."""
    assert line.error is not None
    known = np.isfinite(line.y) & np.isfinite(line.error)
    if known.sum() < 2:
        return Markup("")
    places = x.place(line.x[known])
    high, low = (y.place(line.y[known] + sign * line.error[known]) for sign in (1, -1))
    low = np.where(np.isfinite(low), low, y.start)  # below a log axis
    points = [*zip(places, high, strict=True), *zip(places[::-1], low[::-1], strict=True)]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + "Z"
    return element("path", d=path, fill=line.colour, class_="band")


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    places = list(zip(x.place(line.x), y.place(line.y), strict=True))
    path, pen = "", "M"
    for px, py in places:
        if not np.isfinite(py):
            pen = "M"
            continue
        path, pen = f"{path}{pen}{px:.1f} {py:.1f}", "L"
    parts = [element("path", d=path, stroke=line.colour, stroke_dasharray=line.dash, class_="line")]
    if line.dots:
        parts = [_dot(place, 2.6, fill=line.colour) for place in places if np.isfinite(place[1])]
    parts += [
        _dot(places[k], 3.6, stroke=line.colour, class_="end") for k in line.ends if np.isfinite(places[k][1])
    ]
    return joined(parts)


def _dot(place: tuple[float, float], radius: float, **how: str) -> Markup:
    return element("circle", cx=f"{place[0]:.1f}", cy=f"{place[1]:.1f}", r=radius, **how)


def _numbers(line: Line, x: str, y: str) -> list[dict[str, Any]]:
    """The points of a line, for the table below the chart."""
    errors = np.full(len(line.y), np.nan) if line.error is None else line.error
    return [
        {"line": line.label, x: a.item(), y: b.item(), "± standard error": e.item()}
        for a, b, e in zip(line.x, line.y, errors, strict=True)
    ]


def _hover(line: Line, x: Axis, y: Axis) -> dict[str, Any]:
    return {
        "label": line.label,
        "colour": line.colour,
        "x": line.x,
        "y": line.y,
        "error": line.error,
        "px": np.round(x.place(line.x), 1),
        "py": np.round(y.place(line.y), 1),
    }


# Intervals and bars --------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A row of an interval chart: estimate and bounds (NaN: not known), each run's value, unfinished ones."""

    label: str
    colour: str
    estimate: float
    low: float
    high: float
    values: Sequence[float]
    unfinished: Sequence[float] = ()


def interval_chart(
    title: str, name: str, rows: Sequence[Interval], levels: Mapping[str, float], log: bool = False
) -> Markup:
    """One row for each method: the mean as a dot with its interval, and the runs as small marks."""
    values = [v for row in rows for v in (*row[2:5], *row.values, *row.unfinished)]
    known = np.array([*values, *levels.values()], float)
    if log:
        known = np.where(known > 0, known, np.nan)
    x = axis(name, known, 8, WIDTH - RIGHT, log=log, zero=True)
    names = ROW_TOP + ROW * len(rows)
    bottom = names + LABEL_HEIGHT * len(levels)
    parts = [_scale(x, ROW_TOP, bottom)]
    for level in levels.values():
        at = float(x.place(level))
        parts.append(element("path", d=f"M{at:.1f} {ROW_TOP}V{bottom}", class_="level"))
    parts += [
        _level_name(x, names + LABEL_HEIGHT * (k + 0.5), level_name, level)
        for k, (level_name, level) in enumerate(levels.items())
    ]
    parts += [_interval(row, x, ROW_TOP + ROW * k) for k, row in enumerate(rows)]
    chart = _svg(f"{title}: {name}", bottom + BOTTOM, parts)
    return element("figure", element("figcaption", title), chart, class_="chart")


def _level_name(x: Axis, y: float, name: str, level: float) -> Markup:
    """The name of a level, on the side of its line where there is more room."""
    right = float(x.place(level)) < (x.start + x.end) / 2
    where = float(x.place(level)) + (4 if right else -4)
    return element("text", name, x=f"{where:.1f}", y=y, class_="tick" if right else "tick end")


def _scale(x: Axis, top: float, bottom: float) -> Markup:
    """Vertical grid lines with ticks below, and the name of the axis."""
    parts = []
    for value, text in x.ticks:
        at = f"{float(x.place(value)):.1f}"
        parts.append(element("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        parts.append(element("text", text, x=at, y=bottom + 15, class_="tick middle"))
    middle = (x.start + x.end) / 2
    return joined([*parts, element("text", x.name, x=middle, y=bottom + 33, class_="name middle")])


def _interval(row: Interval, x: Axis, top: float) -> Markup:
    y = top + 23
    parts = [element("text", row.label, x=x.start, y=top + 7, class_="label")]
    if np.isfinite([row.low, row.high]).all():
        low, high = (float(x.place(v)) for v in (row.low, row.high))
        low = low if np.isfinite(low) else x.start
        path = f"M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}V{y + 4}M{high:.1f} {y - 4}V{y + 4}"
        parts.append(element("path", d=path, stroke=row.colour, class_="interval"))
    for value in row.values:
        at = float(x.place(value))
        parts.append(element("path", d=f"M{at:.1f} {y - 6}V{y + 6}", stroke=row.colour, class_="mark"))
    if np.isfinite(row.estimate):
        parts.append(_dot((float(x.place(row.estimate)), y), 4.5, fill=row.colour))
    parts += [_dot((float(x.place(v)), y), 3.6, stroke=row.colour, class_="end") for v in row.unfinished]
    return joined(parts)


def stacked_bars(title: str, name: str, rows: Mapping[str, Mapping[str, float]]) -> Markup:
    """One bar for each row; its parts, by the class of their colour, are side by side."""
    sums = np.array([sum(parts.values()) for parts in rows.values()])
    x = axis(name, np.append(sums, 0.0), 8, WIDTH - RIGHT, zero=True)
    bottom = ROW_TOP + ROW * len(rows)
    parts = [_scale(x, ROW_TOP, bottom)]
    for k, (label, values) in enumerate(rows.items()):
        top, before = ROW_TOP + ROW * k, 0.0
        parts.append(element("text", label, x=x.start, y=top + 7, class_="label"))
        for part, value in values.items():
            left, right = (float(x.place(v)) for v in (before, before + value))
            how = {"x": f"{left:.1f}", "width": f"{right - left:.1f}", "y": top + 14, "height": 14}
            hint = element("title", f"{part}: {value:.4g} {name}")
            parts.append(element("rect", hint, class_=f"fill-{part}", **how))
            before += value
    chart = _svg(f"{title}, {name}", bottom + BOTTOM, parts)
    return element("figure", element("figcaption", title), chart, class_="chart")

"""Maps of the agents' final returns as SVG: cells of a grid, or points where the agents are in the system."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.report.details import Places
from dials_mpi.report.groups import Group, by_system
from dials_mpi.report.page.markup import Markup, element, joined
from dials_mpi.report.panels import final_returns, regional_returns, three_digits

VIRIDIS = ("440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
WIDTH = 220
MOST_NUMBERS = 7  # cells in a row of a grid that shows its numbers
LEAST_RADIUS, LARGEST_RADIUS = 2.2, 8.0  # of a point
MARGIN = 10.0  # around the points


def known(groups: Sequence[Group]) -> bool:
    """Whether the regions are on a grid, or the agents' positions are known."""
    run = groups[0].runs[0]
    return hasattr(run.config.domain_section, "grid") or run.places is not None


def of_returns(groups: Sequence[Group]) -> Markup:
    """The agents' final returns, on one scale for each system."""
    return joined([_maps_of(same) for same in by_system(groups)])


def _maps_of(same: Sequence[Group]) -> Markup:
    values = np.array([final_returns(group) for group in same])
    low, high = _limits(values)
    decimals = three_digits(max(abs(low), abs(high)))
    run = same[0].runs[0]
    places = None if hasattr(run.config.domain_section, "grid") else run.places
    figures = [
        _points(group, places, low, high) if places else _cells(group, low, high, decimals) for group in same
    ]
    scale = element(
        "p",
        f"{low:.{decimals}f}{' or less' if low > values.min() else ''} ",
        element("span", class_="viridis"),
        f" {high:.{decimals}f}{' or more' if high < values.max() else ''}",
        class_="scale",
    )
    kind = "maps places" if places else "maps"
    return joined([element("h3", same[0].system.title), element("div", *figures, class_=kind), scale])


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Where the colours end: at the extremes, or at Tukey's outer fences, so that a few outliers do not make
    all others look equal."""
    first, third = np.quantile(values, [0.25, 0.75])
    fence = 3 * (third - first)
    return max(float(values.min()), first - fence), min(float(values.max()), third + fence)


def _cells(group: Group, low: float, high: float, decimals: int) -> Markup:
    """A grid, colours from low to high; in small grids the values are written, too."""
    values = regional_returns(group)
    rows, columns = values.shape
    size = WIDTH / max(rows, columns)
    parts = []
    for (row, column), value in np.ndenumerate(values):
        share = _share(value, low, high)
        text = f"{value:.{decimals}f}"
        hint = element("title", f"row {row + 1}, column {column + 1}: {value:.4g}")
        box = {"x": f"{column * size:.2f}", "y": f"{row * size:.2f}"}
        sides = {"width": f"{size:.2f}", "height": f"{size:.2f}"}
        parts.append(element("rect", hint, fill=_viridis(share), **box, **sides))
        if max(rows, columns) <= MOST_NUMBERS:
            look = f"fill:{'#fff' if share < 0.6 else '#000'};font-size:{0.3 * size:.0f}px"
            at = {"x": f"{(column + 0.5) * size:.1f}", "y": f"{(row + 0.5) * size:.1f}"}
            parts.append(element("text", text, style=look, class_="middle", **at))
    return _figure(group, f"{rows} by {columns} regions", values, parts, columns * size, rows * size)


def _points(group: Group, places: Places, low: float, high: float) -> Markup:
    """A point for each agent, lower returns on top where points overlap."""
    values = final_returns(group)
    x, y, height = _on_paper(places)
    radius = f"{_radius(x, y):.1f}"
    parts = []
    for k in np.argsort(values)[::-1]:
        hint = element("title", f"{places.names[k]}: {values[k]:.4g}")
        colour = _viridis(_share(values[k], low, high))
        parts.append(element("circle", hint, fill=colour, cx=f"{x[k]:.1f}", cy=f"{y[k]:.1f}", r=radius))
    return _figure(group, f"{len(values):,} agents", values, parts, WIDTH, height)


def _on_paper(places: Places) -> tuple[np.ndarray, np.ndarray, float]:
    """The points in units of the drawing, y down, and its height; the longer side is ``WIDTH``."""
    across, up = np.ptp(places.x), np.ptp(places.y)
    unit = (WIDTH - 2 * MARGIN) / (max(across, up) or 1.0)
    x = MARGIN + unit * (places.x - places.x.min()) + (WIDTH - 2 * MARGIN - unit * across) / 2
    y = MARGIN + unit * (places.y.max() - places.y)
    return x, y, 2 * MARGIN + unit * up


def _radius(x: np.ndarray, y: np.ndarray) -> float:
    """Half of the median distance to the nearest other point, within limits."""
    distances = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(distances, np.inf)
    nearest = float(np.median(distances.min(axis=1)))
    return min(max(nearest / 2, LEAST_RADIUS), LARGEST_RADIUS)


def _figure(
    group: Group, what: str, values: np.ndarray, parts: Sequence[Markup], width: float, height: float
) -> Markup:
    label = f"{group.label}: returns of {what}, from {values.min():.4g} to {values.max():.4g}"
    frame = f"0 0 {width:g} {height:g}"
    chart = element("svg", *parts, viewBox=frame, role="img", aria_label=label)
    return element("figure", element("figcaption", group.label), chart, class_="map")


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _viridis(share: float) -> str:
    """The colour of a share from 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(VIRIDIS) - 1)
    k = min(int(place), len(VIRIDIS) - 2)
    one, other = (np.array([int(VIRIDIS[i][j : j + 2], 16) for j in (0, 2, 4)]) for i in (k, k + 1))
    red, green, blue = np.round(one + (place - k) * (other - one)).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"

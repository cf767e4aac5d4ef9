"""The pictures of the report, laid out as in the paper: the panels of each, and one legend above them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.domains.pictures import SMALL_PRINT
from dials_mpi.report import panels
from dials_mpi.report.groups import Group, by_system
from dials_mpi.report.others import Other
from dials_mpi.report.panels import regional_returns
from dials_mpi.report.runs import RETURN
from dials_mpi.report.runtimes import Clock
from dials_mpi.results.style import (
    BAR_WIDTH,
    FONT_SIZE,
    HEIGHT,
    LEGEND_ROW,
    MAP_COLOURS,
    MAP_SIDE,
    OPEN_CIRCLE,
    PAGE,
    REFERENCE_COLOUR,
    TITLE_ROW,
    UNFINISHED,
    WIDTH,
    font_scale,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 72  # in an inch
BESIDE_LABEL = 4.4  # font sizes: the line of a legend's label, and the space around it
LEAST_LINE = 8  # characters of a wrapped text

Draw = Callable[["Figure", Sequence[Group], Clock], None]


def pictures(groups: Sequence[Group], others: Sequence[Other] = ()) -> dict[str, Draw]:
    """The pictures that these groups allow: the functions that draw them, by file name.

    others: runs of another program, drawn beside the learning curves.
    """
    timed = any(run.timing for group in groups for run in group.runs)
    predicted = any(group.cross_entropy is not None for group in groups)
    refitted = timed and any(group.refits is not None for group in groups)
    drawn = {
        "learning-curves": partial(draw_learning_curves, others=others),
        "overview": partial(draw_overview, others=others) if timed else None,
        "cross-entropy": draw_cross_entropy if predicted else None,
        "refresh-intervals": draw_refit_intervals if refitted else None,
        "regions": draw_regions if groups[0].measure is RETURN else None,
    }
    return {name: draw for name, draw in drawn.items() if draw}


Size = tuple[float, float]
"""Width and height of a picture, inches."""


def save_picture(
    stem: Path, draw: Draw, groups: Sequence[Group], clock: Clock, size: Size | None = None
) -> list[Path]:
    """Draw ``stem``.png and ``stem``.svg; their paths. The same runs give the same bytes within ``style``.

    size: None, if the picture is as large as what is drawn in it needs.
    """
    figure = _figure(size)
    draw(figure, groups, clock)
    files = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(files[0])
    figure.savefig(files[1], metadata={"Date": None})
    return files


def _figure(size: Size | None) -> Figure:
    """A figure; if a size is given, drawing does not change it."""
    from matplotlib.figure import Figure

    class Sized(Figure):
        def set_size_inches(self, *_: Any, **__: Any) -> None:
            pass

    if size is None:
        return Figure(layout="constrained")
    return Sized(figsize=size, layout="constrained")


def draw_learning_curves(
    figure: Figure, groups: Sequence[Group], clock: Clock, others: Sequence[Other] = ()
) -> None:
    """Learning curves of each system and runtimes on a log2 axis beside them (Figures 5 and 6)."""
    systems = by_system(groups)
    if len(systems) == 1 or not any(run.timing for group in groups for run in group.runs):
        for axes, same in zip(_panels(figure, len(systems)), systems, strict=False):
            panels.draw_learning_curves(axes, same, others)
            _name_system(axes, same, systems)
    else:
        widths = [WIDTH, BAR_WIDTH] * min(2, len(systems))
        grid = _panels(figure, 2 * len(systems), widths)
        for curves, bars, same in zip(grid[::2], grid[1::2], systems, strict=True):
            panels.draw_learning_curves(curves, same, others)
            panels.draw_runtimes(bars, [same], clock, beside=groups)
            bars.set_xticks([])
            bars.set_xlabel("")
            _name_system(curves, same, systems)
    _add_legend(figure, groups)


def draw_overview(
    figure: Figure, groups: Sequence[Group], clock: Clock, others: Sequence[Other] = ()
) -> None:
    """Learning curves of the smallest system, final values and runtimes by system (Figure 3)."""
    systems = by_system(groups)
    curves, returns, hours = _panels(figure, 3, [WIDTH, 0.8 * WIDTH, 0.8 * WIDTH])
    panels.draw_learning_curves(curves, systems[0], others)
    _name_system(curves, systems[0], systems)
    panels.draw_final_values(returns, systems)
    panels.draw_runtimes(hours, systems, clock)
    _add_legend(figure, groups)


def draw_cross_entropy(figure: Figure, groups: Sequence[Group], clock: Clock) -> None:
    """Cross-entropies of each system against steps."""
    systems = by_system([group for group in groups if group.cross_entropy is not None])
    for axes, same in zip(_panels(figure, len(systems)), systems, strict=True):
        panels.draw_cross_entropy(axes, same)
        _name_system(axes, same, systems)
    _add_legend(figure, [group for same in systems for group in same], bands=False)


def draw_refit_intervals(figure: Figure, groups: Sequence[Group], clock: Clock) -> None:
    """Curves and cross-entropies against the runtime, a row for each system (Figures 4, 7 and 8)."""
    dials = [group for group in groups if group.refits is not None and group.runs[0].timing]
    systems = by_system(dials)
    axes = _panels(figure, 2 * len(systems), [WIDTH, WIDTH])
    for returns, losses, same in zip(axes[::2], axes[1::2], systems, strict=True):
        panels.draw_curves_in_time(returns, same, clock)
        panels.draw_cross_entropy_in_time(losses, same, clock)
        _name_system(returns, same, systems)
    _add_legend(figure, dials)


def draw_regions(figure: Figure, groups: Sequence[Group], clock: Clock) -> None:
    """Maps of the regions' returns, a row for each system, with one colour scale per row."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    systems = by_system(groups)
    columns = max(map(len, systems))
    figure.set_size_inches(MAP_SIDE * (columns + 0.4), MAP_SIDE * len(systems))
    side = figure.get_size_inches()[0] / (columns + 0.4)  # another one, if the size was given
    narrow = max(LEAST_LINE, int(panels.NARROW * side / MAP_SIDE / font_scale()))
    grid = figure.subplots(len(systems), columns, squeeze=False)
    for row, same in zip(grid, systems, strict=True):
        values = [regional_returns(group) for group in same]
        low, high = min(map(np.min, values)), max(map(np.max, values))
        for axes, group in zip(row, same, strict=False):
            panels.draw_map(axes, group, low, high, min(narrow, panels.NARROW))
        for axes in row[len(same) :]:
            axes.set_axis_off()
        bar = figure.colorbar(ScalarMappable(Normalize(low, high), MAP_COLOURS), ax=row, shrink=0.8)
        bar.set_label("Return per episode")
        bar.outline.set_visible(False)
    titles = font_scale() * TITLE_ROW * max(axes.get_title().count("\n") for axes in grid.flat)
    figure.set_size_inches(MAP_SIDE * (columns + 0.4), (MAP_SIDE + titles) * len(systems))


def _panels(figure: Figure, count: int, widths: Sequence[float] = (WIDTH, WIDTH)) -> list[Axes]:
    """``count`` axes in rows; widths: of the columns of a row, in inches."""
    inches = np.array(widths[:count])
    inches *= min(1, PAGE / inches.sum())
    rows = -(-count // len(inches))
    grid = figure.subplots(rows, len(inches), squeeze=False, width_ratios=inches.tolist())
    figure.set_size_inches(sum(inches), HEIGHT * rows)
    for axes in grid.flat[count:]:
        axes.remove()
    return list(grid.flat[:count])


def _name_system(axes: Axes, same: Sequence[Group], systems: Sequence[Sequence[Group]]) -> None:
    """Title the axes with the number of agents, if there are several systems, and with missing seeds."""
    missing = [
        f"{group.label} without seed{'s' * (len(group.missing) > 1)} {_listed(group.missing)}"
        for group in same
        if group.missing
    ]
    system = same[0].system
    titles = [system.title] if system.name or len(systems) > 1 else []
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = axes.get_position().width * figure.get_size_inches()[0] * POINTS
    size = FONT_SIZE * font_scale()
    axes.set_title("\n".join(line for title in titles + missing for line in wrapped(title, room / size)))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _add_legend(figure: Figure, groups: Sequence[Group], bands: bool = True) -> None:
    """Add one legend for all panels, above them: the groups by label, then all other marks."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: dict[str, Artist] = {
        label + _seeds(alike): Line2D([], [], color=alike[0].colour, linestyle=alike[0].line)
        for label, alike in _by_label(groups).items()
    }
    if bands:
        marks[band_text(groups)] = Patch(color=REFERENCE_COLOUR, alpha=0.25, linewidth=0)
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            marks.setdefault(label, handle)
    if any(group.unfinished for group in groups):
        marks["unfinished run"] = Line2D([], [], color=REFERENCE_COLOUR, **OPEN_CIRCLE)
    if any(bar.get_hatch() for axes in figure.axes for bar in axes.patches):
        marks["so far, of an unfinished run"] = Patch(
            facecolor="white", edgecolor=REFERENCE_COLOUR, hatch=UNFINISHED
        )
    width, height = figure.get_size_inches()
    labels, columns, rows = _arranged(list(marks), width)
    figure.legend(marks.values(), labels, loc="outside upper center", ncols=columns)
    titles = max(axes.get_title().count("\n") + bool(axes.get_title()) for axes in figure.axes)
    figure.set_size_inches(width, height + font_scale() * (TITLE_ROW * titles + LEGEND_ROW * rows))


def _arranged(labels: Sequence[str], width: float) -> tuple[list[str], int, int]:
    """The labels of a legend of so many inches, wrapped where they are too long; its columns, and its rows of
    text: as few as possible."""
    size = SMALL_PRINT * font_scale()
    most = max(1, int(width / WIDTH * 2 / font_scale()))

    def arranged(columns: int) -> tuple[list[list[str]], int]:
        room = width * POINTS / size / columns - BESIDE_LABEL
        lines = [wrapped(label, room) for label in labels]
        return lines, max(sum(map(len, part)) for part in _split(lines, columns))

    def cost(columns: int) -> float:
        lines, rows = arranged(columns)
        return rows + 0.5 * sum(len(one) > 1 for one in lines)

    columns = min(range(most, 0, -1), key=cost)
    lines, rows = arranged(columns)
    return ["\n".join(one) for one in lines], columns, rows


def _split(lines: Sequence[Sequence[str]], columns: int) -> list[Sequence[Sequence[str]]]:
    """The labels in each column, as matplotlib fills them: the first columns have one more."""
    each, more = divmod(len(lines), columns)
    ends = np.cumsum([0, *(each + (k < more) for k in range(columns))])
    return [lines[ends[k] : ends[k + 1]] for k in range(columns)]


def wrapped(text: str, room: float) -> list[str]:
    """The text in lines of at most ``room`` times the font size."""
    from matplotlib.textpath import TextPath

    width = TextPath((0, 0), text, size=1).get_extents().width
    if width <= room:
        return [text]
    return wrap(text, max(LEAST_LINE, int(0.92 * len(text) * room / width)))


def band_text(groups: Sequence[Group]) -> str:
    """The legend's text for the bands."""
    single = [len(group.runs) == 1 for group in groups]
    if all(single):
        return "± standard error over episodes"
    return "± standard error over seeds" if not any(single) else "± s.e. (seeds; 1 run: episodes)"


def _by_label(groups: Sequence[Group]) -> dict[str, list[Group]]:
    labels: dict[str, list[Group]] = {}
    for group in groups:
        labels.setdefault(group.label, []).append(group)
    return labels


def _seeds(alike: Sequence[Group]) -> str:
    """The number of seeds that final values are averaged over, as text; empty for one."""
    counts = sorted({len(group.finished) or len(group.runs) for group in alike})
    if counts == [1]:
        return ""
    return f" ({counts[0]} seeds)" if len(counts) == 1 else f" ({counts[0]} to {counts[-1]} seeds)"

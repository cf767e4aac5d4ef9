"""A figure around one drawing or several beside each other: as wide as suits the number of regions, as high
as the drawing's aspect ratio requires, with room for its labels and its legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FILM_DPI = 160


class Margins(NamedTuple):
    """Inches around a drawing."""

    left: float
    right: float
    top: float
    bottom: float


USUAL = Margins(0.06, 0.55, 0.24, 0.24)
LEFT, RIGHT, TOP, BOTTOM = USUAL

_HEIGHT = 0.5
"""Of a drawing without an aspect ratio, as a share of its width."""

_MIN_HEIGHT = 1.1  # inches of the drawing: a single row needs room for the scale beside it

T = TypeVar("T")


def width(regions: int) -> float:
    """The width of a drawing in inches: from a column of a paper to a whole page."""
    return float(np.clip(2.3 + 0.55 * np.sqrt(regions), 2.8, 8.0))


def framed(regions: int, draw: Callable[[Axes], T]) -> tuple[Figure, T]:
    """A figure and what ``draw`` returns; draw: draws in axes, and sets their limits and aspect."""
    figure, (drawn,) = framed_beside(regions, [draw])
    return figure, drawn


def framed_beside(regions: int, draw: Sequence[Callable[[Axes], T]]) -> tuple[Figure, list[T]]:
    """As ``framed``, with drawings of the same size beside each other."""
    wide = width(regions)
    figure = Figure((wide * len(draw), wide), dpi=FILM_DPI)
    share = 1 / len(draw)
    axes = [figure.add_axes((k * share, 0, share, 1)) for k in range(len(draw))]
    drawn = [one(own) for one, own in zip(draw, axes, strict=True)]
    high = _height(axes[0], wide)
    _arrange(figure, axes, wide, high, USUAL)
    _arrange(figure, axes, wide, high, _needed(figure, axes))
    return figure, drawn


def caption(figure: Figure, text: str, left: float = 0.0) -> None:
    """Write a caption above a drawing; left: where its cell of the figure begins, as a share of the width."""
    figure.text(
        left + 2 * LEFT / figure.get_figwidth(), heading(figure), text, fontsize=7, va="center_baseline"
    )


def heading(figure: Figure) -> float:
    """The height of the line above the drawing, as a share of the figure's."""
    return float(1 - 0.5 * TOP / figure.get_figheight())


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format of the file's extension; the same figure gives the same bytes."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(file, metadata=undated.get(file.suffix.lower()))


def _height(axes: Axes, wide: float) -> float:
    """The height of a drawing in inches."""
    (left, right), (bottom, top), aspect = axes.get_xlim(), axes.get_ylim(), axes.get_aspect()
    if aspect == "auto":
        return max(_MIN_HEIGHT, _HEIGHT * wide)
    return max(_MIN_HEIGHT, wide * float(aspect) * abs((top - bottom) / (right - left)))


def _arrange(figure: Figure, axes: Sequence[Axes], wide: float, high: float, around: Margins) -> None:
    """Give all drawings this size and these margins, inches."""
    cell, whole = around.left + wide + around.right, around.top + high + around.bottom
    total = cell * len(axes)
    figure.set_size_inches(total, whole)
    for k, own in enumerate(axes):
        place = ((around.left + k * cell) / total, around.bottom / whole, wide / total, high / whole)
        own.set_position(place)


def _needed(figure: Figure, axes: Sequence[Axes]) -> Margins:
    """The margins in which all that lies around the drawings has room, at least the usual ones."""
    around = np.zeros(4)
    for own in axes:
        outer = own.get_tightbbox()
        if outer is not None:
            frame = own.get_position(original=True).transformed(figure.transFigure)
            beyond = frame.x0 - outer.x0, outer.x1 - frame.x1, outer.y1 - frame.y1, frame.y0 - outer.y0
            around = np.maximum(around, np.array(beyond) / figure.dpi)
    around[2] += TOP - LEFT  # the line above the drawing remains free
    return Margins(*np.where(around > USUAL, around + LEFT, USUAL).tolist())

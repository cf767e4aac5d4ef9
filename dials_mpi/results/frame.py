"""A figure around one drawing or several beside each other: as wide as suits the number of regions, and as
high as the drawing's aspect ratio requires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FILM_DPI = 160
LEFT, RIGHT, TOP, BOTTOM = 0.06, 0.55, 0.24, 0.24
"""Inches around the drawing."""

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
    wide, cell = width(regions), LEFT + width(regions) + RIGHT
    whole = cell * len(draw)
    figure = Figure((whole, wide), dpi=FILM_DPI)
    axes = [figure.add_axes(((LEFT + k * cell) / whole, 0, wide / whole, 1)) for k in range(len(draw))]
    drawn = [one(own) for one, own in zip(draw, axes, strict=True)]
    _fit_height(figure, axes, wide)
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


def _fit_height(figure: Figure, axes: Sequence[Axes], wide: float) -> None:
    """Give the figure the height that the drawings' aspect ratio requires."""
    (left, right), (bottom, top) = axes[0].get_xlim(), axes[0].get_ylim()
    high = max(_MIN_HEIGHT, wide * abs((top - bottom) / (right - left)))
    whole = TOP + high + BOTTOM
    figure.set_figheight(whole)
    for own in axes:
        box = own.get_position(original=True)
        own.set_position((box.x0, BOTTOM / whole, box.width, high / whole))

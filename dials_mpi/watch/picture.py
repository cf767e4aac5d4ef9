"""The picture of an episode: the domain's drawing, and above it a caption, the step and the return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dials_mpi.domains.base import Drawing
from dials_mpi.watch.episodes import Moment

FILM_DPI = 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.06, 0.55, 0.24, 0.24  # inches around the drawing

_MIN_HEIGHT = 1.1  # inches of the drawing: a single row needs room for the scale beside it


def width(regions: int) -> float:
    """The width of the drawing in inches: from a column of a paper to a whole page."""
    return float(np.clip(2.3 + 0.55 * np.sqrt(regions), 2.8, 8.0))


class Picture:
    """A figure of an episode's current state. clock: the step and the return so far, as text."""

    def __init__(self, regions: int, agents: int, caption: str, draw: Callable[[Axes], Drawing]) -> None:
        """regions, agents: the numbers that are shown; draw: draws the simulator in axes."""
        wide = width(regions)
        self.figure = Figure((_LEFT + wide + _RIGHT, wide), dpi=FILM_DPI)
        self._canvas = FigureCanvasAgg(self.figure)
        whole = self.figure.get_figwidth()
        self.axes = self.figure.add_axes((_LEFT / whole, 0, wide / whole, 1))
        self.drawing = draw(self.axes)
        self._fit_height(wide)
        top = 1 - 0.5 * _TOP / self.figure.get_figheight()
        left, right, baseline = 2 * _LEFT / whole, 1 - 2 * _LEFT / whole, "center_baseline"
        self.figure.text(left, top, caption, fontsize=7, va=baseline)
        self._title = self.figure.text(right, top, "", ha="right", fontsize=7, va=baseline)
        self._moving = [*self.drawing.artists, self._title]
        self._background: Any = None  # matplotlib's copy of all that does not change
        self._total, self._mean = 0.0, "mean return" if agents > 1 else "return"

    def follow(self, moment: Moment) -> None:
        """Show the next moment of the episode."""
        self._total += float(np.mean(moment.rewards, dtype=np.float64))
        self.clock = f"step {moment.step}, {self._mean} {self._total:.2f}"
        self._title.set_text(self.clock)
        self.drawing.update(moment.sources)

    def pixels(self) -> np.ndarray:
        """A frame of a film, uint8 [height, width, 3], with even height and width."""
        canvas = self._canvas
        if self._background is None:  # what does not change is drawn once
            for artist in self._moving:
                artist.set_animated(True)
            canvas.draw()
            self._background = canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self._background)
        for artist in self._moving:
            self.figure.draw_artist(artist)
        pixels = np.asarray(canvas.buffer_rgba())
        high, wide = (size - size % 2 for size in pixels.shape[:2])
        return np.ascontiguousarray(pixels[:high, :wide, :3])

    def _fit_height(self, wide: float) -> None:
        """Give the figure the height that the drawing's aspect ratio requires."""
        (left, right), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        high = max(_MIN_HEIGHT, wide * abs((top - bottom) / (right - left)))
        whole = _TOP + high + _BOTTOM
        self.figure.set_figheight(whole)
        box = self.axes.get_position(original=True)
        self.axes.set_position((box.x0, _BOTTOM / whole, box.width, high / whole))


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format of the file's extension; the same figure gives the same bytes."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(file, metadata=undated.get(file.suffix.lower()))

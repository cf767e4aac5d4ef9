"""An episode as a picture that follows it: the domain's drawing, and above it what is seen and the return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dials_mpi.domains.base import Drawing
from dials_mpi.watch.episodes import Moment

FILM_DPI = 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.06, 0.55, 0.24, 0.24  # inches around the drawing

_LOWEST = 1.1  # inches: room for the scale beside a single row


def width(regions: int) -> float:
    """Of the drawing, inches: from a column of a paper to a whole page."""
    return float(np.clip(2.3 + 0.55 * np.sqrt(regions), 2.8, 8.0))


class Picture:
    """A figure of an episode's present state. clock: the step, and the return so far."""

    def __init__(self, regions: int, agents: int, caption: str, draw: Callable[[Axes], Drawing]) -> None:
        """regions, agents: how many are shown; draw: makes the drawing in axes."""
        wide = width(regions)
        self.figure = Figure((_LEFT + wide + _RIGHT, wide), dpi=FILM_DPI)
        self._canvas = FigureCanvasAgg(self.figure)
        whole = self.figure.get_figwidth()
        self.axes = self.figure.add_axes((_LEFT / whole, 0, wide / whole, 1))
        self.drawing = draw(self.axes)
        self._fit_height(wide)
        top = 1 - 0.5 * _TOP / self.figure.get_figheight()
        how = {"fontsize": 7, "va": "center_baseline"}
        self.figure.text(2 * _LEFT / whole, top, caption, **how)
        self._title = self.figure.text(1 - 2 * _LEFT / whole, top, "", ha="right", **how)
        self._moving = [*self.drawing.artists, self._title]
        self._background = None
        self._total, self._mean = 0.0, "mean return" if agents > 1 else "return"

    def follow(self, moment: Moment) -> None:
        """Show the next moment of the episode."""
        self._total += float(np.mean(moment.rewards, dtype=np.float64))
        self.clock = f"step {moment.step}, {self._mean} {self._total:.2f}"
        self._title.set_text(self.clock)
        self.drawing.update(moment.sources)

    def pixels(self) -> np.ndarray:
        """The picture as a film has it, uint8 [height, width, 3], both even."""
        canvas = self._canvas
        if self._background is None:  # what does not move is drawn once
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
        """Make the figure as high as the drawing's aspect wants it."""
        (left, right), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        high = max(_LOWEST, wide * abs((top - bottom) / (right - left)))
        whole = _TOP + high + _BOTTOM
        self.figure.set_figheight(whole)
        box = self.axes.get_position(original=True)
        self.axes.set_position((box.x0, _BOTTOM / whole, box.width, high / whole))


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format of the file's name; the same figure gives the same bytes."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(file, metadata=undated.get(file.suffix.lower()))

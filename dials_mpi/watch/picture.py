"""The picture of an episode: the domain's drawing, and above it a caption, the step and the return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dials_mpi.domains.base import Drawing
from dials_mpi.results.frame import LEFT, caption, framed, heading
from dials_mpi.watch.episodes import Moment


class Picture:
    """A figure of an episode's current state. clock: the step and the return so far, as text."""

    def __init__(self, regions: int, agents: int, about: str, draw: Callable[[Axes], Drawing]) -> None:
        """regions, agents: the numbers that are shown; about: the caption; draw: draws the simulator."""
        self.figure, self.drawing = framed(regions, draw)
        self._canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.axes[0]
        caption(self.figure, about)
        right, line = 1 - 2 * LEFT / self.figure.get_figwidth(), heading(self.figure)
        self._title = self.figure.text(right, line, "", ha="right", fontsize=7, va="center_baseline")
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

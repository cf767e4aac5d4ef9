"""The picture of the river for ``python -m dials_mpi.watch``: levels of its reservoirs, and the weather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from river import WEATHER, Reservoirs

from dials_mpi.domains.pictures import BLUE, SMALL_PRINT, VERMILION


class RiverDrawing:
    """A bar for each reservoir, as high as it is full; red where water was lost in the last step."""

    def __init__(self, reservoirs: Reservoirs, axes: Axes, numbers: Sequence[int]) -> None:
        """numbers: of these reservoirs."""
        self.reservoirs = reservoirs
        places = range(len(numbers))
        self.bars = axes.bar(places, [1.0] * len(numbers), color=BLUE)
        self.weather = axes.text(-0.9, 1.08, "", fontsize=SMALL_PRINT)
        self.artists = [*self.bars, self.weather]
        every = 1 + len(numbers) // 20  # labels that do not overlap
        axes.set_xticks(places[::every], [str(number) for number in numbers[::every]])
        axes.set(xlabel="reservoir", ylabel="how full", xlim=(-1, len(numbers)), ylim=(0, 1.2), yticks=[0, 1])
        axes.grid(visible=False)

    def update(self, sources: np.ndarray | None) -> None:
        """Show the current state of the first episode."""
        own = self.reservoirs
        for bar, share, lost in zip(
            self.bars, (own.level / own.capacity)[:, 0].tolist(), own.flooded[:, 0].tolist(), strict=True
        ):
            bar.set(height=share, color=VERMILION if lost else BLUE)
        self.weather.set_text(WEATHER[own.seen[0][0, 0]])

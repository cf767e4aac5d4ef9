"""The picture of relays for ``python -m dials_mpi.watch``: a bar for each queue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from relays import GlobalLine, Line, LocalLine

from dials_mpi.domains.pictures import BLUE, INK, ORANGE, SKY, add_legend

COLOURS = {1.0: BLUE, 0.5: SKY, 0.25: ORANGE}
"""By value of the packets."""


class QueuesDrawing:
    """The packets in each queue, and a triangle above a queue that a packet has just entered."""

    def __init__(
        self, simulator: GlobalLine | LocalLine, axes: Axes, line: Line, nodes: Sequence[int]
    ) -> None:
        """nodes: those of the simulator, one after another."""
        self.simulator = simulator
        queues = np.flatnonzero(np.isin(line.node, nodes))
        self.places = queues + line.node[queues]  # a gap between nodes
        room = simulator.config.room
        colours = [COLOURS[value] for value in line.value[queues].tolist()]
        self.bars = axes.bar(self.places, room, color=colours)
        (self.entered,) = axes.plot([], [], "v", color=INK, markersize=3, label="a packet has entered")
        self.artists = [*self.bars, self.entered]
        middles = [self.places[line.node[queues] == node].mean() for node in nodes]
        every = 1 + len(nodes) // 20  # labels that do not overlap
        axes.set_xticks(middles[::every], [str(node) for node in nodes[::every]])
        axes.set_xlim(self.places[0] - 1, self.places[-1] + 1)
        axes.set(xlabel="node", ylabel="packets in a queue", ylim=(0, room + 1), yticks=[0, room])
        axes.grid(visible=False)
        keys = [Patch(color=colour, label=f"of value {value:g}") for value, colour in COLOURS.items()]
        add_legend(axes, [*keys, self.entered])

    def update(self, sources: np.ndarray | None) -> None:
        """Show the current state of the first episode."""
        packets, arrivals = (
            np.concatenate(values, axis=-1)[0] if isinstance(values, list) else values[0]
            for values in (self.simulator.packets, self.simulator.arrivals)
        )
        for bar, count in zip(self.bars, packets.tolist(), strict=True):
            bar.set_height(count)
        shown = arrivals > 0
        self.entered.set_data(self.places[shown], packets[shown] + 0.4)

"""Hand-coded policies of the whole grid, to compare the trained ones with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_mpi.domains.traffic.network import HEADING, SIDES
from dials_mpi.domains.traffic.simulators import TrafficGlobalSimulator

FIXED_GREEN = 31
"""Steps of green under the fixed plan, as in the actuated program."""

SHORTEST_GREEN = 8
"""Steps of green that the others leave at least, as in the actuated program."""

_SERVED = (("south", "north"), ("west", "east"))  # by the first and by the second green
_WAYS = [[SIDES.index(side) for side in sides] for sides in _SERVED]


class TrafficController:
    """Decides for every light whether to switch; actions int [N, E]."""

    def __init__(self, name: str, simulator: TrafficGlobalSimulator) -> None:
        self._crossings = simulator.crossings
        self._decide = CONTROLLERS[name]
        network = self._crossings.network
        self._grid = network.copies, network.rows, network.columns
        if name == "actuated":
            self._crossings.hand_over()

    def act(self) -> np.ndarray:
        """For the present state; called once before each step."""
        actions = self._decide(self).astype(np.int64)
        return actions.reshape(self._grid[0], -1).T

    def _never(self) -> np.ndarray:
        return np.zeros(len(self._crossings.names))

    def _fixed(self) -> np.ndarray:
        return self._crossings.lights.age >= FIXED_GREEN

    def _greedy(self) -> np.ndarray:
        """Switch when there are more vehicles on the other two edges."""
        return self._switch_to_larger(self._crossings.count)

    def _max_pressure(self) -> np.ndarray:
        """Switch when the other two ways have the larger sum of vehicles here less those on the next edge."""
        return self._switch_to_larger(self._crossings.count - self._next_counts())

    def _next_counts(self) -> np.ndarray:
        """Vehicles on the edge to which each incoming one leads, 0 where that leaves the grid: [K, 4]."""
        counts = self._crossings.count.reshape(*self._grid, len(SIDES))
        padded = np.pad(counts, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = self._grid[1:]
        ahead = [
            padded[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns, m]
            for m, (down, right) in enumerate(HEADING[side] for side in SIDES)
        ]
        return np.stack(ahead, -1).reshape(-1, len(SIDES))

    def _switch_to_larger(self, demand: np.ndarray) -> np.ndarray:
        lights = self._crossings.lights
        first, second = (demand[:, ways].sum(1) for ways in _WAYS)
        other_is_larger = np.where(lights.phase == 0, second > first, first > second)
        return other_is_larger & (lights.age >= SHORTEST_GREEN)


CONTROLLERS: dict[str, Callable[[TrafficController], np.ndarray]] = {
    "actuated": TrafficController._never,  # SUMO decides
    "fixed": TrafficController._fixed,
    "greedy": TrafficController._greedy,
    "max-pressure": TrafficController._max_pressure,
    "never": TrafficController._never,
}
"""The names of the policies, the one to compare with first."""

"""Hand-coded policies of the whole grid, for comparison with the trained ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_mpi.domains.traffic.network import HEADING, SIDES
from dials_mpi.domains.traffic.simulators import TrafficGlobalSimulator

FIXED_GREEN = 31
"""Steps of green under the fixed plan, as in the actuated program."""

SHORTEST_GREEN = 8
"""The least number of steps of green under the others, as in the actuated program."""

_SERVED = (("south", "north"), ("west", "east"))  # sides served by the first and by the second green
_SERVED_EDGES = [[SIDES.index(side) for side in sides] for sides in _SERVED]


class TrafficController:
    """Decides for every signal whether to switch; actions int [N, E]."""

    def __init__(self, name: str, simulator: TrafficGlobalSimulator) -> None:
        self._junctions = simulator.junctions
        self._decide = CONTROLLERS[name]
        network = self._junctions.network
        self._grid = network.copies, network.rows, network.columns
        if name == "actuated":
            self._junctions.use_actuated_program()

    def act(self) -> np.ndarray:
        """The actions for the current state; call once before each step."""
        actions = self._decide(self).astype(np.int64)
        return actions.reshape(self._grid[0], -1).T

    def _never(self) -> np.ndarray:
        return np.zeros(len(self._junctions.names))

    def _fixed(self) -> np.ndarray:
        return self._junctions.lights.age >= FIXED_GREEN

    def _greedy(self) -> np.ndarray:
        """Switch when there are more vehicles on the two edges that have red."""
        return self._switch_to_larger(self._junctions.count)

    def _max_pressure(self) -> np.ndarray:
        """Switch when the pressure, vehicles here less those on the next edge, is larger on the red edges."""
        return self._switch_to_larger(self._junctions.count - self._next_counts())

    def _next_counts(self) -> np.ndarray:
        """Vehicles on the edge after each incoming edge, 0 for an exit edge: [K, 4]."""
        counts = self._junctions.count.reshape(*self._grid, len(SIDES))
        padded = np.pad(counts, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = self._grid[1:]
        ahead = [
            padded[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns, m]
            for m, (down, right) in enumerate(HEADING[side] for side in SIDES)
        ]
        return np.stack(ahead, -1).reshape(-1, len(SIDES))

    def _switch_to_larger(self, demand: np.ndarray) -> np.ndarray:
        lights = self._junctions.lights
        first, second = (demand[:, edges].sum(1) for edges in _SERVED_EDGES)
        other_is_larger = np.where(lights.phase == 0, second > first, first > second)
        return other_is_larger & (lights.age >= SHORTEST_GREEN)


CONTROLLERS: dict[str, Callable[[TrafficController], np.ndarray]] = {
    "actuated": TrafficController._never,  # SUMO switches the signals
    "fixed": TrafficController._fixed,
    "greedy": TrafficController._greedy,
    "max-pressure": TrafficController._max_pressure,
    "never": TrafficController._never,
}
"""The policies by name; the first one is the main comparison."""

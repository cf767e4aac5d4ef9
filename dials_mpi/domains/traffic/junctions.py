"""Signalised crossings in a running simulation: their lights, and what is seen on their incoming edges.

K = copies x rows x columns crossings of a network, all read and set at once (see network.py for the order).
"""

from __future__ import annotations

import operator

import numpy as np

from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.network import ACTUATED, PHASES, SIDES, Network
from dials_mpi.domains.traffic.sumo import simulation as sumo

CELL_LENGTH = 10.0
"""Metres."""


class Lights:
    """The phase of every light and since when it shows, under the agents' actions.

    phase: int [K], an index of PHASES; age: int [K], steps that it has been shown.
    """

    def __init__(self, crossings: int, yellow: int) -> None:
        self.phase = np.zeros(crossings, np.int64)
        self.age = np.zeros(crossings, np.int64)
        self._yellow = yellow
        self._changing = np.empty(crossings, np.int64)

    def reset(self, where: np.ndarray) -> None:
        """Lights in the mask [K] go back to the first green."""
        self.phase[where] = self.age[where] = 0

    def act(self, actions: np.ndarray) -> np.ndarray:
        """Actions [K] for the coming step: 1 leaves a green, ignored in yellow; the lights that change."""
        number = kernels.turn(self.phase, self.age, actions, len(PHASES), self._yellow, self._changing)
        return self._changing[:number]


class Crossings:
    """The K crossings of a network and their traffic, in a SUMO simulation of its own.

    occupied: uint8 [K, 4 x cells], whether a vehicle's front is in a cell of an incoming edge, cells counted
    from the stop line, edges in the order of SIDES. count: int [K, 4], vehicles on each incoming edge.
    speed_sum: float64 [K, 4], m/s, of these. entered: bool [K, 4], a vehicle came onto the edge in the last
    step. newest: the last vehicle to have come onto each edge, [K x 4].
    """

    def __init__(self, network: Network, cells: int, yellow: int, backend: str, gui: bool) -> None:
        self.network, self.cells = network, cells
        self.names = network.crossings
        self.lights = Lights(len(self.names), yellow)
        self._how = network.lanes, backend, gui
        self._actuated = False

    def hand_over(self) -> None:
        """From the next start on, SUMO's actuated program switches the lights and actions are ignored."""
        self._actuated = True

    def start(self) -> None:
        """A new SUMO simulation without any traffic."""
        self.simulation = self.new_simulation()
        self.lights.reset(np.ones(len(self.names), bool))
        if self._actuated:
            self.simulation.run_program(self.names, ACTUATED)
        else:
            self._show(range(len(self.names)))
        self.newest = [None] * len(self.names) * len(SIDES)
        self._see(self.simulation.read())

    def close(self) -> None:
        """End the SUMO simulation, if there is one."""
        if hasattr(self, "simulation"):
            self.simulation.close()

    def clear(self, where: np.ndarray, vehicles: list[str]) -> None:
        """Take these vehicles out; they are all that the crossings in the mask [K] have."""
        self.simulation.remove(vehicles)
        self.lights.reset(where)
        self._show(np.flatnonzero(where))
        if self._actuated:
            self.simulation.run_program([self.names[k] for k in np.flatnonzero(where)], ACTUATED)
        self.occupied[where] = self.count[where] = self.speed_sum[where] = self.entered[where] = 0
        for i in np.flatnonzero(np.repeat(where, len(SIDES))):
            self.newest[i] = None

    def step(self, actions: np.ndarray, entries: list[sumo.Entry]) -> None:
        """One second: the lights follow the actions [K], vehicles enter, all drive, all is read."""
        if not self._actuated:
            self._show(self.lights.act(actions))
        self.simulation.enter(entries)
        self.simulation.step()
        if self._actuated:
            states = self.simulation.lights(self.names)
            self.lights.phase = np.array([PHASES.index(state) for state in states])
        self._see(self.simulation.read())

    def observe(self, groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """``occupied``, then the phase of every light, one-hot: uint8 [K, 4 x cells + 4]; and ``occupied``.

        Both are new, and of so many groups of crossings, all equally large, come the first of each, then the
        second of each, and so on.
        """
        return kernels.observe(self.occupied, self.lights.phase, len(PHASES), groups)

    def rewards(self) -> np.ndarray:
        """Mean speed of the vehicles on the incoming edges over the speed limit, 0 without: float32 [K]."""
        return kernels.mean_speeds(self.speed_sum, self.count, self.network.speed_limit)

    def new_simulation(self) -> sumo.Simulation:
        """SUMO, with the lights in its own hands."""
        network, routes, actuated = self.network.files()
        additional = [routes, actuated] if self._actuated else [routes]
        return sumo.Simulation(network, additional, *self._how)

    def _show(self, crossings: range | np.ndarray) -> None:
        self.simulation.set_lights((self.names[k], PHASES[self.lights.phase[k]]) for k in crossings)

    def _see(self, reading: sumo.Reading) -> None:
        """Take a reading in."""
        count, position, speed, newest = reading
        occupied, speed_sum = np.zeros((len(count), self.cells), np.uint8), np.zeros(len(count))
        kernels.see(count, position, speed, self.network.edge_length, CELL_LENGTH, occupied, speed_sum)
        changed = np.fromiter(map(operator.ne, newest, self.newest), bool, len(count))
        shape = len(self.names), len(SIDES)
        self.newest = newest
        self.occupied = occupied.reshape(len(self.names), -1)
        self.count, self.speed_sum = count.reshape(shape), speed_sum.reshape(shape)
        self.entered = (changed & (count > 0)).reshape(shape)

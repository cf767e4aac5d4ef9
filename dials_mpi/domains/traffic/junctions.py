"""Signalised junctions in a running simulation: their signals, and the vehicles on their incoming edges.

K = copies x rows x columns junctions of a network, all read and set at once (see network.py for the order).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable

import numpy as np

from dials_mpi.domains.base import Description, Part, consecutive
from dials_mpi.domains.sumo.reading import Reading
from dials_mpi.domains.sumo.simulation import Insertion, Simulation
from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.network import ACTUATED, PHASES, SIDES, Network
from dials_mpi.domains.traffic.vehicles import copy_of

CELL_LENGTH = 10.0
"""Metres."""


def parts(cells: int, lights: bool = True, junctions: int = 1) -> Description:
    """The parts of what ``Junctions.observe`` returns, or of several junctions' rows one after another."""
    served = tuple(f"green for the {' and '.join(phase)}" for phase in (SIDES[1::2], SIDES[::2]))
    phases = (served[0], f"yellow after {served[0]}", served[1], f"yellow after {served[1]}")
    meaning = f"1: a vehicle is in the cell; of each lane, cells of {CELL_LENGTH:g} m from the stop line"
    found = []
    for junction in range(junctions):
        whose = f" of junction {junction}" if junctions > 1 else ""
        found.append(Part(f"lanes{whose}", 0, (len(SIDES), cells), meaning, SIDES))
        if lights:
            found.append(Part(f"phase{whose}", 0, (len(PHASES),), "1: the signal shows this phase", phases))
    return consecutive(*found)


class Lights:
    """The phase of every signal and its age, under the agents' actions.

    phase: int [K], an index of PHASES; age: int [K], number of steps for which it has been shown.
    """

    def __init__(self, junctions: int, yellow: int) -> None:
        self.phase = np.zeros(junctions, np.int64)
        self.age = np.zeros(junctions, np.int64)
        self._yellow = yellow
        self._changing = np.empty(junctions, np.int64)

    def reset(self, where: np.ndarray) -> None:
        """Show the first green at the junctions in the mask [K]."""
        self.phase[where] = self.age[where] = 0

    def act(self, actions: np.ndarray) -> np.ndarray:
        """Apply the actions [K] of the coming step, and return the indices of the signals that change.

        1 ends a green; during yellow actions are ignored.
        """
        number = kernels.switch(self.phase, self.age, actions, len(PHASES), self._yellow, self._changing)
        return self._changing[:number]


class Observed:
    """K junctions as agents and rewards see them; a subclass sets the arrays.

    occupied: uint8 [K, 4 x cells], whether a vehicle's front is in a cell of an incoming edge, cells counted
    from the stop line, edges in the order of SIDES. count: int [K, 4], vehicles on each incoming edge.
    speed_sum: float64 [K, 4], m/s, the sum of their speeds. entered: bool [K, 4], a vehicle entered the edge
    in the last step.
    """

    occupied: np.ndarray
    count: np.ndarray
    speed_sum: np.ndarray
    entered: np.ndarray

    def __init__(self, network: Network, cells: int, yellow: int) -> None:
        self.network, self.cells = network, cells
        self.names = network.junctions
        self.lights = Lights(len(self.names), yellow)

    def observe(self, groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Observations: ``occupied`` and the phase of the signal, one-hot, uint8 [K, 4 x cells + 4]; and
        ``occupied`` alone. Both are new arrays.

        groups: of consecutive junctions, all equally large. The rows are ordered: the first junction of each
        group, the second of each group, and so on.
        """
        return kernels.observe(self.occupied, self.lights.phase, len(PHASES), groups)

    def rewards(self) -> np.ndarray:
        """Mean speed of the vehicles on the incoming edges over the speed limit: float32 [K]; 0 if none."""
        return kernels.mean_speeds(self.speed_sum, self.count, self.network.speed_limit)


class Junctions(Observed):
    """The K junctions of a network and their traffic, in a SUMO simulation of its own.

    newest: the last vehicle that entered each edge, [K x 4].
    """

    def __init__(
        self,
        network: Network,
        cells: int,
        yellow: int,
        backend: str,
        gui: bool,
        simulate: Callable[..., Simulation] = Simulation,
    ) -> None:
        """simulate: starts a simulation; it takes the arguments of Simulation."""
        super().__init__(network, cells, yellow)
        self._simulate, self._options = simulate, (network.lanes, backend, gui)
        self._actuated = False

    def use_actuated_program(self) -> None:
        """From the next ``start`` on, SUMO's actuated program switches the signals; actions are ignored."""
        self._actuated = True

    def start(self) -> None:
        """Start a new SUMO simulation, without any vehicle."""
        self.close()
        network, routes, actuated = self.network.files()
        additional = [routes, actuated] if self._actuated else [routes]
        self.simulation = self._simulate(network, additional, *self._options)
        self.lights.reset(np.ones(len(self.names), bool))
        if self._actuated:
            self.simulation.run_program(self.names, ACTUATED)
        else:
            self._set_lights(range(len(self.names)))
        self.newest = [""] * len(self.names) * len(SIDES)
        self._update(self.simulation.read())

    def close(self) -> None:
        """End the SUMO simulation, if there is one."""
        if hasattr(self, "simulation"):
            self.simulation.close()

    def clear(self, where: np.ndarray, vehicles: list[str]) -> None:
        """Remove all vehicles of the junctions in the mask [K], and reset their signals.

        vehicles: the names of all these vehicles.
        """
        self.simulation.remove(vehicles)
        self.lights.reset(where)
        self._set_lights(np.flatnonzero(where))
        if self._actuated:
            self.simulation.run_program([self.names[k] for k in np.flatnonzero(where)], ACTUATED)
        self.occupied[where] = self.count[where] = self.speed_sum[where] = self.entered[where] = 0
        for i in np.flatnonzero(np.repeat(where, len(SIDES))):
            self.newest[i] = ""

    def step(self, actions: np.ndarray, insertions: list[Insertion]) -> None:
        """One second: apply the actions [K] to the signals, insert vehicles, simulate, and read all lanes."""
        if not self._actuated:
            self._set_lights(self.lights.act(actions))
        self.simulation.insert(insertions)
        self.simulation.step()
        if self._actuated:
            states = self.simulation.lights(self.names)
            self.lights.phase = np.array([PHASES.index(state) for state in states])
        self._update(self.simulation.read())

    def vehicles(self, copies: np.ndarray) -> list[str]:
        """All vehicles on the road in the copies of the network where the mask is set."""
        return [name for name in self.simulation.vehicles() if copies[copy_of(name)]]

    def remove(self, vehicles: list[str]) -> None:
        """Remove vehicles, on the road or waiting outside the network."""
        self.simulation.remove(vehicles)

    def _set_lights(self, junctions: Iterable[int]) -> None:
        self.simulation.set_lights((self.names[k], PHASES[self.lights.phase[k]]) for k in junctions)

    def _update(self, reading: Reading) -> None:
        """Set the attributes from a reading."""
        count, position, speed, newest = reading
        occupied, speed_sum = np.zeros((len(count), self.cells), np.uint8), np.zeros(len(count))
        kernels.occupy(count, position, speed, self.network.edge_length, CELL_LENGTH, occupied, speed_sum)
        changed = np.fromiter(map(operator.ne, newest, self.newest), bool, len(count))
        shape = len(self.names), len(SIDES)
        self.newest = newest
        self.occupied = occupied.reshape(len(self.names), -1)
        self.count, self.speed_sum = count.reshape(shape), speed_sum.reshape(shape)
        self.entered = (changed & (count > 0)).reshape(shape)

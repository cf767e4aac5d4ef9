"""What SUMO is told, written down and told again: the same traffic without anything that reads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.junctions import Crossings
from dials_mpi.domains.traffic.network import Network
from dials_mpi.domains.traffic.sumo import simulation as sumo


class Tape:
    """A SUMO simulation that writes down every command that changes something: (its method, the argument).

    make: starts the simulation.
    """

    def __init__(self, make: Callable[[], sumo.Simulation]) -> None:
        self._make, self._simulation = make, make()
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulation, name)

    def step(self) -> None:
        """As of sumo.Simulation; so are the others."""
        self._tell("step")

    def enter(self, entries: Iterable[sumo.Entry]) -> None:
        """Not written down if there are none."""
        self._tell("enter", list(entries))

    def remove(self, vehicles: Iterable[str]) -> None:
        """Not written down if there are none."""
        self._tell("remove", list(vehicles))

    def set_lights(self, lights: Iterable[tuple[str, str]]) -> None:
        """Not written down if there are none."""
        self._tell("set_lights", list(lights))

    def run_program(self, crossings: Iterable[str], name: str) -> None:
        """Not written down if there are none."""
        self._tell("run_program", list(crossings), name)

    def replay(self, clock: Callable[[], float] = time.perf_counter) -> Replay:
        """All that was told, told to a new simulation and nothing asked; it is left running."""
        start = clock()
        simulation = self._make()
        stepping = 0.0
        commands = {name: getattr(simulation, name) for name in {name for name, _ in self.told}}
        for name, arguments in self.told:
            if name != "step":
                commands[name](*arguments)
                continue
            before = clock()
            commands[name]()
            stepping += clock() - before
        return Replay(simulation, clock() - start, stepping)

    def _tell(self, name: str, *arguments: Any) -> None:
        if not arguments or arguments[0]:
            self.told.append((name, arguments))
        getattr(self._simulation, name)(*arguments)


class Replay(NamedTuple):
    """A simulation that was told what a tape holds; seconds in all, and of these in ``simulationStep``."""

    simulation: sumo.Simulation
    seconds: float
    stepping: float


class Recorder(Traffic):
    """The same networked system; ``tapes`` hold what its simulators tell SUMO, one for each start."""

    def __init__(self, config: TrafficConfig) -> None:
        super().__init__(config)
        self.tapes: list[Tape] = []

    def _crossings(self, network: Network) -> Crossings:
        crossings = super()._crossings(network)
        make = crossings.new_simulation

        def recorded() -> Tape:
            self.tapes.append(Tape(make))
            return self.tapes[-1]

        crossings.new_simulation = recorded
        return crossings

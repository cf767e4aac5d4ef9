"""A log of the commands that SUMO receives, and its replay: the same traffic without any reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dials_mpi.domains.sumo.simulation import Departing, Insertion, Simulation


class LoggedSimulation(Simulation):
    """A simulation that logs every command that changes something; its arguments are those of Simulation.

    commands: (name of the method, its arguments); a command with an empty list is left out.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._arguments = arguments
        self.commands: list[tuple[str, tuple[Any, ...]]] = []

    def step(self) -> None:
        """As Simulation; so are the others."""
        self.commands.append(("step", ()))
        super().step()

    def insert(self, insertions: Iterable[Insertion]) -> None:
        """Logged if there are any."""
        super().insert(self._logged("insert", insertions))

    def depart(self, vehicles: Iterable[Departing]) -> None:
        """Logged if there are any."""
        super().depart(self._logged("depart", vehicles))

    def remove(self, vehicles: Iterable[str]) -> None:
        """Logged if there are any."""
        super().remove(self._logged("remove", vehicles))

    def set_lights(self, lights: Iterable[tuple[str, str]]) -> None:
        """Logged if there are any."""
        super().set_lights(self._logged("set_lights", lights))

    def run_program(self, junctions: Iterable[str], name: str) -> None:
        """Logged if there are any."""
        super().run_program(self._logged("run_program", junctions, name), name)

    def replay(self, clock: Callable[[], float] = time.perf_counter) -> Replay:
        """Give all logged commands to a new simulation and read nothing; the simulation is left running."""
        return replayed(self.commands, lambda: Simulation(*self._arguments), clock)

    def _logged(self, name: str, values: Iterable[Any], *others: Any) -> list[Any]:
        listed = list(values)
        if listed:
            self.commands.append((name, (listed, *others)))
        return listed


class Replay(NamedTuple):
    """A simulation after a replay; seconds in all, and of these in ``simulationStep``."""

    simulation: Simulation
    seconds: float
    stepping: float


def replayed(
    commands: Iterable[tuple[str, tuple[Any, ...]]],
    begin: Callable[[], Simulation],
    clock: Callable[[], float] = time.perf_counter,
) -> Replay:
    """Give commands to the simulation that ``begin`` starts, and read nothing."""
    start = clock()
    simulation = begin()
    stepping = 0.0
    methods = {name: getattr(simulation, name) for name in {name for name, _ in commands}}
    for name, arguments in commands:
        if name != "step":
            methods[name](*arguments)
            continue
        before = clock()
        methods[name]()
        stepping += clock() - before
    return Replay(simulation, clock() - start, stepping)

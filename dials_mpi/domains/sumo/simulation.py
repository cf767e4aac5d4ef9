"""One running SUMO simulation: all commands and questions to SUMO pass through here.

libsumo runs SUMO inside this process, traci in a process of its own, over a socket; ``Simulation`` has the
same methods for both. libsumo holds one simulation per process: starting a new one ends the one before.
With traci there can be several.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.libsumo_backend import LibsumoBackend
from dials_mpi.domains.sumo.reading import Reading
from dials_mpi.domains.sumo.traci_backend import TraciBackend

OPTIONS = ("--time-to-teleport", "-1", "--no-step-log", "--no-warnings", "--duration-log.disable")
"""Of SUMO's command line, for every simulation."""

WINDOW = ("--start", "--quit-on-end", "--delay", "100", "--window-size", "1000,800")
"""The same for sumo-gui: milliseconds after each step, which the window can change, and pixels."""


class Insertion(NamedTuple):
    """A vehicle of a type to insert on the first edge of a route: its front in metres from the beginning of
    the edge, its speed in m/s.

    SUMO inserts it in the first step in which it fits; until then it waits outside the network.
    """

    vehicle: str
    type: str
    route: str
    position: float
    speed: float


class Departing(NamedTuple):
    """A vehicle of a type to insert; lane, position, speed: as SUMO's departLane, departPos, departSpeed.

    speed_factor: its speed on a free road over the limit; None: drawn as its type says.
    """

    vehicle: str
    type: str
    route: str
    lane: str
    position: str
    speed: str
    speed_factor: float | None = None


class VehiclePositions(NamedTuple):
    """Where V vehicles are.

    front: float64 [V, 2], the middle of the front bumper, metres to the east and north; angle: float64 [V],
    degrees from north, clockwise; speed: float64 [V], m/s.
    """

    front: np.ndarray
    angle: np.ndarray
    speed: np.ndarray


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _guarded(
    method: Callable[Concatenate[Simulation, _Arguments], _Result],
) -> Callable[Concatenate[Simulation, _Arguments], _Result]:
    """Turn each error of SUMO into a SimulatorFailure, after which the simulation is over."""

    @functools.wraps(method)
    def call(self: Simulation, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        if self._ended:
            raise RuntimeError(
                "this SUMO simulation has ended (libsumo has one at a time): reset starts another"
            )
        try:
            return method(self, *arguments, **named)
        except self.errors as error:
            self.close()
            reason = str(error).strip() or type(error).__name__
            raise SimulatorFailure(f"SUMO failed in {method.__name__}: {reason}") from error

    return call


class Simulation:
    """A running SUMO simulation of one network, in steps of one second, without teleports.

    network, additional: SUMO's files. lanes: those that ``read`` reads, in its order. options: more of SUMO's
    command line. SimulatorFailure: SUMO does not start, or fails in a method. RuntimeError: a method is
    called after the simulation has ended.

    running: the simulation of libsumo, if one runs.
    """

    running: Simulation | None = None

    def __init__(
        self,
        network: Path,
        additional: Sequence[Path],
        lanes: Sequence[str],
        backend: str = "auto",
        gui: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        module, in_process = installation.module(backend, gui), installation.in_process(backend, gui)
        if in_process and Simulation.running:
            Simulation.running.close()
        self._lanes = list(lanes)
        command = [
            "sumo" if in_process else installation.simulator(gui),
            *("-n", str(network)),
            *(("-a", ",".join(map(str, additional))) if additional else ()),
            *OPTIONS,
            *(WINDOW if gui else ()),
            *options,
        ]
        self._backend = (LibsumoBackend if in_process else TraciBackend)(module, command, self._lanes)
        self._api, self.errors = self._backend.api, self._backend.errors
        self._ended = False
        if in_process:
            Simulation.running = self

    @_guarded
    def step(self) -> None:
        """Advance by one second."""
        self._api.simulationStep()

    @_guarded
    def read(self) -> Reading:
        """The vehicles whose front is on one of the lanes."""
        return self._backend.read()

    @_guarded
    def halting(self, where: Sequence[int]) -> list[int]:
        """Numbers of halting vehicles (below 0.1 m/s) on the lanes where ``where``, [L], is not 0."""
        return list(map(self._backend.halting, compress(self._lanes, where)))

    @_guarded
    def ask(self, kind: str, question: str, names: Iterable[str]) -> list[Any]:
        """SUMO's answers for some objects: kind: "lane", "vehicle", …; question: its function's name.

        Through libsumo an answer takes less than a microsecond, through traci 50.
        """
        return list(map(self._backend.function(kind, question), names))

    @_guarded
    def insert(self, insertions: Iterable[Insertion]) -> None:
        """Insert vehicles in the coming step."""
        add = self._backend.add
        for vehicle, type, route, position, speed in insertions:
            add(vehicle, route, type, "now", "first", _text(position), _text(speed))

    @_guarded
    def depart(self, vehicles: Iterable[Departing]) -> None:
        """Insert vehicles in the coming step."""
        add = self._backend.add
        for vehicle, type, route, lane, position, speed, factor in vehicles:
            add(vehicle, route, type, "now", lane, position, speed)
            if factor is not None:
                self._api.vehicle.setSpeedFactor(vehicle, factor)

    @_guarded
    def waiting(self) -> Sequence[str]:
        """The vehicles that were inserted and are not on the road yet."""
        return self._api.simulation.getPendingVehicles()

    @_guarded
    def remove(self, vehicles: Iterable[str]) -> None:
        """Remove vehicles, on the road or waiting outside the network."""
        for vehicle in vehicles:
            self._backend.unsubscribe(vehicle)
            self._api.vehicle.remove(vehicle)

    @_guarded
    def vehicles(self) -> Sequence[str]:
        """All vehicles on the road."""
        return self._api.vehicle.getIDList()

    @_guarded
    def arrived(self) -> Sequence[str]:
        """The vehicles that reached the end of their route in the last step."""
        return self._api.simulation.getArrivedIDList()

    @_guarded
    def positions_and_speeds(self, vehicles: Iterable[str]) -> list[tuple[float, float]]:
        """Positions on their lanes, metres, and speeds, m/s."""
        vehicle = self._api.vehicle
        return [(vehicle.getLanePosition(name), vehicle.getSpeed(name)) for name in vehicles]

    @_guarded
    def vehicle_positions(self) -> VehiclePositions:
        """All vehicles on the road, for a picture."""
        vehicle = self._api.vehicle
        names = vehicle.getIDList()
        front = np.reshape([vehicle.getPosition(name) for name in names], (-1, 2)).astype(float)
        angle, speed = ([read(name) for name in names] for read in (vehicle.getAngle, vehicle.getSpeed))
        return VehiclePositions(front, np.array(angle, float), np.array(speed, float))

    @_guarded
    def lane_ends(self, lanes: Iterable[str]) -> np.ndarray:
        """Where straight lanes begin and end, metres to the east and north: float64 [L, 2, 2]."""
        shapes = [self._api.lane.getShape(lane) for lane in lanes]
        return np.array([(shape[0], shape[-1]) for shape in shapes], float)

    @_guarded
    def distances(self, vehicles: Iterable[str]) -> list[float]:
        """Metres that vehicles on the road have driven."""
        return [self._api.vehicle.getDistance(vehicle) for vehicle in vehicles]

    @_guarded
    def length(self, lane: str) -> float:
        """The length of a lane, metres."""
        return self._api.lane.getLength(lane)

    @_guarded
    def set_lights(self, lights: Iterable[tuple[str, str]]) -> None:
        """Set signals: pairs (junction, state); a state lasts until the next one is set."""
        for junction, state in lights:
            self._api.trafficlight.setRedYellowGreenState(junction, state)

    @_guarded
    def run_program(self, junctions: Iterable[str], name: str) -> None:
        """Let SUMO switch the signals of these junctions by one of its programs."""
        for junction in junctions:
            self._api.trafficlight.setProgram(junction, name)

    @_guarded
    def lights(self, junctions: Iterable[str]) -> list[str]:
        """The states of the junctions' signals."""
        return [self._api.trafficlight.getRedYellowGreenState(junction) for junction in junctions]

    def close(self) -> None:
        """End the simulation. A second call does nothing."""
        if self._ended:
            return
        self._ended = True
        if Simulation.running is self:
            Simulation.running = None
        with contextlib.suppress(*self.errors):  # SUMO's process may have ended already
            self._api.close()
        self._backend.kill()


@functools.lru_cache(maxsize=4096)
def _text(number: float) -> str:
    return f"{number:.3f}"

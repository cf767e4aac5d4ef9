"""The door to SUMO, the only file that asks libsumo and traci: one running simulation.

libsumo runs SUMO inside this process, traci in a process of its own, over a socket; what the rest of the
domain asks is the same. libsumo holds one simulation per process, so here there is one at a time with
traci too: starting a new one ends the one before.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

import numpy as np

from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.traffic.sumo import installation

CAR = {
    "id": "car",
    "carFollowModel": "IDM",
    "accel": "2.6",
    "decel": "7.5",
    "tau": "1.0",
    "minGap": "2.5",
    "length": "5",
    # Every driver wants to drive at the speed limit. The authors' deviation of 0.1 has no effect where
    # cars enter at the limit: SUMO raises a lower wish to the speed of departure, maxSpeed caps a higher
    # one. Without it SUMO draws no random number at all (its IDM ignores sigma).
    "speedFactor": "1",
    "speedDev": "0",
}
"""The vehicle type (the authors' parameters); ``maxSpeed`` is the speed limit."""

_ATTEMPTS, _PAUSE = 3000, 0.02
"""How often and at which distance, in seconds, a SUMO process that is starting is called."""


class Entry(NamedTuple):
    """A vehicle that is to enter: at the first moment that it fits, else it waits outside."""

    vehicle: str
    route: str
    position: float
    speed: float


class Sight(NamedTuple):
    """Where V vehicles are on the road.

    front: float64 [V, 2], the middle of the front bumper, metres to the east and north; angle: float64 [V],
    degrees from north, clockwise; speed: float64 [V], m/s.
    """

    front: np.ndarray
    angle: np.ndarray
    speed: np.ndarray


class Reading(NamedTuple):
    """The vehicles on L lanes, V in all.

    count: int64 [L]. position: float64 [V], lane after lane, their fronts, metres from the lane's beginning.
    mean_speed: float64, m/s, of each lane that has vehicles. newest: the last vehicle to have entered each
    lane, None without one.
    """

    count: np.ndarray
    position: np.ndarray
    mean_speed: np.ndarray
    newest: list[str | None]


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turn whatever SUMO's side raises into SimulatorFailure; the simulation is over."""

    @functools.wraps(method)
    def call(self: Simulation, *arguments: Any) -> Any:
        if self is not Simulation.running:
            raise RuntimeError(
                "this SUMO simulation has ended (there is one at a time): reset starts another"
            )
        try:
            return method(self, *arguments)
        except self.errors as error:
            self.close()
            reason = str(error).strip() or type(error).__name__
            raise SimulatorFailure(f"SUMO failed in {method.__name__}: {reason}") from error

    return call


class Simulation:
    """A running SUMO simulation of one network, in steps of one second, without teleports.

    network, additional: SUMO's files. lanes: those that ``read`` reads, in its order.
    """

    running: Simulation | None = None

    def __init__(
        self,
        network: Path,
        additional: Sequence[Path],
        lanes: Sequence[str],
        backend: str = "auto",
        gui: bool = False,
    ) -> None:
        if Simulation.running:
            Simulation.running.close()
        self._lanes = list(lanes)
        self._process: subprocess.Popen[bytes] | None = None
        self._subscribed: set[str] = set()
        self._module = installation.module(backend, gui)
        command = [
            installation.simulator(gui) if self._module.__name__ == "traci" else "sumo",
            *("-n", str(network), "-a", ",".join(map(str, additional))),
            *("--time-to-teleport", "-1", "--no-step-log", "--no-warnings", "--duration-log.disable"),
            *(("--start", "--quit-on-end") if gui else ()),
        ]
        self.errors: tuple[type[Exception], ...]
        if self._module.__name__ == "libsumo":
            self._start_libsumo(command)
        else:
            self._start_traci(command)
        Simulation.running = self

    @_guarded
    def step(self) -> None:
        """Advance by one second."""
        self._api.simulationStep()

    @_guarded
    def read(self) -> Reading:
        """The vehicles whose front is on one of the lanes."""
        return self._read()

    @_guarded
    def halting(self, where: Sequence[int]) -> list[int]:
        """How many vehicles stand (below 0.1 m/s) on each of the lanes where this, [L], is not 0."""
        return list(map(self._halting, compress(self._lanes, where)))

    @_guarded
    def enter(self, entries: Iterable[Entry]) -> None:
        """Vehicles that are to enter in the coming step."""
        add, car = self._add, CAR["id"]
        for vehicle, route, position, speed in entries:
            add(vehicle, route, car, "now", "first", _text(position), _text(speed))

    @_guarded
    def remove(self, vehicles: Iterable[str]) -> None:
        """Take vehicles out, on the road or waiting to enter."""
        for vehicle in vehicles:
            self._forget(vehicle)
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
    def places(self, vehicles: Iterable[str]) -> list[tuple[float, float]]:
        """Positions on their lanes, metres, and speeds, m/s."""
        vehicle = self._api.vehicle
        return [(vehicle.getLanePosition(name), vehicle.getSpeed(name)) for name in vehicles]

    @_guarded
    def sight(self) -> Sight:
        """All vehicles on the road, for a picture."""
        vehicle = self._api.vehicle
        names = vehicle.getIDList()
        front = [vehicle.getPosition(name) for name in names]
        angle, speed = ([read(name) for name in names] for read in (vehicle.getAngle, vehicle.getSpeed))
        return Sight(np.reshape(front, (-1, 2)).astype(float), np.array(angle, float), np.array(speed, float))

    @_guarded
    def ways(self, lanes: Iterable[str]) -> np.ndarray:
        """Where straight lanes begin and end, metres to the east and north: float64 [L, 2, 2]."""
        shapes = [self._api.lane.getShape(lane) for lane in lanes]
        return np.array([(shape[0], shape[-1]) for shape in shapes], float)

    @_guarded
    def distances(self, vehicles: Iterable[str]) -> list[float]:
        """Metres that vehicles on the road have driven."""
        return [self._api.vehicle.getDistance(vehicle) for vehicle in vehicles]

    @_guarded
    def length(self, lane: str) -> float:
        """Metres."""
        return self._api.lane.getLength(lane)

    @_guarded
    def set_lights(self, lights: Iterable[tuple[str, str]]) -> None:
        """Crossings and the states of their lights; they stay so."""
        for crossing, state in lights:
            self._api.trafficlight.setRedYellowGreenState(crossing, state)

    @_guarded
    def run_program(self, crossings: Iterable[str], name: str) -> None:
        """Let SUMO switch these lights by a program of its own."""
        for crossing in crossings:
            self._api.trafficlight.setProgram(crossing, name)

    @_guarded
    def lights(self, crossings: Iterable[str]) -> list[str]:
        """The states of the lights."""
        return [self._api.trafficlight.getRedYellowGreenState(crossing) for crossing in crossings]

    def close(self) -> None:
        """End it; a simulation that has ended stays so."""
        if Simulation.running is not self:
            return
        Simulation.running = None
        with contextlib.suppress(self.errors):  # it may be dead already
            self._api.close()
        self._end_process()

    def _end_process(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def _start_libsumo(self, command: list[str]) -> None:
        self._api = libsumo = self._module
        self.errors = (libsumo.TraCIException, libsumo.FatalTraCIError, RuntimeError)
        try:
            libsumo.start(command)
        except self.errors as error:
            raise SimulatorFailure(f"SUMO does not start: {error}") from error
        # The functions behind vehicle.add, lane.getLastStepVehicleIDs and so on, which do nothing but call
        # these: the detour would take a third of the time that goes into them.
        self._binding = binding = libsumo._libsumo
        self._add, self._halting = binding.vehicle_add, binding.lane_getLastStepHaltingNumber
        self._read = self._read_libsumo

    def _start_traci(self, command: list[str]) -> None:
        traci = self._module
        self.errors = (traci.exceptions.TraCIException, traci.exceptions.FatalTraCIError, OSError)
        with tempfile.TemporaryFile() as said:
            try:
                self._api = self._connect(traci, command, said)
                # Over a socket each question costs 50 us: what is read at every step is subscribed to.
                constants = traci.constants
                self._ids, self._speed = constants.LAST_STEP_VEHICLE_ID_LIST, constants.LAST_STEP_MEAN_SPEED
                self._position = constants.VAR_LANEPOSITION
                for lane in self._lanes:
                    self._api.lane.subscribe(lane, [self._ids, self._speed])
            except self.errors as error:
                self._end_process()
                said.seek(0)
                reason = " ".join(said.read().decode(errors="replace").split()) or error
                raise SimulatorFailure(f"SUMO does not start: {reason}") from error
        self._add, self._halting = self._api.vehicle.add, self._api.lane.getLastStepHaltingNumber
        self._read = self._read_traci

    def _connect(self, traci: ModuleType, command: list[str], said: IO[bytes]) -> Any:
        """Start SUMO in a process of its own. (traci.start would wait a whole second for it.)

        said: takes what it says on stderr.
        """
        port = importlib.import_module("sumolib.miscutils").getFreeSocketPort()
        command = [*command, "--remote-port", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        patience = {"numRetries": _ATTEMPTS, "waitBetweenRetries": _PAUSE}
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of every attempt
            return traci.connect(port, proc=self._process, **patience)

    def _forget(self, vehicle: str) -> None:
        """End a vehicle's subscription, of which traci would say that it knows the vehicle no more."""
        if vehicle in self._subscribed:
            self._subscribed.remove(vehicle)
            self._api.vehicle.unsubscribe(vehicle)

    def _read_libsumo(self) -> Reading:
        """Lane by lane: half as many calls as asking every vehicle for its lane, position and speed."""
        binding = self._binding
        vehicles = list(map(binding.lane_getLastStepVehicleIDs, self._lanes))
        positions = list(map(binding.vehicle_getLanePosition, chain.from_iterable(vehicles)))
        speeds = list(map(binding.lane_getLastStepMeanSpeed, compress(self._lanes, vehicles)))
        return _reading(vehicles, positions, speeds)

    def _read_traci(self) -> Reading:
        lane_of, vehicle_of = (
            domain.getAllSubscriptionResults() for domain in (self._api.lane, self._api.vehicle)
        )
        answers = [lane_of[lane] for lane in self._lanes]
        vehicles = [answer[self._ids] for answer in answers]
        positions = [self._position_of(name, vehicle_of) for names in vehicles for name in names]
        speeds = [answer[self._speed] for answer in answers if answer[self._ids]]
        return _reading(vehicles, positions, speeds)

    def _position_of(self, vehicle: str, subscribed: dict[str, dict[int, float]]) -> float:
        if vehicle not in subscribed:
            self._api.vehicle.subscribe(vehicle, [self._position])
            self._subscribed.add(vehicle)
            return self._api.vehicle.getLanePosition(vehicle)
        return subscribed[vehicle][self._position]


def _reading(vehicles: list[Sequence[str]], positions: list[float], speeds: list[float]) -> Reading:
    """vehicles: on each lane, in driving direction, so that the newest is the first."""
    return Reading(
        np.fromiter(map(len, vehicles), np.int64, len(vehicles)),
        np.fromiter(positions, np.float64, len(positions)),
        np.fromiter(speeds, np.float64, len(speeds)),
        [names[0] if names else None for names in vehicles],
    )


@functools.lru_cache(maxsize=4096)
def _text(number: float) -> str:
    return f"{number:.3f}"

"""SUMO in a process of its own, through traci."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import IO, Any
from weakref import finalize

from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.reading import Reading, reading

_ATTEMPTS, _INTERVAL = 3000, 0.02
"""How many times, and at which interval in seconds, to try to connect to a SUMO process that is starting."""


class TraciBackend:
    """A started simulation; the attributes are those of LibsumoBackend.

    Each question over the socket takes 50 us: what is read after every step is subscribed to. SUMO's process
    ends with this object at the latest.
    """

    def __init__(self, traci: ModuleType, command: list[str], lanes: Sequence[str]) -> None:
        """SimulatorFailure: SUMO does not start."""
        self.errors: tuple[type[Exception], ...] = (
            traci.exceptions.TraCIException,
            traci.exceptions.FatalTraCIError,
            OSError,
        )
        self._lanes = lanes
        self._subscribed: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        constants = traci.constants
        self._ids, self._speed = constants.LAST_STEP_VEHICLE_ID_LIST, constants.LAST_STEP_MEAN_SPEED
        self._position = constants.VAR_LANEPOSITION
        with tempfile.TemporaryFile() as stderr:
            try:
                self.api: Any = self._connect(traci, command, stderr)
                for lane in lanes:
                    self.api.lane.subscribe(lane, [self._ids, self._speed])
            except self.errors as error:
                self.kill()
                stderr.seek(0)
                reason = " ".join(stderr.read().decode(errors="replace").split()) or error
                raise SimulatorFailure(f"SUMO does not start: {reason}") from error
        self.add, self.halting = self.api.vehicle.add, self.api.lane.getLastStepHaltingNumber

    def read(self) -> Reading:
        """The vehicles on the lanes."""
        of_lane = self.api.lane.getAllSubscriptionResults()
        of_vehicle = self.api.vehicle.getAllSubscriptionResults()
        answers = [of_lane[lane] for lane in self._lanes]
        names = [answer[self._ids] for answer in answers]
        positions = [self._position_of(name, of_vehicle) for lane in names for name in lane]
        speeds = [answer[self._speed] for answer in answers if answer[self._ids]]
        return reading(names, positions, speeds)

    def function(self, kind: str, question: str) -> Callable[[str], Any]:
        """As LibsumoBackend.function."""
        return getattr(getattr(self.api, kind), question)

    def unsubscribe(self, vehicle: str) -> None:
        """End the subscription of a vehicle that will be removed; traci would warn about it otherwise."""
        if vehicle in self._subscribed:
            self._subscribed.remove(vehicle)
            self.api.vehicle.unsubscribe(vehicle)

    def kill(self) -> None:
        """End SUMO's process."""
        if self._process:
            _end(self._process)

    def _connect(self, traci: ModuleType, command: list[str], stderr: IO[bytes]) -> Any:
        """Start SUMO and connect to it; stderr: receives its messages. (traci.start waits a second more.)"""
        port = installation.free_port()
        command = [*command, "--remote-port", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        finalize(self, _end, self._process)
        retries = {"numRetries": _ATTEMPTS, "waitBetweenRetries": _INTERVAL}
        with contextlib.redirect_stdout(io.StringIO()):  # traci prints a line for each attempt
            return traci.connect(port, proc=self._process, **retries)

    def _position_of(self, vehicle: str, subscribed: dict[str, dict[int, float]]) -> float:
        if vehicle not in subscribed:
            self.api.vehicle.subscribe(vehicle, [self._position])
            self._subscribed.add(vehicle)
            return self.api.vehicle.getLanePosition(vehicle)
        return subscribed[vehicle][self._position]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()

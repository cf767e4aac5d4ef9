"""SUMO inside this process, through libsumo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, compress
from types import ModuleType
from typing import Any

from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.sumo.reading import Reading, reading


class LibsumoBackend:
    """A started simulation; lanes: those that ``read`` reads, in this order.

    api: libsumo. errors: what it raises. add, halting: its functions to insert a vehicle, and to count the
    halting vehicles of a lane.
    """

    def __init__(self, libsumo: ModuleType, command: list[str], lanes: Sequence[str]) -> None:
        """SimulatorFailure: SUMO does not start."""
        self.api: Any = libsumo
        self.errors: tuple[type[Exception], ...] = (
            libsumo.TraCIException,
            libsumo.FatalTraCIError,
            RuntimeError,
        )
        self._lanes = lanes
        try:
            _start(libsumo, command)
        except self.errors as error:
            raise SimulatorFailure(f"SUMO does not start: {error}") from error
        # vehicle.add, lane.getLastStepVehicleIDs and the others only call these functions: calling them
        # directly saves a third of the time.
        self._binding = binding = libsumo._libsumo
        self.add, self.halting = binding.vehicle_add, binding.lane_getLastStepHaltingNumber

    def read(self) -> Reading:
        """The vehicles on the lanes. Half as many calls as asking each vehicle for lane, position, speed."""
        binding = self._binding
        names = list(map(binding.lane_getLastStepVehicleIDs, self._lanes))
        positions = list(map(binding.vehicle_getLanePosition, chain.from_iterable(names)))
        speeds = list(map(binding.lane_getLastStepMeanSpeed, compress(self._lanes, names)))
        return reading(names, positions, speeds)

    def function(self, kind: str, question: str) -> Callable[[str], Any]:
        """The function that answers a question about a lane or another object; it takes its name."""
        return getattr(self._binding, f"{kind}_{question}")

    def unsubscribe(self, vehicle: str) -> None:
        """Nothing to do: libsumo is asked without subscriptions."""

    def kill(self) -> None:
        """Nothing to do: there is no other process."""


def _start(libsumo: ModuleType, command: list[str]) -> None:
    """Start a simulation, so that its traffic does not depend on what this process did before.

    SUMO (1.28) orders some conflicts between ways across a junction by the addresses of their objects, and
    vehicles give way accordingly. A new thread allocates from memory of its own (with glibc), where addresses
    rise in the order of allocation; in the main thread they fill the gaps that earlier objects left.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(libsumo.start, command).result()

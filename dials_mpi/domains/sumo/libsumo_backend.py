"""SUMO inside this process, through libsumo."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, compress
from types import ModuleType
from typing import Any

from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.sumo.reading import Reading, reading

GLIBC = platform.libc_ver()[0] == "glibc"

BLOCKS = ((100_000, 50), *((100_000 >> k, 4) for k in range(1, 6)), *((n, 4) for n in range(2048, 0, -16)))
"""Bytes of the blocks that fill gaps in the memory, and how many in a row show that no gap is left. (From
128 KiB on, blocks lie outside the heap.) The small ones are all sizes that an object of SUMO may have."""

MOST_BLOCKS = 1_000_000
"""Blocks, after which the gaps are left as they are."""


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
        """There is no process to kill; give the free memory back, which the next start would not use."""
        if GLIBC:
            _libc().malloc_trim(0)


def _start(libsumo: ModuleType, command: list[str]) -> None:
    """Start a simulation, so that its traffic does not depend on what this process did before.

    SUMO (1.28) orders some conflicts between ways across a junction by the addresses of their objects, and
    vehicles give way accordingly. Addresses must therefore rise in the order of allocation. A new thread has
    memory of its own (with glibc), but maybe that of an earlier thread, with gaps: they are filled first.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(_start_in_order, libsumo, command).result()


def _start_in_order(libsumo: ModuleType, command: list[str]) -> None:
    filled = _fill_gaps() if GLIBC else []
    try:
        libsumo.start(command)
    finally:
        for address in filled:
            _libc().free(ctypes.c_void_p(address))


def _fill_gaps() -> list[int]:
    """Allocate all free memory between used memory, the large gaps first: the addresses of the blocks.

    Blocks that follow each other in a row lie above all gaps.
    """
    malloc, found = _libc().malloc, [0]
    for size, row in BLOCKS:
        neighbours = 0
        while neighbours < row and len(found) < MOST_BLOCKS:
            found.append(malloc(size))
            neighbours = neighbours + 1 if 0 < found[-1] - found[-2] < size + 64 else 0
    return found[1:]


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    return libc

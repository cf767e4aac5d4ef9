"""The limits of this machine that figures of speed are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from dials_mpi.domains.base import Domain

SIZE = 512
"""Rows and columns of multiplied matrices, which fit into a core's cache."""

COPIED = 16 << 20
"""Bytes to copy, more than a core's cache holds."""

TILES = 64
"""Junctions of local regions in the SUMO process whose bare stepping is traffic's limit."""

LIBRARIES = ("torch", "numpy")
"""Libraries of matrix products, the fastest first."""


@contextmanager
def timed() -> Iterator[np.ndarray]:
    """The seconds within this context, wall-clock and CPU: float64 [2], filled in at its end."""
    spent = np.zeros(2)
    start = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        spent[:] = time.perf_counter() - start[0], time.process_time() - start[1]


def best_library() -> str:
    """The first of LIBRARIES that is installed; it is loaded, and torch takes 130 MB of memory."""
    try:
        import torch
    except ImportError:
        return LIBRARIES[1]
    return torch.__name__


def matmul_gflops(library: str, seconds: float = 0.3) -> float:
    """The rate of float32 matrix products on this core, GFLOP per CPU second."""
    return _rate(_product(library), seconds) * 2 * SIZE**3 / 1e9


def copy_gigabytes_per_second(seconds: float = 0.1) -> float:
    """Rate at which this core copies memory; a byte that is read and written counts once."""
    source, target = np.ones((2, COPIED), np.uint8)
    return _rate(lambda: np.copyto(target, source), seconds) * COPIED / 1e9


def sumo_bare_steps_per_second(domain: Domain, seconds: float = 1.0) -> float:
    """Junction-steps per CPU second of SUMO's bare ``simulationStep`` of traffic's local regions."""
    from dials_mpi.domains.traffic import Traffic
    from dials_mpi.domains.traffic.throughput import throughput

    assert isinstance(domain, Traffic)
    tiles = max(1, TILES // len(domain.regions[0].agents))
    _, bare = throughput(domain, tiles, seconds, clock=time.process_time)
    return bare


def _product(library: str) -> Callable[[], object]:
    """A function that multiplies two matrices once."""
    a, b = np.ones((2, SIZE, SIZE), np.float32)
    out = np.empty_like(a)
    if library == "numpy":
        return lambda: np.matmul(a, b, out=out)
    import torch

    torch.set_num_threads(1)
    left, right, product = (torch.from_numpy(array) for array in (a, b, out))
    return lambda: torch.mm(left, right, out=product)


def _rate(work: Callable[[], object], seconds: float) -> float:
    """Calls per CPU second."""
    work()
    start, done = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        work()
        done += 1
    return done / spent

"""The speed of exchanges between ranks: bytes per second, and seconds per message."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from dials_mpi.parallel.communicator import Communicator

BYTES = 1 << 20
"""The size of a large message."""

MANY, FEW, LARGE = 4096, 512, 64
"""Numbers of messages that are timed: small ones (many, few) and large ones."""

TIMES = 5
"""Repetitions of each measurement; the shortest counts."""


class Link(NamedTuple):
    """bytes_per_second to or from root; seconds_per_message: root's time; measured: False if assumed."""

    bytes_per_second: float
    seconds_per_message: float
    measured: bool


ASSUMED = Link(bytes_per_second=1e9, seconds_per_message=20e-6, measured=False)
"""For one rank, which cannot measure a link: low values for a cluster's network."""


def measure_link(comm: Communicator) -> Link:
    """Of these ranks, called by all of them; whose regions are then placed elsewhere."""
    if comm.size == 1:
        return ASSUMED
    many, few, large = (_gather_seconds(comm, *how) for how in ((MANY, 8), (FEW, 8), (LARGE, BYTES)))
    message = max(many - few, 0.0) / (MANY - FEW)
    # Messages whose number makes no difference to the clock cost about nothing.
    return Link(LARGE * BYTES / large, message, measured=True)


def _gather_seconds(comm: Communicator, messages: int, size: int) -> float:
    """Wall-clock seconds until root has so many messages of ``size`` bytes, the shortest of TIMES."""
    row = np.zeros(size, np.uint8)
    rows = dict.fromkeys(comm.assign_regions(messages), row)
    seconds = []
    for _ in range(TIMES):
        comm.barrier()
        start = time.perf_counter()
        comm.gather(rows, size, np.uint8)
        seconds.append(time.perf_counter() - start)
    return min(seconds)

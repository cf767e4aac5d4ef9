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
    """The link between these ranks and root; called by all of them."""
    if comm.size == 1:
        return ASSUMED
    many, few, large = (_gather_seconds(comm, *how) for how in ((MANY, 8), (FEW, 8), (LARGE, BYTES)))
    message = max(many - few, 0.0) / (MANY - FEW)
    # Where their number makes no difference to the clock, messages cost about nothing.
    return Link(LARGE * BYTES / large, message, measured=True)


def _gather_seconds(comm: Communicator, messages: int, size: int) -> float:
    """Wall-clock seconds until root has so many messages of ``size`` bytes, the shortest of TIMES."""
    senders = [1 + k * (comm.size - 1) // messages for k in range(messages)]
    own = range(messages) if comm.is_root else [k for k in range(messages) if senders[k] == comm.rank]
    rows = {k: np.zeros(size, np.uint8) for k in own}
    seconds = []
    for _ in range(TIMES):
        comm.barrier()
        start = time.perf_counter()
        requests = []
        for k, row in rows.items():
            requests += comm.irecv(row, senders[k]) if comm.is_root else comm.isend(row, 0)
        comm.wait(requests)
        seconds.append(time.perf_counter() - start)
    return min(seconds)

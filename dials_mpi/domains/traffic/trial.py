"""A first start of SUMO before a run begins: what fails here would fail at every start."""

from __future__ import annotations

import functools

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.sumo.simulation import Simulation
from dials_mpi.domains.traffic.network import Network

_REMEDY = {
    True: "set DISPLAY to a screen that can be opened, or traffic.gui=false",
    False: "reinstall SUMO (pip install --force-reinstall 'dials_mpi[traffic]'), or free space in $TMPDIR",
}


@functools.cache
def require_start(backend: str, gui: bool) -> None:
    """Start SUMO once with a network of one junction and end it. BadInput: it does not start."""
    if Simulation.running:  # the trial would end it
        return
    network = Network(rows=1, columns=1, copies=1, edge_length=100.0, speed_limit=10.0)
    try:
        net, routes, _ = network.files()
        Simulation(net, [routes], network.lanes, backend, gui).close()
    except (SimulatorFailure, RuntimeError, OSError) as error:
        reason = printable(" ".join(str(error).split()))[:500]
        raise BadInput(f"traffic cannot be simulated here: {reason}; {_REMEDY[gui]}") from error

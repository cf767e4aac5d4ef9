"""Where on the edge and how fast vehicles are that have just come out of a neighbouring crossing.

Recorded once for every kind of network, in a small grid whose lights switch at random moments, and cached.
The distance in time to the vehicle before decides most of it: with the authors' parameters the second of a
platoon comes 2 s after the first at 8.3 m/s, a later one at 9 m/s, a single one at up to the speed limit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from dials_mpi.core import cache
from dials_mpi.domains.traffic.demand import Demand
from dials_mpi.domains.traffic.junctions import Crossings
from dials_mpi.domains.traffic.network import Network
from dials_mpi.domains.traffic.sumo import installation
from dials_mpi.domains.traffic.sumo import simulation as sumo

HEADWAYS = (2, 3, 4, 5)
"""Steps since the vehicle before; the last one stands for more."""

RECORDED = 256
"""The most entries that are kept of each headway."""

_GRID, _COPIES, _STEPS, _SEED = 3, 8, 300, 2022
_SWITCH, _SHORTEST = 0.1, 5  # a light that is green for so long switches with this probability per step


class Platoons:
    """(position, speed) of entries out of a crossing by headway: for each of HEADWAYS float [n, 2], n > 0."""

    def __init__(self, recorded: Sequence[Sequence[tuple[float, float]]]) -> None:
        self._recorded = recorded

    def draw(self, headway: int, uniform: float) -> tuple[float, float]:
        """One of those that came so many steps after the one before; uniform in [0, 1). Metres and m/s."""
        pairs = self._recorded[_group(headway)]
        position, speed = pairs[int(uniform * len(pairs))]
        return position, speed


def platoons(
    edge_length: float, speed_limit: float, inflow: float, yellow: int, backend: str = "auto"
) -> Platoons:
    """Those of a network with such edges and lights; recorded at the first call (a second of work)."""
    versions = installation.version(), installation.simulator_version(backend, False)
    name = cache.key(json.dumps([edge_length, speed_limit, inflow, yellow, sumo.CAR, *versions]))
    folder = cache.folder("platoons")
    stored = cache.read(folder / f"{name}.json") if folder else None
    if stored is None:
        network = Network(_GRID, _GRID, _COPIES, edge_length, speed_limit)
        stored = json.dumps(_record(network, inflow, yellow, backend)).encode()
        if folder:
            cache.write(folder / f"{name}.json", stored)
    return Platoons(json.loads(stored))


def _record(network: Network, inflow: float, yellow: int, backend: str) -> list[list[tuple[float, float]]]:
    """Play; every inner entry's position and speed, by headway."""
    stream = np.random.default_rng(_SEED)
    crossings = Crossings(network, 0, yellow, backend, gui=False)
    demand = Demand(network, inflow, stream.spawn(network.copies))
    crossings.start()
    inner = np.tile(~network.outside(), (network.copies, 1))
    # Long enough for the first vehicles to come through.
    steps = max(_STEPS, int(3 * network.edge_length / network.speed_limit))
    headway = np.full(inner.shape, steps)
    by_headway: list[list[tuple[float, float]]] = [[] for _ in HEADWAYS]
    for _ in range(steps):
        switch = (crossings.lights.age >= _SHORTEST) & (stream.random(len(inner)) < _SWITCH)
        crossings.step(switch, demand.draw())
        for k, m in np.argwhere(crossings.entered & inner).tolist():
            group = by_headway[_group(headway[k, m])]
            group += crossings.simulation.places([crossings.newest[4 * k + m]])
        headway = np.where(crossings.entered, 1, headway + 1)
    crossings.simulation.close()
    everything = [pair for group in by_headway for pair in group]
    if not everything:
        raise RuntimeError(f"no vehicle left a crossing in {steps} steps at an inflow of {inflow}")
    return [_thinned(group or everything) for group in by_headway]


def _group(headway: int) -> int:
    """The index in HEADWAYS."""
    return min(max(headway, HEADWAYS[0]), HEADWAYS[-1]) - HEADWAYS[0]


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), RECORDED)).astype(int)
    return [(round(position, 3), round(speed, 3)) for position, speed in (pairs[i] for i in chosen)]

"""Positions and speeds of vehicles that have just entered an edge from a neighbouring junction.

They are recorded once for each kind of network, in a small grid whose signals switch at random, and cached.
They depend mostly on the headway, the time since the vehicle before: with the authors' parameters the second
vehicle of a platoon comes after 2 s at 8.3 m/s, a later one at 9 m/s, a single one at up to the speed limit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from dials_mpi.core import cache, first_start
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.traffic.demand import Demand
from dials_mpi.domains.traffic.junctions import Junctions
from dials_mpi.domains.traffic.network import Network
from dials_mpi.domains.traffic.vehicles import CAR

HEADWAYS = (2, 3, 4, 5)
"""Steps since the vehicle before; the last one includes all larger headways."""

RECORDED = 256
"""The largest number of entries that are kept for each headway."""

_GRID, _COPIES, _STEPS, _SEED = 3, 8, 300, 2022
_SWITCH, _SHORTEST = 0.1, 5  # probability per step that a green of at least so many steps ends


class Platoons:
    """(position, speed) of entries from a junction by headway: for each of HEADWAYS float [n, 2], n > 0."""

    def __init__(self, recorded: Sequence[Sequence[tuple[float, float]]]) -> None:
        self._recorded = recorded

    def draw(self, headway: int, uniform: float) -> tuple[float, float]:
        """Position, metres, and speed, m/s, of a recorded entry of this headway; uniform: in [0, 1)."""
        pairs = self._recorded[_group(headway)]
        position, speed = pairs[int(uniform * len(pairs))]
        return position, speed


def recorded_platoons(
    edge_length: float, speed_limit: float, inflow: float, yellow: int, backend: str = "auto"
) -> Platoons:
    """The platoons of such networks; the first call records them, which takes a second."""
    versions = installation.version(), installation.simulator_version(backend, False)
    name = cache.key(json.dumps([edge_length, speed_limit, inflow, yellow, CAR, *versions]))
    folder = cache.folder("platoons")
    stored = cache.read(folder / f"{name}.json") if folder else None
    if stored is None:
        network = Network(_GRID, _GRID, _COPIES, edge_length, speed_limit)
        with first_start.making("recording platoons of vehicles"):
            stored = json.dumps(_record(network, inflow, yellow, backend)).encode()
        if folder:
            cache.write(folder / f"{name}.json", stored)
    return Platoons(json.loads(stored))


def _record(network: Network, inflow: float, yellow: int, backend: str) -> list[list[tuple[float, float]]]:
    """Simulate; position and speed of every entry from a neighbouring junction, by headway."""
    stream = np.random.default_rng(_SEED)
    junctions = Junctions(network, 0, yellow, backend, gui=False)
    demand = Demand(network, inflow, stream.spawn(network.copies))
    junctions.start()
    inner = np.tile(~network.entry_mask(), (network.copies, 1))
    # Long enough for the first vehicles to reach the second junction.
    steps = max(_STEPS, int(3 * network.edge_length / network.speed_limit))
    headway = np.full(inner.shape, steps)
    by_headway: list[list[tuple[float, float]]] = [[] for _ in HEADWAYS]
    for _ in range(steps):
        switch = (junctions.lights.age >= _SHORTEST) & (stream.random(len(inner)) < _SWITCH)
        junctions.step(switch, demand.draw())
        for k, m in np.argwhere(junctions.entered & inner).tolist():
            group = by_headway[_group(headway[k, m])]
            group += junctions.simulation.positions_and_speeds([junctions.newest[4 * k + m]])
        headway = np.where(junctions.entered, 1, headway + 1)
    junctions.simulation.close()
    everything = [pair for group in by_headway for pair in group]
    if not everything:
        raise RuntimeError(f"no vehicle left a junction in {steps} steps at an inflow of {inflow}")
    return [_thinned(group or everything) for group in by_headway]


def _group(headway: int) -> int:
    """The index in HEADWAYS."""
    return min(max(headway, HEADWAYS[0]), HEADWAYS[-1]) - HEADWAYS[0]


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), RECORDED)).astype(int)
    return [(round(position, 3), round(speed, 3)) for position, speed in (pairs[i] for i in chosen)]

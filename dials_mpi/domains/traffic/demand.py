"""Who wants to drive through the grid, and how they fared: entry demand, and the statistics of an episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import Statistic
from dials_mpi.domains.traffic.network import Network, copy_of, vehicle
from dials_mpi.domains.traffic.sumo import CAR, Entry, Simulation

STATISTICS = (
    Statistic("arrived", "vehicles", "that reached the end of their way"),
    Statistic("travel_time", "s", "of those that arrived, since they wanted to enter; mean"),
    Statistic(
        "time_lost",
        "s",
        "of all that wanted to enter, against driving at the speed limit, with the wait outside, until they "
        "arrived or the episode ended; mean",
    ),
    Statistic("waiting_inside", "vehicles", "that stand on an incoming edge; mean over the steps"),
    Statistic("waiting_outside", "vehicles", "that do not fit onto their first edge; mean over the steps"),
)

ENTRY_POSITION = float(CAR["length"]) + 0.1
"""Where SUMO puts the front of a vehicle that enters the network, metres."""


class Demand:
    """The vehicles of E = len(streams) episodes side by side; episode e draws from streams[e]."""

    def __init__(self, network: Network, inflow: float, streams: Sequence[np.random.Generator]) -> None:
        self._network, self._inflow, self._streams = network, inflow, streams
        self._ways = network.entries
        self._routes = [[network.route(e, *way) for way in self._ways] for e in range(len(streams))]
        self._uniforms = np.empty((len(streams), len(self._ways)))
        self._number = [0] * len(streams)
        self._inside = 0.0  # length of the way across a crossing, metres, once it is known
        #: of every vehicle that has not arrived: the steps gone when it could first be in, and its side
        self._alive: list[dict[str, tuple[int, str]]] = [{} for _ in streams]
        names = ("steps", "wanted", "entered", "arrived", "travel", "lost", "inside", "outside")
        self._sum = {name: np.zeros(len(streams)) for name in names}

    def begin(self, where: np.ndarray) -> list[str]:
        """The episodes in the mask [E] begin anew; their vehicles so far."""
        gone = []
        for e in np.flatnonzero(where):
            gone += self._alive[e]
            self._alive[e] = {}
        for values in self._sum.values():
            values[where] = 0
        return gone

    def draw(self) -> list[Entry]:
        """Those who want to enter in the coming step: with probability ``inflow`` one at every way in."""
        for stream, uniforms in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=uniforms)
        wanting = self._uniforms < self._inflow
        self._sum["wanted"] += wanting.sum(1)
        # SUMO lets a vehicle in at the end of a step: its time begins there.
        time = (self._sum["steps"].astype(int) + 1).tolist()
        speed, entries = self._network.speed_limit, []
        for e, way in np.argwhere(wanting).tolist():
            name = vehicle(e, self._number[e])
            self._number[e] += 1
            self._alive[e][name] = time[e], self._ways[way][0]
            entries.append(Entry(name, self._routes[e][way], ENTRY_POSITION, speed))
        return entries

    def passed(self, simulation: Simulation, entered: np.ndarray, standing: np.ndarray) -> None:
        """A step has passed: vehicles that came in from outside, and that stand on an edge, [E]."""
        total = self._sum
        total["steps"] += 1
        total["entered"] += entered
        total["inside"] += standing
        total["outside"] += total["wanted"] - total["entered"]
        steps = total["steps"].tolist()
        for name in simulation.arrived():
            e = copy_of(name)
            if name in self._alive[e]:  # not merely taken out by a reset
                wanted, side = self._alive[e].pop(name)
                time = steps[e] - wanted
                total["arrived"][e] += 1
                total["travel"][e] += time
                total["lost"][e] += time - self._free_time(simulation, side)

    def statistics(self, simulation: Simulation) -> dict[str, np.ndarray]:
        """STATISTICS of the episodes so far, float64 [E] each; NaN for a mean over nobody."""
        total = self._sum
        lost = total["lost"] + self._lost_so_far(simulation)
        with np.errstate(invalid="ignore"):
            return {
                "arrived": total["arrived"].copy(),
                "travel_time": total["travel"] / total["arrived"],
                "time_lost": lost / total["wanted"],
                "waiting_inside": total["inside"] / total["steps"],
                "waiting_outside": total["outside"] / total["steps"],
            }

    def _lost_so_far(self, simulation: Simulation) -> np.ndarray:
        """Seconds that the vehicles under way in each episode have lost, float64 [E]."""
        driven = np.zeros(len(self._streams))
        under_way = simulation.vehicles()
        for name, metres in zip(under_way, simulation.distances(under_way), strict=True):
            driven[copy_of(name)] += metres
        steps = self._sum["steps"]
        waited = [
            sum(steps[e] - wanted for wanted, _ in alive.values()) for e, alive in enumerate(self._alive)
        ]
        return waited - driven / self._network.speed_limit

    def _free_time(self, simulation: Simulation, side: str) -> float:
        """Seconds from the entry to the end of the way at the speed limit."""
        if not self._inside:  # the same for all crossings
            self._inside = simulation.length(f":{self._network.crossings[0]}_0_0")
        network, crossings = self._network, self._network.route_length(side)
        way = (crossings + 1) * network.edge_length + crossings * self._inside - ENTRY_POSITION
        return way / network.speed_limit

"""Who wants to drive through the grid, and how they fared: entry demand, and the statistics of an episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import Statistic
from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.junctions import Crossings
from dials_mpi.domains.traffic.network import Network, copy_of, vehicle
from dials_mpi.domains.traffic.sumo.simulation import CAR, Entry, Simulation

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
        self._outside = np.tile(network.outside().reshape(-1), len(streams))
        #: of who has not arrived: the episode, the steps gone when it could first be in, the side
        self._alive: dict[str, tuple[int, float, str]] = {}
        names = ("steps", "wanted", "entered", "inside", "outside", "arrived", "travel", "lost")
        self._sum = {name: np.zeros(len(streams)) for name in names}
        self._each_step = tuple(self._sum[name] for name in names[:5])

    def begin(self, where: np.ndarray) -> list[str]:
        """The episodes in the mask [E] begin anew; their vehicles so far."""
        gone = [name for name, (e, _, _) in self._alive.items() if where[e]]
        for name in gone:
            del self._alive[name]
        for values in self._sum.values():
            values[where] = 0
        return gone

    def draw(self) -> list[Entry]:
        """Those who want to enter in the coming step: with probability ``inflow`` one at every way in."""
        for stream, uniforms in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=uniforms)
        wanted, steps = self._sum["wanted"], self._sum["steps"].tolist()
        speed, entries = self._network.speed_limit, []
        wanting = np.nonzero(self._uniforms < self._inflow)
        for e, way in zip(*(places.tolist() for places in wanting), strict=True):
            name = vehicle(e, self._number[e])
            self._number[e] += 1
            wanted[e] += 1
            # SUMO lets a vehicle in at the end of a step: its time begins there.
            self._alive[name] = e, steps[e] + 1, self._ways[way][0]
            entries.append(Entry(name, self._routes[e][way], ENTRY_POSITION, speed))
        return entries

    def passed(self, crossings: Crossings) -> None:
        """A step has passed, and the crossings have been read."""
        simulation, total = crossings.simulation, self._sum
        entered, count = crossings.entered.reshape(-1), crossings.count.reshape(-1)
        halting = np.array(simulation.halting(count.tolist()), np.int64)
        kernels.count_step(self._outside, entered, count, halting, self._each_step)
        steps = total["steps"].tolist()
        for name in simulation.arrived():
            if name in self._alive:  # not merely taken out by a reset
                e, wanted, side = self._alive.pop(name)
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
        steps, waited, driven = self._sum["steps"].tolist(), *np.zeros((2, len(self._streams)))
        for e, wanted, _ in self._alive.values():
            waited[e] += steps[e] - wanted
        under_way = simulation.vehicles()
        for name, metres in zip(under_way, simulation.distances(under_way), strict=True):
            driven[copy_of(name)] += metres
        return waited - driven / self._network.speed_limit

    def _free_time(self, simulation: Simulation, side: str) -> float:
        """Seconds from the entry to the end of the way at the speed limit."""
        if not self._inside:  # the same for all crossings
            self._inside = simulation.length(f":{self._network.crossings[0]}_0_0")
        network, crossings = self._network, self._network.route_length(side)
        way = (crossings + 1) * network.edge_length + crossings * self._inside - ENTRY_POSITION
        return way / network.speed_limit

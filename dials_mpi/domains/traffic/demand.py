"""The traffic that enters the whole grid, and the statistics of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from dials_mpi.domains.base import Statistic
from dials_mpi.domains.sumo.simulation import Insertion, Simulation
from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.approaches import Approaches
from dials_mpi.domains.traffic.junctions import Junctions
from dials_mpi.domains.traffic.network import SIDES, Network
from dials_mpi.domains.traffic.vehicles import CAR, INSERTION_POSITION, vehicle_name

STATISTICS = (
    Statistic("arrived", "vehicles", "that reached the end of their route", "higher"),
    Statistic("scheduled", "vehicles", "that should enter"),
    Statistic("travel_time", "s", "of those that arrived, from their scheduled departure; mean"),
    Statistic(
        "time_spent",
        "s",
        "of all scheduled vehicles, from their scheduled departure until arrival or the end of the episode; "
        "mean",
        "lower",
    ),
    Statistic(
        "time_lost",
        "s",
        "of all scheduled vehicles, compared with driving at the speed limit, including the wait outside, "
        "until arrival or the end of the episode; mean",
        "lower",
    ),
    Statistic("time_lost_p90", "s", "the same; nine in ten of these vehicles lost less", "lower"),
    Statistic("waiting_inside", "vehicles", "that halt on an incoming edge; mean over the steps", "lower"),
    Statistic(
        "waiting_outside", "vehicles", "that do not fit on their first edge; mean over the steps", "lower"
    ),
)


Lists: TypeAlias = list[list[float]]
"""A number of each vehicle, by episode."""


class Trip(NamedTuple):
    """A vehicle that has not arrived: its episode, the first step after which it can be inside, its side."""

    episode: int
    begin: float
    side: str


class Demand:
    """The vehicles of E = len(streams) episodes side by side; episode e draws from streams[e]."""

    def __init__(self, network: Network, inflow: float, streams: Sequence[np.random.Generator]) -> None:
        self._network, self._inflow, self._streams = network, inflow, streams
        self._edges = network.entry_edges
        self._routes = [[network.route(e, *edge) for edge in self._edges] for e in range(len(streams))]
        self._uniforms = np.empty((len(streams), len(self._edges)))
        self._number = [0] * len(streams)
        self._junction_length = 0.0  # metres from stop line to next edge; 0 until SUMO has been asked
        self._is_entry = np.tile(network.entry_mask().reshape(-1), len(streams))
        self._trips: dict[str, Trip] = {}
        self.approaches = Approaches(len(streams), len(self._is_entry) // len(SIDES) // len(streams))
        names = ("steps", "wanted", "entered", "inside", "outside", "arrived", "travel")
        self._lost: Lists = [[] for _ in streams]  # of the vehicles that arrived
        self._sum = {name: np.zeros(len(streams)) for name in names}
        self._each_step = tuple(self._sum[name] for name in names[:5])

    def reset(self, where: np.ndarray) -> list[str]:
        """Start new episodes where the mask [E] is set; return their vehicles that have not arrived."""
        removed = [name for name, trip in self._trips.items() if where[trip.episode]]
        for name in removed:
            del self._trips[name]
        for values in self._sum.values():
            values[where] = 0
        for e in np.flatnonzero(where):
            self._lost[e].clear()
        self.approaches.reset(where)
        return removed

    def draw(self) -> list[Insertion]:
        """The insertions of the coming step: one on each entry edge, with probability ``inflow``."""
        for stream, uniforms in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=uniforms)
        wanted, steps = self._sum["wanted"], self._sum["steps"].tolist()
        speed, insertions = self._network.speed_limit, []
        drawn = np.nonzero(self._uniforms < self._inflow)
        for e, edge in zip(*(indices.tolist() for indices in drawn), strict=True):
            name = vehicle_name(e, self._number[e])
            self._number[e] += 1
            wanted[e] += 1
            # SUMO inserts a vehicle at the end of a step: its time begins there.
            self._trips[name] = Trip(e, steps[e] + 1, self._edges[edge][0])
            insertions.append(Insertion(name, CAR["id"], self._routes[e][edge], INSERTION_POSITION, speed))
        return insertions

    def update(self, junctions: Junctions) -> None:
        """Count a step; call after each step, when the junctions have been read."""
        simulation, total = junctions.simulation, self._sum
        entered, count = junctions.entered.reshape(-1), junctions.count.reshape(-1)
        halting = np.array(simulation.halting(count.tolist()), np.int64)
        kernels.count_step(self._is_entry, entered, count, halting, self._each_step)
        self.approaches.update(junctions, halting)
        steps = total["steps"].tolist()
        for name in simulation.arrived():
            if name in self._trips:  # else a reset removed it
                e, begin, side = self._trips.pop(name)
                time = steps[e] - begin
                total["arrived"][e] += 1
                total["travel"][e] += time
                self._lost[e].append(time - self._free_time(simulation, side))

    def statistics(self, simulation: Simulation) -> dict[str, np.ndarray]:
        """STATISTICS of the episodes so far, float64 [E] each; NaN for the mean of no vehicles."""
        total = self._sum
        elapsed, driven = self._under_way(simulation)
        lost = _sums(self._lost) + (_sums(elapsed) - _sums(driven) / self._network.speed_limit)
        with np.errstate(invalid="ignore"):
            return {
                "arrived": total["arrived"].copy(),
                "scheduled": total["wanted"].copy(),
                "travel_time": total["travel"] / total["arrived"],
                "time_spent": (total["travel"] + _sums(elapsed)) / total["wanted"],
                "time_lost": lost / total["wanted"],
                "time_lost_p90": self._percentiles(elapsed, driven),
                "waiting_inside": total["inside"] / total["steps"],
                "waiting_outside": total["outside"] / total["steps"],
            }

    def _under_way(self, simulation: Simulation) -> tuple[Lists, Lists]:
        """Of the vehicles of each episode that have not arrived: seconds since they should have departed, and
        metres driven, 0 for those outside."""
        steps = self._sum["steps"].tolist()
        names = simulation.vehicles()
        metres = dict(zip(names, simulation.distances(names), strict=True))
        elapsed: Lists = [[] for _ in steps]
        driven: Lists = [[] for _ in steps]
        for name, (e, begin, _) in self._trips.items():
            elapsed[e].append(steps[e] - begin)
            driven[e].append(metres.get(name, 0.0))
        return elapsed, driven

    def _percentiles(self, elapsed: Lists, driven: Lists) -> np.ndarray:
        """The 90th percentile of the seconds lost by each episode's vehicles, float64 [E]; NaN for none."""
        limit = self._network.speed_limit
        found = np.full(len(elapsed), np.nan)
        for e, arrived in enumerate(self._lost):
            lost = [*arrived, *(np.array(elapsed[e]) - np.array(driven[e]) / limit)]
            if lost:
                found[e] = np.quantile(lost, 0.9)
        return found

    def _free_time(self, simulation: Simulation, side: str) -> float:
        """Seconds from the insertion to the end of the route at the speed limit."""
        if not self._junction_length:  # the same for all junctions
            self._junction_length = simulation.length(f":{self._network.junctions[0]}_0_0")
        network, junctions = self._network, self._network.route_length(side)
        metres = (junctions + 1) * network.edge_length + junctions * self._junction_length
        return (metres - INSERTION_POSITION) / network.speed_limit


def _sums(values: Lists) -> np.ndarray:
    return np.array([sum(each) for each in values], np.float64)

"""Which vehicles enter which region of a running city, second by second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.sumo.simulation import Simulation


class Visit(NamedTuple):
    """A vehicle's way through a region.

    run: the edges that it takes there, from the first one; following: the edge after them, None if its trip
    ends on the last one. road: the edge on which it was seen first. own: it departed in the region.
    """

    region: int
    vehicle: str
    run: tuple[str, ...]
    following: str | None
    road: str
    own: bool


class Tracker:
    """Compares where all vehicles are with where they were a second before.

    names, lanes: of all vehicles on the road, as of the last second; lanes may be inside junctions.
    """

    def __init__(self, influences: Sequence[Influence]) -> None:
        self._inside = [influence.inside for influence in influences]
        self._last = [influence.last for influence in influences]
        self._regions: dict[str, list[int]] = {}
        for k, inside in enumerate(self._inside):
            for edge in inside:
                self._regions.setdefault(edge, []).append(k)
        net = influences[0].net
        self._roads_of = {lane: road for road, edge in net.edges.items() for lane in edge.lanes}
        self.reset()

    def reset(self) -> None:
        """There are no vehicles yet."""
        self._roads: dict[str, str | None] = {}
        self.names: Sequence[str] = ()
        self.lanes: Sequence[str] = ()

    def second(self, simulation: Simulation) -> list[Visit]:
        """The vehicles that entered a region, or departed in it, during the last second."""
        self.names = simulation.vehicles()
        self.lanes = simulation.ask("vehicle", "getLaneID", self.names)
        before, visits = self._roads, []
        roads = map(self._roads_of.get, self.lanes)  # None inside junctions
        self._roads = now = dict(zip(self.names, roads, strict=True))
        for vehicle, road in now.items():
            last = before.get(vehicle)
            if last == road:
                continue
            if road is None:  # inside a junction it still counts as on the road before
                now[vehicle] = last
            else:
                visits += self._visits(simulation, vehicle, last, road)
        return visits

    def _visits(self, simulation: Simulation, vehicle: str, last: str | None, road: str) -> list[Visit]:
        new = [k for k in self._regions.get(road, ()) if last not in self._inside[k] or last in self._last[k]]
        if not new:
            return []
        (route,) = simulation.ask("vehicle", "getRoute", [vehicle])
        (here,) = simulation.ask("vehicle", "getRouteIndex", [vehicle])
        return [self._visit(k, vehicle, route, here, last) for k in new]

    def _visit(self, region: int, vehicle: str, route: Sequence[str], here: int, last: str | None) -> Visit:
        """The part of a route in a region; here: the index of the present edge.

        A fast vehicle may have passed short edges within the second, so its first edge may lie before.
        """
        inside, ends = self._inside[region], self._last[region]
        first, end = here, here
        while first > 0 and route[first - 1] != last and route[first - 1] in inside - ends:
            first -= 1
        while route[end] not in ends and end + 1 < len(route) and route[end + 1] in inside:
            end += 1
        following = route[end + 1] if end + 1 < len(route) else None
        own = last is None and first == 0
        return Visit(region, vehicle, tuple(route[first : end + 1]), following, route[here], own)

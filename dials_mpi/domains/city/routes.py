"""The vehicles in SUMO's route files, with the roads that each will take, and what is wrong with them."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown as shown_value
from dials_mpi.domains.city.net import Net
from dials_mpi.domains.city.regions import Roads
from dials_mpi.domains.city.scenario import Scenario
from dials_mpi.domains.city.xml_files import elements, seconds, shown

_NEVER = ("triggered", "containerTriggered", "split")
"""Departures at no fixed time; they are taken as the begin of the window."""
_AHEAD = 200.0
"""SUMO reads route files in portions of this many seconds."""
_KINDS = ("VEH", "PED", "BIKE", "TAXI", "RAIL", "CONTAINER", "DRONE")
_BUILT_IN = frozenset(f"DEFAULT_{kind}TYPE" for kind in _KINDS)
"""The types that SUMO knows without a definition."""


@dataclass(frozen=True)
class Trip:
    """Vehicles with the same route: edges, departure of the first one in seconds, number of vehicles."""

    name: str
    depart: float
    edges: tuple[str, ...]
    vehicles: float = 1.0


@dataclass(frozen=True)
class Routes:
    """The trips that begin in the window; outside: vehicles that depart before or after it.

    unsorted: vehicles and flows that SUMO skips, because one that departs much later comes before them.
    persons: their number.
    """

    trips: tuple[Trip, ...]
    outside: float
    unsorted: int
    persons: int


def read(scenario: Scenario, net: Net) -> Routes:
    """The demand of a scenario; trips without a route take the one with the shortest time on empty roads.

    BadInput, one sentence: a file cannot be read, a vehicle has no departure or no route, or names an edge,
    lane, type or route that does not exist, two have the same name, or none departs in the window.
    """
    reader = _Reader(scenario, net)
    for path in (*scenario.additional, *scenario.routes):
        reader.read(path)
    if not reader.trips:
        raise BadInput(
            f"no vehicle departs between city.begin ({scenario.begin:g}) and city.end ({scenario.end:g}) in "
            f"{', '.join(shown(path) for path in scenario.routes) or 'the scenario'}: "
            + (f"{reader.outside:g} depart at other times" if reader.outside else "it has no vehicles")
            + (f", and {reader.unsorted} come after later ones in a file: sort it" if reader.unsorted else "")
        )
    return Routes(tuple(reader.trips), reader.outside, reader.unsorted, reader.persons)


class _Reader:
    """Reads route files in SUMO's order: types and routes come before the vehicles that use them."""

    def __init__(self, scenario: Scenario, net: Net) -> None:
        self._window = scenario.begin, scenario.end
        self._net, self._finder = net, _Finder(net)
        self._types, self._routes = set(_BUILT_IN), dict[str, tuple[str, ...]]()
        self._names: set[str] = set()
        self.trips: list[Trip] = []
        self.outside, self.unsorted, self.persons = 0.0, 0, 0

    def read(self, path: Path) -> None:
        latest = -math.inf
        self._path = path
        for element in elements(path):
            if element.tag in ("vType", "vTypeDistribution"):
                self._types.update(part.get("id", "") for part in element.iter())
            elif element.tag == "route":
                self._new_name("route", element, self._routes)
                self._routes[element.get("id", "")] = self._edges(element, element.get("edges", ""))
            elif element.tag == "routeDistribution":
                self._distribution(element)
            elif element.tag in ("person", "personFlow"):
                self.persons += 1
            elif element.tag in ("vehicle", "trip", "flow"):
                latest = self._vehicle(element, latest)

    def _distribution(self, element: Element) -> None:
        """All routes by their names; the distribution itself as its first one."""
        names = element.get("routes", "").split()
        found = [self._routes[name] for name in names if name in self._routes]
        for route in element.iter("route"):
            edges = self._edges(route, route.get("edges", ""))
            self._routes[route.get("id", "")] = edges
            found.append(edges)
        self._routes[element.get("id", "")] = found[0] if found else ()

    def _vehicle(self, element: Element, latest: float) -> float:
        """Add a vehicle or flow; returns the latest departure in the file."""
        self._new_name(element.tag, element, self._names)
        self._names.add(element.get("id", ""))
        if element.get("type", "DEFAULT_VEHTYPE") not in self._types:
            self._refuse(element, f"has the type {shown_value(element.get('type'))}, which is not defined")
        first, number = self._departures(element)
        edges = self._route(element)
        self._require_lane(element, edges)
        begin, end = self._window
        if first < self._read_at(latest):
            self.unsorted += 1
        elif begin <= first < end:
            self.trips.append(Trip(element.get("id", ""), first, edges, number))
        else:
            self.outside += number
        return max(first, latest)

    def _read_at(self, latest: float) -> float:
        """When SUMO reads what comes after a vehicle that departs at ``latest``; it reads 200 s ahead."""
        begin = self._window[0]
        return begin + (latest - begin) // _AHEAD * _AHEAD if latest > begin else -math.inf

    def _departures(self, element: Element) -> tuple[float, float]:
        """The first departure in the window and the number of vehicles that depart in it."""
        if element.tag != "flow":
            text = element.get("depart")
            if text is None:
                self._refuse(element, "has no departure time (depart)")
            return (self._window[0] if text in _NEVER else self._seconds(element, "depart", text or "")), 1.0
        begin, end = self._window
        first = self._seconds(element, "begin", element.get("begin", "0"))
        last = self._seconds(element, "end", element.get("end", str(end)))
        if last < first:
            self._refuse(element, "ends before it begins")
        total = self._flow_total(element, last - first)
        if last == first:
            return first, total
        inside = max(min(last, end) - max(first, begin), 0.0)
        return (max(first, begin), total * inside / (last - first)) if inside else (end, total)

    def _flow_total(self, element: Element, duration: float) -> float:
        """Vehicles of a flow over its whole duration, seconds; the mean for a random one."""
        if "number" in element.attrib:
            return self._number(element, "number")
        if "vehsPerHour" in element.attrib:
            return self._number(element, "vehsPerHour") * duration / 3600
        if "probability" in element.attrib:
            return self._number(element, "probability") * duration
        period = element.get("period", "")
        if period.startswith("exp(") and period.endswith(")"):
            return self._number(element, "period", period[4:-1]) * duration
        if not period:
            self._refuse(element, "has neither number, period, vehsPerHour nor probability")
        period_seconds = self._number(element, "period")
        return duration / period_seconds if period_seconds > 0 else 0.0

    def _route(self, element: Element) -> tuple[str, ...]:
        inner = element.find("route")
        if inner is not None:
            return self._edges(element, inner.get("edges", ""))
        name = element.get("route")
        if name is not None:
            if name not in self._routes:
                self._refuse(element, f"has the route {shown_value(name)}, which is not defined before it")
            return self._routes[name]
        return self._shortest(element)

    def _shortest(self, element: Element) -> tuple[str, ...]:
        """The route of a trip; junctions and zones are left to SUMO: an empty route."""
        ends = [element.get(key) for key in ("from", "to")]
        if any(end is None for end in ends):
            if any(key in element.attrib for key in ("fromTaz", "toTaz", "fromJunction", "toJunction")):
                return ()
            self._refuse(element, "has no route, and not both from and to")
        stations = [ends[0] or "", *element.get("via", "").split(), ends[1] or ""]
        for edge in stations:
            self._require_edge(element, edge)
        route = stations[:1]
        for before, after in pairwise(stations):
            way = self._finder.way(before, after)
            if not way:
                self._refuse(element, f"has no way from edge {shown_value(before)} to {shown_value(after)}")
            route += way[1:]
        return tuple(route)

    def _edges(self, element: Element, text: str) -> tuple[str, ...]:
        """The edges of a route, each of which exists and follows the one before."""
        edges = tuple(text.split())
        if not edges:
            self._refuse(element, "has a route without edges")
        for edge in edges:
            self._require_edge(element, edge)
        for before, after in pairwise(edges):
            if after not in self._finder.after(before):
                ends = f"from edge {shown_value(before)} to {shown_value(after)}"
                self._refuse(element, f"drives {ends}, which are not connected")
        return edges

    def _require_edge(self, element: Element, edge: str) -> None:
        if edge not in self._net.edges:
            self._refuse(element, f"uses edge {shown_value(edge)}, which the network does not have")

    def _require_lane(self, element: Element, edges: Sequence[str]) -> None:
        lane = element.get("departLane", "")
        if edges and lane.isdigit() and int(lane) >= len(self._net.edges[edges[0]].lanes):
            number = len(self._net.edges[edges[0]].lanes)
            self._refuse(
                element, f"departs on lane {lane} of edge {shown_value(edges[0])}, which has {number}"
            )

    def _new_name(self, kind: str, element: Element, known: object) -> None:
        name = element.get("id")
        if not name:
            raise BadInput(f"a {kind} in {shown(self._path)} has no id: give each one of its own")
        if isinstance(known, (set, dict)) and name in known:
            self._refuse(element, "has the id of another one")

    def _seconds(self, element: Element, key: str, text: str) -> float:
        try:
            return seconds(text, least=0)
        except ValueError:
            self._refuse(element, f"has {key} {shown_value(text)}, which is no time in seconds")

    def _number(self, element: Element, key: str, text: str | None = None) -> float:
        """An attribute, or the part ``text`` of it, as a number."""
        try:
            number = float(element.get(key, "") if text is None else text)
            if not math.isfinite(number) or number < 0:
                raise ValueError
        except ValueError:
            self._refuse(
                element, f"has {key} {shown_value(element.get(key))}, which is no number of 0 or more"
            )
        return number

    def _refuse(self, element: Element, what: str) -> NoReturn:
        name = shown_value(element.get("id", ""))
        raise BadInput(f"{element.tag} {name} in {shown(self._path)} {what}: correct the file")


class _Finder:
    """The fastest ways on empty roads; those from one edge are found together."""

    def __init__(self, net: Net) -> None:
        self._roads = Roads(net)
        self._net = net
        self._after = {
            name: {net.lane_edge[c.to_lane] for c in connections}
            for name, connections in net.connections.items()
        }
        self._trees: dict[str, dict[str, str]] = {}

    def after(self, edge: str) -> set[str]:
        """The edges that follow an edge."""
        return self._after.get(edge, set())

    def way(self, start: str, end: str) -> list[str]:
        """The edges from ``start`` to ``end``; empty if there is no way."""
        tree = self._trees.get(start)
        if tree is None:
            tree = self._trees[start] = dict(self._tree(start))
        if end not in tree:
            return []
        way = [end]
        while way[-1] != start:
            way.append(tree[way[-1]])
        return way[::-1]

    def _tree(self, start: str) -> Iterator[tuple[str, str]]:
        """(Edge, the edge before it) for all edges that can be reached."""
        seen: Counter[str] = Counter()
        queue = [(0.0, start, start)]
        while queue:
            time, name, before = heapq.heappop(queue)
            if not seen[name]:
                seen[name] += 1
                yield name, before
                edge = self._net.edges[name]
                for after in self._roads.next[name]:
                    heapq.heappush(queue, (time + edge.length / max(edge.speed, 0.1), after, name))

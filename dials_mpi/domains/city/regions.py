"""Which roads belong to the region of a signal: where vehicles come in, and where they leave it.

Upstream a region reaches to the next signal, or as far as vehicles can be seen coming. Downstream it ends at
the next signal, whose state decides whether vehicles leave; the roads behind that signal are kept, too, so
that its recorded or predicted state can be shown.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.domains.city.net import Edge, Net

REACH = 150.0
"""Default distance between the entries and the stop line, metres."""

SHORT = 15.0
"""An entry edge is at least this long, metres, if the network allows it: vehicles must fit on it."""

CLEARANCE = 200.0
"""Without another signal, the roads downstream are kept over this distance, metres."""


@dataclass(frozen=True)
class Entry:
    """A road on which vehicles enter the region.

    lanes: those that vehicles may use. paths: the edges from this one to each exit, or past the exit's signal
    to each edge behind it, and to each destination inside; class c >= 1 of an entry lane's source is
    paths[c - 1], 0 is no vehicle. distance: metres by road from its beginning to the nearest stop line of the
    region's signals; 0 if none can be reached.
    """

    edge: str
    lanes: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    distance: float = 0.0


@dataclass(frozen=True)
class Exit:
    """A road on which vehicles leave the region.

    signal, links: the next signal, if the road ends at one, and the indices of its links from this road;
    else None and (). behind: the edges behind that signal.
    """

    edge: str
    signal: str | None
    links: tuple[int, ...]
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegionPlan:
    """The region of one signal or of several.

    edges: all that are kept, with those behind exits, and with all roads at the junctions that vehicles
    cross: a link without conflicting links has other rules of priority in SUMO. entries: the roads that
    vehicles reach from outside the region, if they lead to one of its signals or to the signal of an exit.
    fringe: the roads at the rim of the network, on which vehicles depart; nobody comes from outside. inside:
    the roads that lead to its stop lines, and those on the paths up to its exits.
    """

    signals: tuple[str, ...]
    edges: frozenset[str]
    entries: tuple[Entry, ...]
    exits: tuple[Exit, ...]
    fringe: tuple[Entry, ...] = ()
    inside: frozenset[str] = frozenset()


def plan(
    net: Net,
    signals: Sequence[str],
    reach: float = REACH,
    own_destinations: Collection[str] = (),
    roads: Roads | None = None,
) -> RegionPlan:
    """The region of these signals.

    reach: metres of road between entries and stop lines, where no other signal comes before.
    own_destinations: edges on which vehicles end their trips; those inside the region get paths of their own.
    roads: those of the network, to plan many regions in less time. BadInput: the network has no such signal.
    """
    for name in signals:
        if name not in net.signals:
            raise BadInput(f"{net.path} has no signal {shown(name)}: take a name from the import report")
    roads = roads or Roads(net)
    own = {junction for name in signals for junction in net.signals[name].junctions}
    upstream = _upstream(roads, own, reach)
    downstream, exits = _downstream(roads, own, upstream)
    inside = {*upstream, *downstream}
    ends = {out.edge: out for out in exits}
    targets = {*own_destinations} & inside - {*ends}
    lit = {out.edge for out in exits if out.signal}
    entries = [
        Entry(name, roads.edges[name].drivable, paths, upstream.get(name, 0.0))
        for name, paths in _all_paths(roads, inside, ends, targets).items()
        if name in upstream or any(lit.intersection(path) for path in paths)
    ]
    outside = tuple(entry for entry in entries if roads.leads_to(entry.edge))
    fringe = tuple(entry for entry in entries if not roads.leads_to(entry.edge))
    crossed = {roads.edges[name].end for name in inside if _follow(roads, name, inside, ends)} | own
    edges = inside.union(*(out.behind for out in exits), *(roads.at.get(name, ()) for name in crossed))
    on_paths = _on_paths((*outside, *fringe), ends)
    return RegionPlan(tuple(signals), frozenset(edges), outside, exits, fringe, on_paths.union(upstream))


def with_upstream(net: Net, plans: Sequence[RegionPlan], metres: float) -> Net:
    """The network, whose signals know the lanes of their region that lie less than ``metres`` upstream."""
    signals = dict(net.signals)
    for plan in plans:
        stop_lines = {lane for name in plan.signals for lane in net.signals[name].incoming}
        for name in plan.signals:
            lanes = net.signals[name].incoming
            found = tuple(_lanes_upstream(net, lane, plan.inside, stop_lines, metres) for lane in lanes)
            signals[name] = replace(net.signals[name], upstream=found)
    return replace(net, signals=signals)


def _lanes_upstream(
    net: Net, lane: str, inside: Collection[str], stop_lines: Collection[str], metres: float
) -> tuple[str, ...]:
    """The lanes that lead to a lane, the nearest first, up to the next signal."""
    found: dict[str, None] = {}
    queue = [(net.lengths[lane], lane)]
    while queue:
        distance, here = heapq.heappop(queue)
        for connection in net.lanes_before.get(here, ()) if distance < metres else ():
            before = connection.from_lane
            known = before in found or before in stop_lines or net.lane_edge[before] not in inside
            if not (known or connection.signal or connection.direction == "t"):
                found[before] = None
                heapq.heappush(queue, (distance + net.lengths[before], before))
    return tuple(found)


class Roads:
    """The roads of a network as a graph: which follow which, and which signal stands at a road's end."""

    def __init__(self, net: Net) -> None:
        self.edges: Mapping[str, Edge] = net.edges
        self._places = {name: place for place, name in enumerate(net.edges)}
        self.next: dict[str, list[str]] = {name: [] for name in net.edges}
        self.previous: dict[str, list[str]] = {name: [] for name in net.edges}
        self.links: dict[str, tuple[str, tuple[int, ...]]] = {}
        usable = {lane for edge in net.edges.values() for lane in edge.drivable}
        for name, connections in net.connections.items():
            used = [c for c in connections if c.from_lane in usable and c.to_lane in usable]
            for after in dict.fromkeys(net.lane_edge[c.to_lane] for c in used):
                self.next[name].append(after)
                self.previous[after].append(name)
            signals = dict.fromkeys(c.signal for c in used if c.signal)
            for signal in signals:
                self.links[name] = signal, tuple(sorted({c.index for c in used if c.signal == signal}))
        self.at: dict[str, list[str]] = {}
        for name, edge in net.edges.items():
            for junction in {edge.start, edge.end}:
                self.at.setdefault(junction, []).append(name)
        self.signalised = {junction for signal in net.signals.values() for junction in signal.junctions}

    def place(self, edge: str) -> int:
        """Its place in the network file."""
        return self._places[edge]

    def leads_to(self, edge: str) -> list[str]:
        """The roads that lead to a road, without the opposite direction of the same road."""
        here = self.edges[edge]
        ends = here.end, here.start
        before = (self.edges[name] for name in self.previous[edge])
        return [road.name for road in before if (road.start, road.end) != ends]

    def length(self, edge: str) -> float:
        """Metres."""
        return self.edges[edge].length


def _upstream(roads: Roads, own: Collection[str], reach: float) -> dict[str, float]:
    """The roads that lead to the own junctions, and metres from the beginning of each to a stop line."""
    near = (name for junction in own for name in roads.at.get(junction, ()))
    starts = [name for name in near if roads.edges[name].end in own and roads.next[name]]
    found: dict[str, float] = {}
    queue = [(roads.length(name), name) for name in starts]
    heapq.heapify(queue)
    while queue:
        distance, name = heapq.heappop(queue)
        if name in found:
            continue
        found[name] = distance
        start = roads.edges[name].start
        far = distance >= reach and roads.length(name) >= SHORT
        if not far and start not in own and start not in roads.signalised:
            for before in roads.leads_to(name):  # not over a turnaround
                heapq.heappush(queue, (distance + roads.length(before), before))
    return _without_short_ends(roads, own, found)


def _without_short_ends(roads: Roads, own: Collection[str], found: dict[str, float]) -> dict[str, float]:
    """Without the first roads behind another signal that vehicles pass within a second."""
    kept = dict(found)
    for name in reversed(found):  # the farthest first
        first = roads.previous[name] and not any(before in kept for before in roads.previous[name])
        if first and roads.length(name) < SHORT and roads.edges[name].end not in own:
            del kept[name]
    return kept


def _downstream(
    roads: Roads, own: Collection[str], upstream: Collection[str]
) -> tuple[set[str], tuple[Exit, ...]]:
    """The roads that lead away from the upstream ones, and those of them that vehicles leave last."""
    first = dict.fromkeys(after for name in upstream for after in roads.next[name] if after not in upstream)
    queue = [(roads.length(name), name) for name in first]
    heapq.heapify(queue)
    farthest: dict[str, float] = {}
    exits: dict[str, Exit] = {}
    while queue:
        distance, name = heapq.heappop(queue)
        if name in farthest:
            continue
        farthest[name] = distance
        after = [way for way in roads.next[name] if way not in upstream]
        if name in roads.links:
            exits[name] = Exit(name, *roads.links[name], tuple(after or roads.next[name]))
        elif distance >= CLEARANCE or not after:
            exits[name] = Exit(name, None, ())
        for way in after if name not in exits else ():
            heapq.heappush(queue, (distance + roads.length(way), way))
    return set(farthest), tuple(exits.values())


def _all_paths(
    roads: Roads, inside: set[str], ends: Mapping[str, Exit], targets: Collection[str]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The paths from each road on which vehicles come in, in the order of the network."""
    follow = {name: _follow(roads, name, inside, ends) for name in inside}
    through = inside - {*ends}
    comes_in = [name for name in inside if not roads.leads_to(name) or {*roads.previous[name]} - through]
    comes_in.sort(key=roads.place)
    found = {name: tuple(_paths(roads, name, follow, ends, targets)) for name in comes_in}
    return {name: paths for name, paths in found.items() if paths}


def _follow(roads: Roads, name: str, inside: Collection[str], ends: Mapping[str, Exit]) -> list[str]:
    """The roads of the region that a vehicle can take next; vehicles leave it on an exit."""
    if name in ends:
        return list(ends[name].behind)
    return [after for after in roads.next[name] if after in inside]


def _paths(
    roads: Roads,
    start: str,
    follow: Mapping[str, Sequence[str]],
    ends: Mapping[str, Exit],
    targets: Collection[str],
) -> Iterator[tuple[str, ...]]:
    """The shortest path from a road to each end of the region, in the order of their distance."""
    before: dict[str, str] = {}
    queue = [(0.0, start, "")]
    while queue:
        distance, name, previous = heapq.heappop(queue)
        if previous in ends:
            yield (*_trace(before, previous), name)
        elif name not in before:
            before[name] = previous
            if name in targets or (name in ends and not ends[name].behind):
                yield tuple(_trace(before, name))
            for after in follow[name]:
                heapq.heappush(queue, (distance + roads.length(after), after, name))


def _on_paths(starts: Sequence[Entry], ends: Collection[str]) -> frozenset[str]:
    """The roads on paths, without those behind exits."""
    found: set[str] = set()
    for start in starts:
        for path in start.paths:
            found.update(path[:-1] if len(path) > 1 and path[-2] in ends else path)
    return frozenset(found)


def _trace(before: Mapping[str, str], name: str) -> list[str]:
    """The path to a road, from its first one."""
    path = []
    while name:
        path.append(name)
        name = before[name]
    return path[::-1]

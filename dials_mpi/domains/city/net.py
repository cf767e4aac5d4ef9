"""What a SUMO network file contains: roads, lanes, connections and signals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import told
from dials_mpi.domains.city.network_rules import require_network
from dials_mpi.domains.city.xml_files import elements, shown
from dials_mpi.domains.sumo import installation

PASSABLE = frozenset("GgsoO")
"""States of a link under which vehicles may drive: green with and without priority, stop first, off."""


@dataclass(frozen=True)
class Link:
    """One connection that a signal controls; index: its place in the signal's state.

    direction: SUMO's letter: s straight on, l and r a turn, L and R a slight one, t a turnaround.
    """

    index: int
    from_lane: str
    to_lane: str
    direction: str


class Program(NamedTuple):
    """A signal's program: phases (state, seconds), offset in seconds, and SUMO's type, such as "static"."""

    phases: tuple[tuple[str, float], ...]
    offset: float
    kind: str


@dataclass(frozen=True)
class Signal:
    """A traffic light: one program, over one junction or several.

    links: the connections by their index in the state; an empty tuple is a gap. phases: (state, seconds) of
    the active program, the one that SUMO runs at first. kind: its type, such as "static". greens: the states
    that an agent chooses from. added: those of them that are no plain green phase of the program.
    upstream: the lanes before each lane of ``incoming`` that its agent observes, too; () if there are none.
    """

    name: str
    junctions: tuple[str, ...]
    links: tuple[tuple[Link, ...], ...]
    phases: tuple[tuple[str, float], ...]
    offset: float
    kind: str
    greens: tuple[str, ...]
    added: tuple[str, ...] = ()
    upstream: tuple[tuple[str, ...], ...] = ()

    @property
    def incoming(self) -> tuple[str, ...]:
        """The lanes that end at the signal, each once, in the order of the links."""
        return tuple(dict.fromkeys(link.from_lane for links in self.links for link in links))

    @property
    def outgoing(self) -> tuple[str, ...]:
        """The lanes that begin at the signal, each once, in the order of the links."""
        return tuple(dict.fromkeys(link.to_lane for links in self.links for link in links))

    @property
    def never_green(self) -> tuple[int, ...]:
        """Indices of the links that may not be driven under any of ``greens``."""
        return tuple(_blocked(range(len(self.links)), self.links, self.greens))


@dataclass(frozen=True)
class Edge:
    """A road in one direction.

    start, end: its junctions. lanes: from the right to the left. drivable: those that the demand's vehicles
    may use. length: metres; speed: m/s, the highest limit of its lanes; shape: (x, y), metres. function: ""
    for a road, else SUMO's word: internal, crossing, walkingarea, connector.
    """

    name: str
    start: str
    end: str
    lanes: tuple[str, ...]
    drivable: tuple[str, ...]
    length: float
    speed: float
    shape: tuple[tuple[float, float], ...]
    function: str


@dataclass(frozen=True)
class Connection:
    """How a lane continues on another edge.

    via: the internal lane that leads across the junction, "" if there is none; signal, index: the link of a
    signal, "" and -1 if it has none.
    """

    from_lane: str
    to_lane: str
    via: str
    direction: str
    signal: str
    index: int


@dataclass(frozen=True)
class Net:
    """A network.

    edges: roads, by name, in the order of the file; inner: the edges inside junctions. lane_edge: the edge of
    every lane of both. lengths, speeds: of every lane, metres and m/s (the limit). connections: those that
    leave each road. shapes: (x, y) of every lane, metres.
    junctions: type and place (x, y) of every junction. signals: all, by name, sorted. permissions: SUMO's
    classes of vehicles that may use each lane.
    """

    path: Path
    edges: dict[str, Edge]
    inner: dict[str, Edge]
    lane_edge: dict[str, str]
    lengths: dict[str, float]
    speeds: dict[str, float]
    connections: dict[str, tuple[Connection, ...]]
    shapes: dict[str, tuple[tuple[float, float], ...]] = field(repr=False)
    junctions: dict[str, tuple[str, tuple[float, float]]] = field(repr=False)
    signals: dict[str, Signal]
    permissions: Mapping[str, frozenset[str]] = field(repr=False)

    @cached_property
    def lanes_before(self) -> dict[str, tuple[Connection, ...]]:
        """The connections that lead to each lane, by its name."""
        found: dict[str, list[Connection]] = {}
        for connections in self.connections.values():
            for connection in connections:
                found.setdefault(connection.to_lane, []).append(connection)
        return {lane: tuple(each) for lane, each in found.items()}

    @cached_property
    def before(self) -> dict[str, tuple[str, ...]]:
        """The roads that lead to each road, by its name."""
        found: dict[str, dict[str, None]] = {}
        for edge, connections in self.connections.items():
            for connection in connections:
                found.setdefault(self.lane_edge[connection.to_lane], {})[edge] = None
        return {edge: tuple(before) for edge, before in found.items()}

    def classes(self, lane: str, path: Sequence[str]) -> frozenset[str]:
        """SUMO's classes of vehicles that may depart on a lane and take a path, edges from its own on."""
        found = self.permissions[lane]
        for edge, after in pairwise(path):
            ways = (c for c in self.connections[edge] if self.lane_edge[c.to_lane] == after)
            found = found & frozenset().union(
                *(self.permissions[way.from_lane] & self.permissions[way.to_lane] for way in ways)
            )
        return found

    def centre(self, signal: Signal) -> tuple[float, float]:
        """The mean position (x, y) of a signal's junctions, metres."""
        points = [self.junctions[name][1] for name in signal.junctions]
        return fmean(x for x, _ in points), fmean(y for _, y in points)

    @property
    def agents(self) -> dict[str, Signal]:
        """The signals that have a choice, two greens or more; the others stay on their own program."""
        return {name: signal for name, signal in self.signals.items() if len(signal.greens) > 1}


def read(path: Path, classes: Collection[str] | None = None) -> Net:
    """The network of a file, plain or gzipped.

    classes: SUMO's classes of vehicles for ``Edge.drivable``; by default all but pedestrians. BadInput: it
    cannot be read, or is not a network.
    """
    require_network(path)
    try:
        net = _read(path, classes)
    except BadInput:
        raise
    except Exception as error:  # sumolib raises anything for a file that is not as it expects
        raise BadInput(
            f"{shown(path)} cannot be read as a network ({told(error, 200)}): give a network (.net.xml or "
            ".net.xml.gz) that netconvert wrote"
        ) from error
    if not net.edges:
        raise BadInput(f"{shown(path)} has no roads: give a network (.net.xml) that netconvert wrote")
    return net


def _read(path: Path, classes: Collection[str] | None) -> Net:
    programs, found = active_programs(path), installation.read_net(path)
    lanes = [lane for edge in found.getEdges() for lane in edge.getLanes()]
    permissions = _permissions(lanes)
    usable = {lane for lane, own in permissions.items() if _is_drivable(own, classes)}
    edges = {edge.getID(): _edge(edge, usable) for edge in found.getEdges()}
    roads = {name: edge for name, edge in edges.items() if not edge.function}
    lights = sorted(found.getTrafficLights(), key=_name)
    return Net(
        path,
        roads,
        {name: edge for name, edge in edges.items() if edge.function},
        {lane: edge.name for edge in edges.values() for lane in edge.lanes},
        {lane.getID(): float(lane.getLength()) for lane in lanes},
        {lane.getID(): float(lane.getSpeed()) for lane in lanes},
        {name: _connections(found.getEdge(name)) for name in roads},
        {lane.getID(): _points(lane.getShape()) for lane in lanes},
        {node.getID(): (node.getType(), _point(node.getCoord())) for node in found.getNodes()},
        {light.getID(): _signal(light, programs.get(light.getID())) for light in lights},
        permissions,
    )


def _permissions(lanes: Iterable[Any]) -> dict[str, frozenset[str]]:
    """Of each lane; equal ones are one object, which saves memory."""
    kept: dict[frozenset[str], frozenset[str]] = {}
    found = ((lane.getID(), frozenset(lane.getPermissions())) for lane in lanes)
    return {lane: kept.setdefault(own, own) for lane, own in found}


def _is_drivable(permissions: frozenset[str], classes: Collection[str] | None) -> bool:
    return bool(permissions - {"pedestrian"} if classes is None else permissions.intersection(classes))


def active_programs(path: Path) -> dict[str, Program]:
    """For each signal in a network or additional file, the program that SUMO runs: the last one of the file.

    BadInput, ValueError: the file cannot be read. (sumolib wants attributes that SUMO does not.)
    """
    found = (element for element in elements(path) if element.tag == "tlLogic")
    return {element.get("id", ""): _program(element) for element in found}


def _program(element: Element) -> Program:
    phases = tuple(
        (phase.get("state", ""), float(phase.get("duration", 0))) for phase in element.iter("phase")
    )
    return Program(phases, float(element.get("offset", 0)), element.get("type", "static"))


def _edge(edge: Any, usable: Collection[str]) -> Edge:
    lanes = edge.getLanes()
    return Edge(
        edge.getID(),
        edge.getFromNode().getID(),
        edge.getToNode().getID(),
        tuple(lane.getID() for lane in lanes),
        tuple(lane.getID() for lane in lanes if lane.getID() in usable),
        float(edge.getLength()),
        float(max(lane.getSpeed() for lane in lanes)),
        _points(edge.getShape()),
        edge.getFunction(),
    )


def _connections(edge: Any) -> tuple[Connection, ...]:
    found = (connection for group in edge.getOutgoing().values() for connection in group)
    made = (
        Connection(
            connection.getFromLane().getID(),
            connection.getToLane().getID(),
            connection.getViaLaneID() or "",
            connection.getDirection(),
            connection.getTLSID() or "",
            connection.getTLLinkIndex(),
        )
        for connection in found
    )
    return tuple(sorted(made, key=lambda made: (made.from_lane, made.to_lane)))


def _signal(light: Any, program: Program | None) -> Signal:
    phases, offset, kind = program or Program((), 0.0, "")
    links = _links(light, len(phases[0][0]) if phases else 0)
    junctions = dict.fromkeys(entry[0].getEdge().getToNode().getID() for entry in light.getConnections())
    greens, added = _greens(links, [state for state, _ in phases])
    return Signal(light.getID(), tuple(sorted(junctions)), links, phases, offset, kind, greens, added)


def _links(light: Any, length: int) -> tuple[tuple[Link, ...], ...]:
    """The links by index, as many as the state has letters at least."""
    links: dict[int, list[Link]] = {}
    for source, target, index in light.getConnections():
        directions = [c.getDirection() for c in source.getOutgoing() if c.getToLane() is target]
        links.setdefault(index, []).append(Link(index, source.getID(), target.getID(), directions[0]))
    return tuple(tuple(links.get(i, ())) for i in range(max(length, max(links, default=-1) + 1)))


def _greens(
    links: tuple[tuple[Link, ...], ...], states: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The states that an agent chooses from, and those of them that were added.

    A link that is green in no plain green phase, but in another one, adds that phase, with red for yellow:
    a state that is shown for long must not keep yellow.
    """
    greens = list(dict.fromkeys(state for state in states if _is_green(state)))
    added: list[str] = []
    for state in states:
        if any(state[i] in PASSABLE for i in _blocked(range(len(state)), links, greens)):
            lasting = "".join("r" if letter in "yYu" else letter for letter in state)
            greens.append(lasting)
            added.append(lasting)
    return tuple(greens), tuple(added)


def _is_green(state: str) -> bool:
    return not set("yY") & set(state) and bool(set("gG") & set(state))


def _blocked(indices: Iterable[int], links: tuple[tuple[Link, ...], ...], greens: Iterable[str]) -> list[int]:
    """The links that may be driven in none of the states; a gap is none of them."""
    states = list(greens)
    return [i for i in indices if links[i] and not any(i < len(s) and s[i] in PASSABLE for s in states)]


def _points(shape: Iterable[Any]) -> tuple[tuple[float, float], ...]:
    return tuple(map(_point, shape))


def _point(point: Any) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _name(light: Any) -> str:
    return light.getID()

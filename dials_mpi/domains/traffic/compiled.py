"""Local junctions without SUMO: the traffic of crossing.py, with the methods of Junctions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from dials_mpi.domains.sumo.simulation import Insertion, VehiclePositions
from dials_mpi.domains.traffic import crossing, entering
from dials_mpi.domains.traffic.junctions import CELL_LENGTH, Observed
from dials_mpi.domains.traffic.network import LINKS, PHASES, SIDES, Network

LANE_WIDTH = 3.2
"""SUMO's default, metres."""

_ANGLES = {"west": 90.0, "south": 0.0, "east": 270.0, "north": 180.0}  # of vehicles from there, from north


class Lane(NamedTuple):
    """A straight lane: length, metres; its two ends, metres to the east and north, float64 [2, 2]."""

    length: float
    ends: np.ndarray


class CompiledJunctions(Observed):
    """K junctions of a network without neighbours; the methods are those of Junctions.

    simulation: what a picture of one junction needs.
    """

    def __init__(self, network: Network, cells: int, yellow: int) -> None:
        """ValueError: the copies of the network have several junctions. BadInput: SUMO is missing."""
        if network.rows * network.columns != 1:
            raise ValueError("compiled junctions have no neighbours: take a network of one junction")
        super().__init__(network, cells, yellow)
        self._lanes = ways(network)
        self._roads = roads(self._lanes, network.speed_limit)
        shape = len(self.names), len(SIDES)
        self._cars = crossing.no_cars(shape[0], self._roads.lengths)
        self._wanted, self.entered = np.zeros(shape, bool), np.zeros(shape, bool)
        self._position, self._speed = np.zeros(shape), np.zeros(shape)
        edges = product(range(network.copies), SIDES)
        self._edges = {network.route(k, side, 0, 0): i for i, (k, side) in enumerate(edges)}
        self._waiting: dict[str, int] = {}
        self._time = 0
        self.simulation = Picture(self)

    def start(self) -> None:
        """Begin without any vehicle."""
        self._time = 0
        self.clear(np.ones(len(self.names), bool), list(self._waiting))

    def close(self) -> None:
        """Nothing to end."""

    def vehicles(self, copies: np.ndarray) -> list[str]:
        """None: ``clear`` needs no names of vehicles on the road."""
        return []

    def remove(self, vehicles: list[str]) -> None:
        """Remove vehicles that wait outside."""
        for name in vehicles:
            edge = self._waiting.pop(name, None)
            if edge is not None:
                self._wanted.reshape(-1)[edge] = False

    def clear(self, where: np.ndarray, vehicles: list[str]) -> None:
        """As Junctions."""
        self.remove(vehicles)
        self.lights.reset(where)
        self._cars.number[where] = 0
        self.entered[where] = False
        self._read()

    def step(self, actions: np.ndarray, insertions: list[Insertion]) -> None:
        """As Junctions."""
        self.lights.act(actions)
        for vehicle, _, route, position, speed in insertions:
            edge = self._waiting[vehicle] = self._edges[route]
            self._wanted.reshape(-1)[edge] = True
            self._position.reshape(-1)[edge], self._speed.reshape(-1)[edge] = position, speed
        crossing.drive(self._cars, self.lights.phase, self._roads, self._time)
        self.entered = entering.enter(self._cars, self._wanted, self._position, self._speed, self._roads)
        waits = self._wanted.reshape(-1).tolist()
        self._waiting = {name: edge for name, edge in self._waiting.items() if waits[edge]}
        self._time += 1
        self._read()

    def positions(self) -> VehiclePositions:
        """All vehicles of the first junction."""
        front, angle, speed = [], [], []
        for m, side in enumerate(SIDES):
            for i in range(self._cars.number[0, m]):
                lane = self._lanes[m][self._cars.lane[0, m, i]]
                share = self._cars.position[0, m, i] / lane.length
                front.append(lane.ends[0] + share * (lane.ends[1] - lane.ends[0]))
                angle.append(_ANGLES[side])
                speed.append(self._cars.speed[0, m, i])
        return VehiclePositions(np.reshape(front, (-1, 2)), np.array(angle), np.array(speed, float))

    def lane_ends(self) -> np.ndarray:
        """Where the incoming lanes of the first junction begin and end, metres: float64 [4, 2, 2]."""
        return np.array([way[0].ends for way in self._lanes])

    def _read(self) -> None:
        """Set the attributes, except ``entered``."""
        shape = self._wanted.shape
        occupied = np.zeros((*shape, self.cells), np.uint8)
        self.count, self.speed_sum = np.zeros(shape, np.int64), np.zeros(shape)
        length = self._roads.lengths[crossing.ENTRY]
        entering.look(self._cars, length, CELL_LENGTH, occupied, self.count, self.speed_sum)
        self.occupied = occupied.reshape(len(occupied), -1)


class Picture:
    """What a picture of one junction asks a Simulation."""

    def __init__(self, junctions: CompiledJunctions) -> None:
        self._junctions = junctions

    def lane_ends(self, lanes: Iterable[str]) -> np.ndarray:
        """As Simulation; lanes: the incoming ones."""
        return self._junctions.lane_ends()

    def close(self) -> None:
        """Nothing to end."""

    def lights(self, junctions: Iterable[str]) -> list[str]:
        """As Simulation."""
        return [PHASES[phase] for phase in self._junctions.lights.phase.tolist()]

    def vehicle_positions(self) -> VehiclePositions:
        """As Simulation."""
        return self._junctions.positions()


def ways(network: Network) -> list[tuple[Lane, Lane, Lane]]:
    """The lanes of the first junction's ways in the order of SIDES: incoming, across the junction, exit."""
    net, *_ = replace(network, copies=1).files()
    lanes = {lane.attrib["id"]: _lane(lane.attrib) for lane in ElementTree.parse(net).iter("lane")}
    junction, *_ = network.junctions
    found = []
    for side in SIDES:
        opposite = SIDES[(SIDES.index(side) + 2) % len(SIDES)]
        names = f"{junction}_{side}_0", f":{junction}_{LINKS.index(side)}_0", f"{junction}_{opposite}_out_0"
        first, inside, last = (lanes[name] for name in names)
        found.append((first, inside, last))
    return found


def _lane(attributes: dict[str, str]) -> Lane:
    ends = [[float(number) for number in point.split(",")] for point in attributes["shape"].split()]
    return Lane(float(attributes["length"]), np.array([ends[0], ends[-1]]))


def roads(lanes: Sequence[tuple[Lane, Lane, Lane]], speed_limit: float) -> crossing.Roads:
    """The roads of crossing.py. lanes: of all ways, which have the same lengths and run along the axes."""
    crossings = np.zeros((len(SIDES), len(SIDES)))
    for m, n in product(range(len(SIDES)), repeat=2):
        if (m - n) % 2:  # from the sides: the ways cross
            (begin, end), (point, _) = lanes[m][1].ends, lanes[n][1].ends
            axis = int(np.abs(end - begin).argmax())
            crossings[m, n] = abs(point[axis] - begin[axis]) - LANE_WIDTH / 2
    lengths = np.array([lane.length for lane in lanes[0]])
    colours = np.array([[phase[LINKS.index(side)] for side in SIDES] for phase in PHASES])
    return crossing.Roads(lengths, float(speed_limit), crossings, LANE_WIDTH, colours == "r", colours == "y")

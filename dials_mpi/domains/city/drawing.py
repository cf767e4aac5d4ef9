"""Pictures of a city: lanes as they lie, cars by speed, lights at the stop lines, regions in colours.

Coordinates are SUMO's: metres to the east and north. In a picture of a large city lanes would be too thin to
see; they are then widened to the right of the road's left border, together with what drives on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from dials_mpi.domains.city.cutting import name_in_copy
from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.city.net import Net, Signal
from dials_mpi.domains.city.statistics import LEVELS, SignalDelay, approach
from dials_mpi.domains.pictures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Extent,
    add_legend,
    bare_axes,
)
from dials_mpi.domains.sumo.drawing import (
    CAR_WIDTH,
    LANE,
    LIGHT_COLOURS,
    ROAD,
    SPEED_COLOURS,
    add_moving,
    headings,
    light_keys,
    outlines,
    to_the_right,
)
from dials_mpi.domains.sumo.simulation import Simulation

REGION_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, "#7A5C2E")

LEVEL_COLOURS = dict(zip("ABCDEF", (BLUE, SKY, "#D9C22E", ORANGE, VERMILION, "#7A1F1F"), strict=True))
"""By level of service."""

_LANE_SHOWN, _WIDEST = 1.3, 3.0
"""The least width of a lane in a picture, points, and how much wider than it is a lane may be drawn."""

_CAR, _CAR_SHOWN = 5.0, 2.6
"""The length of a usual car, metres, and the least length of a car in a picture, points."""

_TEXT_SIZES = 3.6, 7.0
"""Font sizes of the texts at signals, points: the least and the largest."""


@dataclass(frozen=True)
class Light:
    """A bar at a stop line that shows a link.

    signal: its name in SUMO. stop_first: whether the link ever shows that vehicles may drive after a stop.
    bar: [2, 2], from left to right.
    """

    signal: str
    link: int
    stop_first: bool
    bar: np.ndarray = field(repr=False)


class Roads:
    """The lanes of some roads as they are drawn in axes, whose limits and aspect are set to fit ``centre``.

    unit: the length of a metre, points. widening: how much wider than they are lanes are drawn.
    """

    def __init__(self, net: Net, roads: Collection[str], centre: Iterable[str], axes: Axes) -> None:
        """centre: the roads that must lie within the limits."""
        self._net = net
        roads = [road for road in net.edges if road in roads]  # a set has another order in each process
        self.lanes = [lane for road in roads for lane in net.edges[road].drivable]
        self._aside = {}
        for road in roads:
            for place, lane in enumerate(reversed(net.edges[road].lanes)):
                self._aside[lane] = (place + 0.5) * LANE
        self.inner = dict(self._inner_lanes(roads))
        self._aside |= self.inner
        corners = np.vstack([net.shapes[lane] for road in centre for lane in net.edges[road].lanes])
        self.unit = bare_axes(axes, _around(corners))
        self.widening = float(np.clip(_LANE_SHOWN / (LANE * self.unit), 1, _WIDEST))
        self.width = LANE * self.widening

    def draw(self, axes: Axes, colours: Callable[[str], str] = lambda road: ROAD) -> None:
        """Draw all lanes; colours: of each road."""
        inner = [self.shape(lane) for lane in self.inner]
        outer = [colours(self._net.lane_edge[lane]) for lane in self.lanes]
        self._add_lines(axes, inner, ROAD, 1.0, 0)
        gap = 0.9 if self.width * self.unit > 2 else 1.0  # a thin white line between lanes
        self._add_lines(axes, [self.shape(lane) for lane in self.lanes], outer, gap, 1)

    def shape(self, lane: str) -> np.ndarray:
        """The middle of a lane as it is drawn, [P, 2]."""
        points = np.array(self._net.shapes[lane])
        steps = np.gradient(points, axis=0)
        ahead = steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)
        return self.moved(points, ahead, np.full(len(points), self._aside[lane]))

    def moved(self, points: np.ndarray, ahead: np.ndarray, aside: np.ndarray) -> np.ndarray:
        """Points [V, 2] on lanes that are ``aside`` metres [V] right of their road's left border."""
        return points + (self.widening - 1) * aside[:, None] * to_the_right(ahead)

    def aside(self, lanes: Iterable[str]) -> np.ndarray:
        """Metres between the middle of each lane and the left border of its road, [V]."""
        return np.array([self._aside.get(lane, LANE / 2) for lane in lanes], float)

    def end(self, lane: str, beginning: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The end of a lane and the direction there, or its beginning: [2] each."""
        shape = self.shape(lane)[:2] if beginning else self.shape(lane)[-2:]
        step = shape[1] - shape[0]
        return shape[0 if beginning else 1], step / max(float(np.linalg.norm(step)), 1e-9)

    def lights(self, signal: Signal, name: str) -> Iterator[Light]:
        """A bar for each link from a lane that is drawn: those of a lane share its width, right to left."""
        links: dict[str, list[int]] = {}
        for link in (one for group in signal.links for one in group):
            if link.from_lane in self._aside:
                own = links.setdefault(link.from_lane, [])
                own += [link.index] if link.index not in own else []
        for lane, indices in links.items():
            point, ahead = self.end(lane)
            right = to_the_right(ahead) * self.width
            borders = np.linspace(0.46, -0.46, len(indices) + 1)
            for index, first, last in zip(sorted(indices), borders, borders[1:], strict=False):
                bar = np.array([point + last * right, point + first * right])
                yield Light(name, index, any(state[index] == "s" for state in signal.greens), bar)

    def _inner_lanes(self, roads: Collection[str]) -> Iterator[tuple[str, float]]:
        """Lanes inside junctions between these roads, with their distance from the left border."""
        for connection in (c for road in roads for c in self._net.connections[road]):
            ends = self._aside.get(connection.from_lane), self._aside.get(connection.to_lane)
            turnaround = connection.direction == "t"
            if connection.via in self._net.shapes and None not in ends and not turnaround:
                yield connection.via, sum(end or 0.0 for end in ends) / 2

    def _add_lines(
        self, axes: Axes, lines: Sequence[np.ndarray], colours: str | Sequence[str], share: float, zorder: int
    ) -> None:
        width = share * self.width * self.unit
        drawn = LineCollection(lines, colors=colours, linewidths=width, zorder=zorder, capstyle="butt")
        axes.add_collection(drawn, autolim=False)


class TrafficDrawing:
    """Roads, and the cars and lights of a simulation.

    cars, lights, entering: collections of matplotlib; entering: an arrow for each sampled vehicle.
    """

    def __init__(
        self,
        simulation: Callable[[], Simulation],
        axes: Axes,
        roads: Roads,
        lights: Sequence[Light],
        fastest: float,
        prefix: str = "",
        entries: Sequence[str] | None = None,
    ) -> None:
        """simulation: the one that runs. prefix: of the names of vehicles and lanes that are drawn.

        entries: of a local simulator, the lane of each source of entering vehicles. fastest: m/s, the end of
        the scale of speeds.
        """
        self._simulation, self._roads, self._prefix = simulation, roads, prefix
        self._lights, self._entries = lights, entries or ()
        self._signals = sorted({light.signal for light in lights})
        roads.draw(axes)
        norm = Normalize(0, fastest)
        # A thin border separates the cars of a queue.
        self.cars = PolyCollection(
            [], norm=norm, cmap=SPEED_COLOURS, edgecolor="white", linewidth=0.15, zorder=4
        )
        thick = float(np.clip(0.45 * roads.width * roads.unit, 0.9, 2.2))
        self.lights = LineCollection([light.bar for light in lights], linewidth=thick, zorder=3)
        self.entering, self.artists = add_moving(axes, self.lights, self.cars)
        add_legend(axes, light_keys(entries is not None, any(light.stop_first for light in lights)))

    def update(self, sources: np.ndarray | None) -> None:
        """As Drawing."""
        simulation = self._simulation()
        states = dict(zip(self._signals, simulation.lights(self._signals), strict=True))
        self.lights.set_color(
            [LIGHT_COLOURS.get(states[light.signal][light.link], GREY) for light in self._lights]
        )
        self._draw_cars(simulation)
        entering = [] if sources is None else np.flatnonzero(sources[: len(self._entries)]).tolist()
        self.entering.set_verts([self._arrow(self._entries[m]) for m in entering])

    def _draw_cars(self, simulation: Simulation) -> None:
        names = [name for name in simulation.vehicles() if name.startswith(self._prefix)]
        lanes = [lane.replace(self._prefix, "", 1) for lane in simulation.ask("vehicle", "getLaneID", names)]
        front = np.reshape(simulation.ask("vehicle", "getPosition", names), (-1, 2)).astype(float)
        angle, speed, length = (
            np.array(simulation.ask("vehicle", question, names), float)
            for question in ("getAngle", "getSpeed", "getLength")
        )
        ahead = headings(angle)
        front = self._roads.moved(front, ahead, self._roads.aside(lanes))
        widening = self._roads.widening
        longer = max(1.0, _CAR_SHOWN / (_CAR * self._roads.unit))
        wide = CAR_WIDTH * max(widening, min(longer, 1.25 * widening))
        self.cars.set_verts(list(outlines(front, ahead, length * longer, wide)))
        self.cars.set_array(speed)

    def _arrow(self, lane: str) -> np.ndarray:
        """A triangle before the beginning of a lane."""
        start, ahead = self._roads.end(lane, beginning=True)
        size = max(self._roads.width, 6 / self._roads.unit)
        shape = size * np.array([[-0.1, 0], [-1.1, 0.5], [-1.1, -0.5]])
        return start + shape @ np.array([ahead, -to_the_right(ahead)])


def city_drawing(
    simulation: Callable[[], Simulation], axes: Axes, net: Net, influences: Sequence[Influence]
) -> TrafficDrawing:
    """The whole city; the limits fit its regions."""
    roads = Roads(net, net.edges, _roads_of(influences), axes)
    lights = [light for name, signal in net.signals.items() for light in roads.lights(signal, name)]
    return TrafficDrawing(simulation, axes, roads, lights, _fastest(net, net.edges))


def region_drawing(
    simulation: Callable[[], Simulation], axes: Axes, influence: Influence, agents: Sequence[int]
) -> TrafficDrawing:
    """Copy 0 of a region's tile, and the numbers of its agents."""
    net, plan = influence.net, influence.plan
    roads = Roads(net, plan.edges, influence.inside or plan.edges, axes)
    exits = {out.signal for out in plan.exits if out.signal}
    lights = [
        light
        for name in sorted({*plan.signals, *exits})
        for light in roads.lights(net.signals[name], name_in_copy(0, name))
        if name in plan.signals or _leaves(net, light, name, influence)
    ]
    entries = [source.lane for source in influence.entries]
    own = name_in_copy(0, "")
    if len(agents) > 1:
        _draw_texts(axes, net, plan.signals, list(map(str, agents)), roads.unit)
    return TrafficDrawing(simulation, axes, roads, lights, _fastest(net, plan.edges), own, entries)


def draw_regions(
    axes: Axes, net: Net, influences: Sequence[Influence], colours: Sequence[str] | None = None
) -> None:
    """All roads; each region's in a colour; the numbers of the agents; colours: None: neighbours differ.

    A road between two signals belongs to the region of the signal to which it leads.
    """
    chosen = colours or neighbours_differ(influences)
    roads = Roads(net, net.edges, _roads_of(influences), axes)
    owners = owner_of_roads(net, influences)
    roads.draw(axes, lambda road: chosen[owners[road]] if road in owners else ROAD)
    names = [name for influence in influences for name in influence.plan.signals]
    _draw_texts(axes, net, names, list(map(str, range(len(names)))), roads.unit)


def draw_delays(axes: Axes, net: Net, influences: Sequence[Influence], delays: Sequence[SignalDelay]) -> None:
    """The approaches of each signal in the colour of its level of service, and its delay in seconds."""
    roads = Roads(net, net.edges, _roads_of(influences), axes)
    levels: dict[str, str] = {}
    for found in delays:
        for road in approach(net, net.signals[found.signal]) if found.level else ():
            levels.setdefault(road, found.level)
    roads.draw(axes, lambda road: LEVEL_COLOURS[levels[road]] if road in levels else ROAD)
    passed = [found for found in delays if found.level]
    texts = [f"{found.delay:.0f}" for found in passed]
    _draw_texts(axes, net, [found.signal for found in passed], texts, roads.unit)
    add_legend(axes, [_level_key(*level) for level in LEVELS])


def _level_key(level: str, most: float) -> Line2D:
    label = f"{level} ≤ {most:.0f} s" if np.isfinite(most) else f"{level} > {LEVELS[-2][1]:.0f} s"
    return Line2D([], [], color=LEVEL_COLOURS[level], linewidth=2.2, label=label)


def owner_of_roads(net: Net, influences: Sequence[Influence]) -> dict[str, int]:
    """The region in whose colour a road is drawn: it leads to the region's signal, or lies in the region."""
    owners: dict[str, int] = {}
    for k, influence in enumerate(influences):
        for name in influence.plan.signals:
            for road in approach(net, net.signals[name]):
                owners.setdefault(road, k)
    for k, influence in enumerate(influences):
        for road in influence.inside:
            owners.setdefault(road, k)
    return owners


def neighbours_differ(influences: Sequence[Influence]) -> list[str]:
    """A colour for each region; two that share a road have different ones, as far as there are enough."""
    holders: dict[str, list[int]] = {}
    for k, influence in enumerate(influences):
        for road in influence.inside:
            holders.setdefault(road, []).append(k)
    chosen: list[int] = []
    for k, influence in enumerate(influences):
        near = {j for road in influence.inside for j in holders[road] if j < k}
        taken = {chosen[j] for j in near}
        by_use = sorted(range(len(REGION_COLOURS)), key=lambda c: (c in taken, chosen.count(c), c))
        chosen.append(by_use[0])
    return [REGION_COLOURS[c] for c in chosen]


def _leaves(net: Net, light: Light, name: str, influence: Influence) -> bool:
    """Whether a link of the signal ``name`` at the rim belongs to an exit of the region."""
    return any(light.link in out.links for out in influence.plan.exits if out.signal == name)


def _roads_of(influences: Sequence[Influence]) -> list[str]:
    return sorted({road for influence in influences for road in influence.inside})


def _fastest(net: Net, roads: Collection[str]) -> float:
    """The speed that 95 % of the roads allow, m/s: one motorway must not hide differences elsewhere."""
    return float(np.quantile([net.edges[road].speed for road in roads], 0.95))


def _around(points: np.ndarray) -> Extent:
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    margin = 0.03 * max(right - left, top - bottom) + 5
    wide, high = right - left + 2 * margin, top - bottom + 2 * margin
    more = max(0.0, 0.3 * high - wide) / 2  # not too narrow for the legend
    return Extent(left - margin - more, right + margin + more, bottom - margin, top + margin)


def _draw_texts(axes: Axes, net: Net, names: Sequence[str], texts: Sequence[str], unit: float) -> None:
    """A text at each of these signals, with a white border."""
    places = signal_places(net, names)
    smallest, largest = _TEXT_SIZES
    size = float(np.clip(0.22 * unit * _distance(places), smallest, largest))
    border: list[AbstractPathEffect] = [withStroke(linewidth=0.3 * size, foreground="white")]
    for text, (x, y) in zip(texts, places, strict=True):
        axes.text(
            x, y, text, fontsize=size, color=INK, ha="center", va="center", zorder=6, clip_on=True
        ).set_path_effects(border)


def signal_places(net: Net, names: Sequence[str]) -> np.ndarray:
    """The middle of each signal's junctions, metres: [N, 2]."""
    junctions = (net.signals[name].junctions for name in names)
    return np.array([np.mean([net.junctions[one][1] for one in own], axis=0) for own in junctions])


def _distance(places: np.ndarray) -> float:
    """The median distance of a signal to the nearest other one, metres."""
    if len(places) < 2:
        return np.inf
    apart = np.linalg.norm(places[:, None] - places, axis=2) + np.diag(np.full(len(places), np.inf))
    return float(np.median(apart.min(axis=1)))

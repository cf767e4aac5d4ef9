"""Pictures of the city grid (Figures 9 and 10 of the paper): roads, cars by speed, signals, region numbers.

Coordinates are SUMO's: metres to the east and north. Roads of a large grid would be thin lines; their width
and that of cars and signals is then enlarged, while positions along the road are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize

from dials_mpi.domains.pictures import (
    INK,
    Extent,
    add_legend,
    bare_axes,
    number_size,
)
from dials_mpi.domains.sumo.drawing import (
    CAR_WIDTH,
    LANE,
    LIGHT_COLOURS,
    MARKING,
    ROAD,
    SPEED_COLOURS,
    add_moving,
    headings,
    light_keys,
    outlines,
)
from dials_mpi.domains.sumo.simulation import VehiclePositions
from dials_mpi.domains.traffic.junctions import Junctions
from dials_mpi.domains.traffic.network import HEADING, LINKS, SIDES
from dials_mpi.domains.traffic.vehicles import CAR

if TYPE_CHECKING:
    from dials_mpi.domains.traffic.compiled import CompiledJunctions

_CAR_LENGTH = float(CAR["length"])  # metres
_LANE_SHOWN = 5.0
"""The least width of a lane in the picture, points."""

_LINKS = [LINKS.index(side) for side in SIDES]


class JunctionsDrawing:
    """The junctions of a network without copies, and their traffic.

    cars, lights, entering: collections of matplotlib; entering: an arrow for each sampled vehicle.
    """

    def __init__(
        self,
        junctions: Junctions | CompiledJunctions,
        axes: Axes,
        numbers: Sequence[int],
        entry_indices: np.ndarray | None = None,
    ) -> None:
        """numbers: of the junctions' agents, [K]. entry_indices: of a local simulator, int [M], indices of
        its entry edges among the K x 4 incoming edges."""
        local = entry_indices is not None
        self._junctions = junctions
        self._entry_indices = np.empty(0, int) if entry_indices is None else entry_indices
        self._lanes = junctions.simulation.lane_ends(junctions.network.lanes).reshape(-1, len(SIDES), 2, 2)
        self.centres = self._lanes[:, :, 1].mean(axis=1)
        (left, bottom), (right, top) = self._lanes.min(axis=(0, 1, 2)), self._lanes.max(axis=(0, 1, 2))
        roads = Extent(left, right, bottom, top)
        margin = 0.08 * (right - left) * local  # room for the arrows
        unit = bare_axes(axes, Extent(left - margin, right + margin, bottom - margin, top + margin))
        self.widening = max(1.0, _LANE_SHOWN / (LANE * unit))
        self._draw_roads(axes, roads, unit)
        self._draw_numbers(axes, numbers, unit)
        speeds = Normalize(0, junctions.network.speed_limit)
        self.cars = PolyCollection([], norm=speeds, cmap=SPEED_COLOURS, linewidth=0, zorder=4)
        self.lights = LineCollection(self._bars(), linewidth=min(2.2, 0.45 * self._lane * unit), zorder=3)
        self.entering, self.artists = add_moving(axes, self.lights, self.cars)
        add_legend(axes, light_keys(local))

    def update(self, sources: np.ndarray | None) -> None:
        """As Drawing."""
        simulation = self._junctions.simulation
        states = simulation.lights(self._junctions.names)
        self.lights.set_color([LIGHT_COLOURS[state[link]] for state in states for link in _LINKS])
        vehicles = simulation.vehicle_positions()
        self.cars.set_verts(list(self._outlines(vehicles)))
        self.cars.set_array(vehicles.speed)
        sampled = np.flatnonzero([] if sources is None else sources)
        self.entering.set_verts(self._arrows(self._entry_indices[sampled]))

    @property
    def _lane(self) -> float:
        """The width of a lane in the picture, metres."""
        return LANE * self.widening

    def _outlines(self, vehicles: VehiclePositions) -> np.ndarray:
        """Cars: [V, 6, 2]."""
        ahead = headings(vehicles.angle)
        front = self._widened(vehicles.front, ahead)
        return outlines(front, ahead, _CAR_LENGTH, CAR_WIDTH * self.widening)

    def _widened(self, points: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Points [V, 2] on roads in the directions ``ahead`` [V, 2], moved away from the road's middle."""
        if self.widening == 1:
            return points
        nearest = np.stack(
            [axis[np.abs(points[:, k, None] - axis).argmin(axis=1)] for k, axis in enumerate(self.centres.T)],
            axis=-1,
        )
        off = (points - nearest) * (np.abs(ahead) < 0.5)
        return points + (self.widening - 1) * off

    def _bars(self) -> list[np.ndarray]:
        """A line across every incoming lane at its end: K x 4 of [2, 2]."""
        bars = []
        for ends in self._lanes[:, :, 1]:
            for point, side in zip(ends, SIDES, strict=True):
                ahead = _direction(side)
                across = self._lane / 2 * np.array([-ahead[1], ahead[0]])
                middle = self._widened(point[None], ahead[None])[0]
                bars.append(np.array([middle - across, middle + across]))
        return bars

    def _arrows(self, edges: np.ndarray) -> list[np.ndarray]:
        """Triangles before the beginnings of incoming edges, given by their indices in [K x 4]."""
        shape = self._lane * np.array([[-0.2, 0], [-1.5, 0.6], [-1.5, -0.6]])
        arrows = []
        for junction, side in zip(*np.divmod(edges, len(SIDES)), strict=True):
            ahead = _direction(SIDES[side])
            start = self._widened(self._lanes[junction, side, 0][None], ahead[None])[0]
            arrows.append(start + shape @ np.array([ahead, [-ahead[1], ahead[0]]]))
        return arrows

    def _draw_roads(self, axes: Axes, extent: Extent, unit: float) -> None:
        half, (xs, ys) = self._lane, (np.unique(axis.round(3)) for axis in self.centres.T)
        for x in xs:
            axes.fill_between([x - half, x + half], extent.bottom, extent.top, color=ROAD, lw=0, zorder=0)
        for y in ys:
            axes.fill_between([extent.left, extent.right], y - half, y + half, color=ROAD, lw=0, zorder=0)
        lines = [((x, extent.bottom), (x, extent.top)) for x in xs]
        lines += [((extent.left, y), (extent.right, y)) for y in ys]
        width = min(0.6, 0.12 * self._lane * unit)
        axes.add_collection(LineCollection(lines, color=MARKING, linewidth=width, zorder=1), autolim=False)
        inside = self.centres[:, None] + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        axes.add_collection(PolyCollection(inside, facecolor=ROAD, zorder=2), autolim=False)

    def _draw_numbers(self, axes: Axes, numbers: Sequence[int], unit: float) -> None:
        size, aside = number_size(unit * self._junctions.network.edge_length), 1.25 * self._lane
        for number, (x, y) in zip(numbers, self.centres, strict=True):
            if size:
                axes.text(x + aside, y + aside, str(number), fontsize=size, color=INK, va="bottom")


def _direction(side: str) -> np.ndarray:
    """East and north components of the direction of a vehicle from this side."""
    down, right = HEADING[side]
    return np.array([right, -down], float)

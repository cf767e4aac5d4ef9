"""Pictures of the warehouse (Figures 9 and 10 of the paper): robots, shelves, items by age, regions.

A cell is a unit; x counts columns and y rows, downwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.lines import Line2D

from dials_mpi.domains.pictures import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    Extent,
    add_colour_bar,
    add_legend,
    bare_axes,
    number_size,
)
from dials_mpi.domains.warehouse.floor import PITCH, Block, Floor
from dials_mpi.domains.warehouse.region import ABSENT, NO_SHELF, SHELF_AT, SHELF_CELLS, SIDE_CELLS, SIZE
from dials_mpi.domains.warehouse.simulators import WarehouseGlobalSimulator, WarehouseLocalSimulator

ITEM_COLOURS = LinearSegmentedColormap.from_list("age", ["#FFF3A8", ORANGE, "#B04000", "#501400"])
OLDEST_SHOWN = 30
"""Age in steps; older items have the same colour."""

OWN, FOREIGN = "#E3EFF6", "#F4F4F4"
"""The floors of learners and of scripted robots."""

_ROBOT, _ITEM = 0.62, 0.86  # sizes, cells
_ASIDE = 0.15  # shift of a robot at a shelf towards its own region: two robots may be there
_CENTRE = (SIZE - 1) / 2
_CELLS = np.array(SHELF_CELLS)
_SQUARE = _ITEM / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


class WarehouseDrawing:
    """Regions side by side at ``places`` [R, 2] (row, column); the first ``learners`` have learning robots.

    items, robots, ghosts: collections of matplotlib; ghosts are sampled neighbours.
    """

    def __init__(
        self, axes: Axes, places: np.ndarray, learners: int, numbers: Sequence[int], horizon: int
    ) -> None:
        """numbers: of the learners' regions."""
        self.corners = PITCH * places
        rows, columns = self.corners.max(axis=0) + SIZE
        self.unit = bare_axes(axes, Extent(-0.6, columns - 0.4, rows - 0.4, -0.6))
        self._learners = learners
        self._draw_floor(axes, numbers)
        oldest = min(OLDEST_SHOWN, horizon)
        width = min(0.6, 0.06 * self.unit)
        self.items = PolyCollection([], norm=Normalize(1, oldest), cmap=ITEM_COLOURS, zorder=3)
        self.items.set(edgecolor=INK, linewidth=0.4 * width)
        self.robots = _discs(axes, width, 5)
        self.ghosts = _discs(axes, width, 4)
        self.artists: list[Artist] = [self.items, self.ghosts, self.robots]
        axes.add_collection(self.items, autolim=False)
        for artist in (self.ghosts, self.robots):
            axes.add_collection(artist, autolim=False)
        colours = [BLUE] * learners + [GREY] * (len(places) - learners)
        self.robots.set(facecolor=colours, edgecolor="white")
        self.ghosts.set(facecolor="white", edgecolor=INK, linewidth=2 * width, linestyle=(0, (2, 1)))
        add_colour_bar(axes, self.items, "age of the item, steps", more=horizon > oldest)

    def show(self, cells: np.ndarray, ages: np.ndarray) -> None:
        """Show robots in these cells [R] of their regions, and items of these ages [R, 13]."""
        inside = np.stack(np.divmod(cells, SIZE), axis=-1)
        at_shelf = SHELF_AT[cells, None] != NO_SHELF
        self.robots.set_offsets(
            _points(self.corners + inside + at_shelf * _ASIDE * np.sign(_CENTRE - inside))
        )
        region, slot = np.nonzero(ages[:, 1:])
        places = self.corners[region] + _CELLS[slot]
        # A shared shelf cell is in two regions.
        places, first = np.unique(places, axis=0, return_index=True)
        self.items.set_verts(list(_points(places)[:, None] + _SQUARE))
        self.items.set_array(ages[region, slot + 1][first])

    def show_ghosts(self, sources: np.ndarray | None, block: Block) -> None:
        """Show the neighbours of a block at the cells given by the sources [M]; None: no neighbours."""
        shown = [] if sources is None else [(m, c) for m, c in enumerate(sources.tolist()) if c != ABSENT]
        cells = np.array([SIDE_CELLS[block.sides[m]][c] for m, c in shown]).reshape(-1, 2)
        outwards = _ASIDE * np.sign(cells - _CENTRE) * (np.abs(cells - _CENTRE) == _CENTRE)
        corners = self.corners[[block.robots[m] for m, _ in shown]].reshape(-1, 2)
        self.ghosts.set_offsets(_points(corners + cells + outwards))

    def _draw_floor(self, axes: Axes, numbers: Sequence[int]) -> None:
        corners = _points(self.corners)
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        own = [OWN] * self._learners + [FOREIGN] * (len(corners) - self._learners)
        inner = PolyCollection(corners[:, None] + 0.5 + (SIZE - 2) * square, facecolor=own, zorder=0)
        regions = corners[: self._learners, None] - 0.5 + SIZE * square
        outlines = PolyCollection(
            regions, facecolor="none", edgecolor=BLUE, linewidth=0.35, alpha=0.6, zorder=2
        )
        pillars = np.unique((corners[:, None] + (SIZE - 1) * square).reshape(-1, 2), axis=0)
        posts = PolyCollection(pillars[:, None] - 0.5 + square, facecolor=PALE, zorder=1)
        for part in (inner, posts, outlines):
            axes.add_collection(part, autolim=False)
        middle = [[(0.5, 0), (3.5, 0)], [(0.5, 4), (3.5, 4)], [(0, 0.5), (0, 3.5)], [(4, 0.5), (4, 3.5)]]
        shelves = np.unique((corners[:, None, None] + middle).reshape(-1, 4), axis=0).reshape(-1, 2, 2)
        dash = min(4.0, 0.35 * self.unit)
        dashes = (0, (dash, 0.8 * dash))
        axes.add_collection(
            LineCollection(list(shelves), color=INK, linewidth=0.6, linestyle=dashes, zorder=2), autolim=False
        )
        size = number_size(PITCH * self.unit)
        for number, (x, y) in zip(numbers, corners, strict=False):
            if size:
                axes.text(x, y, str(number), fontsize=size, color=INK, ha="center", va="center_baseline")


class FloorDrawing(WarehouseDrawing):
    """The whole warehouse."""

    def __init__(
        self, simulator: WarehouseGlobalSimulator, axes: Axes, places: np.ndarray, horizon: int
    ) -> None:
        learners = simulator.learners
        super().__init__(axes, places, learners, range(learners), horizon)
        self._simulator = simulator
        kinds = [_key("learning robot", BLUE)]
        if learners < len(places):
            kinds.append(_key("scripted robot", GREY))
        add_legend(axes, [*kinds, _shelf_key(), _item_key()])

    def update(self, sources: np.ndarray | None) -> None:
        """As Drawing."""
        self.show(self._simulator.cell[:, 0], self._simulator.ages[:, 0])


class RegionDrawing(WarehouseDrawing):
    """One region alone, with its sampled neighbours."""

    def __init__(
        self, simulator: WarehouseLocalSimulator, axes: Axes, floor: Floor, region: int, horizon: int
    ) -> None:
        robots = floor.regions[region]
        places = floor.places[robots] - floor.places[robots].min(axis=0)
        super().__init__(axes, places, len(robots), robots.tolist(), horizon)
        self._simulator, self._block = simulator, floor.block
        ghost = _key("neighbour, as sampled", "white", INK)
        add_legend(axes, [_key("robot", BLUE), ghost, _shelf_key(), _item_key()])

    def update(self, sources: np.ndarray | None) -> None:
        """As Drawing."""
        self.show(self._simulator.cell[:, 0], self._simulator.ages[:, 0])
        self.show_ghosts(sources, self._block)


def _discs(axes: Axes, width: float, order: int) -> EllipseCollection:
    return EllipseCollection(
        _ROBOT,
        _ROBOT,
        0,
        units="xy",
        offsets=np.empty((0, 2)),
        offset_transform=axes.transData,
        linewidth=width,
        zorder=order,
    )


def _points(places: np.ndarray) -> np.ndarray:
    """(Row, column) as (x, y), [..., 2]."""
    return np.asarray(places, float)[..., ::-1]


def _key(label: str, colour: str, edge: str = "white") -> Line2D:
    return Line2D([], [], marker="o", ls="", ms=4.5, mec=edge, mfc=colour, label=label)


def _shelf_key() -> Line2D:
    return Line2D([], [], color=INK, linewidth=0.6, linestyle=(0, (3, 2)), label="shelf")


def _item_key() -> Line2D:
    return Line2D([], [], marker="s", ls="", ms=4.5, mec=INK, mew=0.3, mfc=ORANGE, label="item")

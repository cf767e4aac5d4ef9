"""The map of the warehouse: positions of regions, shared shelf cells, and neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dials_mpi.domains.blocks import Pair, blocks
from dials_mpi.domains.warehouse.region import NO_SHELF, SHELF_CELLS, SIZE, SLOTS, SOURCE_SHELF

PITCH = SIZE - 1
"""Neighbouring regions overlap by one row or column."""


@dataclass(frozen=True)
class Floor:
    """Index tables of a floor. Robots are numbered learners first, each group in row-major order.

    places: int [robots, 2], row and column of each robot's region among the regions.
    learners: N. shelf_cells: S, numbered 1..S in row-major order of the map.
    shelves: int [robots, 13], a region's shelf cells on the map; slot 0 is "no shelf cell", number 0.
    neighbours: int [N, 4], the robots to the right, below, left and above; ``len(shelves)``: there is none.
    block: tables of the learners that share a local region; regions: int [R, B], their numbers.
    beyond: int [R, M], the robot behind each border side of the region's block.
    """

    places: np.ndarray
    learners: int
    shelf_cells: int
    shelves: np.ndarray
    neighbours: np.ndarray
    block: Block
    regions: np.ndarray
    beyond: np.ndarray

    @property
    def shelves_of_regions(self) -> np.ndarray:
        """The shelf cells of each region on the map, int [R, S], in the order of the block's numbers."""
        _, first = np.unique(self.block.shelves, return_index=True)
        return self.shelves[self.regions].reshape(len(self.regions), -1)[:, first[1:]]


@dataclass(frozen=True)
class Block:
    """Index tables of B robots that share a local region, and of its M border sides.

    shelves: int [B, 13] as in Floor; the block's shelf cells are numbered 1..S, robot after robot, each
    robot's in the order of its observation; a shared cell has the number of the first robot.
    robots, sides: int [M], the robot of each border side, and the side's number in region.SIDES.
    emptied: int [M, 4], the shelf cell that a source of each class empties.
    """

    shelves: np.ndarray
    robots: np.ndarray
    sides: np.ndarray
    emptied: np.ndarray

    @property
    def shelf_cells(self) -> int:
        """S."""
        return int(self.shelves.max())


def lay_out(grid: Pair, ring: bool, block: Pair = (1, 1)) -> Floor:
    """The floor for ``grid`` = (rows, columns) of learners; ring: with scripted robots around them.

    block: rows and columns of learners in a local region; they divide those of the grid.
    """
    border = int(ring)
    rows, columns = grid[0] + 2 * border, grid[1] + 2 * border
    learning = [(r + border, c + border) for r in range(grid[0]) for c in range(grid[1])]
    inner = set(learning)
    places = learning + [(r, c) for r in range(rows) for c in range(columns) if (r, c) not in inner]
    robots = {place: number for number, place in enumerate(places)}
    number, shelf_cells = _number_shelves(rows, columns)
    shelves = np.full((len(places), SLOTS), NO_SHELF, dtype=np.intp)
    for robot, (r, c) in enumerate(places):
        shelves[robot, 1:] = [number[r * PITCH + row, c * PITCH + column] for row, column in SHELF_CELLS]
    neighbours = np.array(
        [
            [robots.get(place, len(places)) for place in ((r, c + 1), (r + 1, c), (r, c - 1), (r - 1, c))]
            for r, c in learning
        ],
        dtype=np.intp,
    )
    regions = np.array(blocks(grid, block), dtype=np.intp)
    # All blocks have equal tables: those of the first block serve for all.
    own = regions[0]
    tables = _block(shelves[own], ~np.isin(neighbours[own], own))
    beyond = neighbours[regions[:, tables.robots], tables.sides]
    return Floor(np.array(places), len(learning), shelf_cells, shelves, neighbours, tables, regions, beyond)


def _block(shelves: np.ndarray, border: np.ndarray) -> Block:
    """Tables of a block. shelves: int [B, 13], on the map; border: bool [B, 4], sides on its border."""
    numbers = {NO_SHELF: NO_SHELF}
    for shelf in shelves[:, 1:].ravel().tolist():
        numbers.setdefault(shelf, len(numbers))
    own = np.array([[numbers[shelf] for shelf in robot] for robot in shelves.tolist()], dtype=np.intp)
    robots, sides = np.nonzero(border)
    return Block(own, robots, sides, own[robots[:, None], SOURCE_SHELF[sides]])


def _number_shelves(rows: int, columns: int) -> tuple[np.ndarray, int]:
    """The number of each shelf cell on the map [4 rows + 1, 4 columns + 1], and how many there are."""
    row, column = np.ogrid[: rows * PITCH + 1, : columns * PITCH + 1]
    shelf = (row % PITCH == 0) ^ (column % PITCH == 0)
    return np.where(shelf, np.cumsum(shelf).reshape(shelf.shape), NO_SHELF), int(shelf.sum())

"""The whole floor: where the regions lie, which shelf cells they share, who is whose neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dials_mpi.domains.warehouse.region import NO_SHELF, SHELF_CELLS, SIZE, SLOTS

PITCH = SIZE - 1
"""Neighbouring regions overlap by one row or column."""


@dataclass(frozen=True)
class Floor:
    """Index tables of a floor. Robots are numbered learners first, each group in row-major order.

    places: int [robots, 2], row and column of each robot's region among the regions.
    learners: N. shelf_cells: S, numbered 1..S in row-major order of the map.
    shelves: int [robots, 13], a region's shelf cells on the map; slot 0 is "none", number 0.
    neighbours: int [N, 4], the robots to the right, below, left and above; ``len(shelves)`` is nobody.
    """

    places: np.ndarray
    learners: int
    shelf_cells: int
    shelves: np.ndarray
    neighbours: np.ndarray


def lay_out(grid: tuple[int, int], ring: bool) -> Floor:
    """The floor for ``grid`` = (rows, columns) of learners, inside a ring of scripted robots if ``ring``."""
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
    neighbours = [
        [robots.get(place, len(places)) for place in ((r, c + 1), (r + 1, c), (r, c - 1), (r - 1, c))]
        for r, c in learning
    ]
    return Floor(np.array(places), len(learning), shelf_cells, shelves, np.array(neighbours, dtype=np.intp))


def _number_shelves(rows: int, columns: int) -> tuple[np.ndarray, int]:
    """The map [4 rows + 1, 4 columns + 1] with the number of each shelf cell, and how many there are."""
    row, column = np.ogrid[: rows * PITCH + 1, : columns * PITCH + 1]
    shelf = (row % PITCH == 0) ^ (column % PITCH == 0)
    return np.where(shelf, np.cumsum(shelf).reshape(shelf.shape), NO_SHELF), int(shelf.sum())

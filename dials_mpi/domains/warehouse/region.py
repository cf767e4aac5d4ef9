"""One robot's region: 5 x 5 cells, 12 of them shelf cells; the tables here hold for all regions.

Cells are numbered row by row, 0..24. Shelf cells are numbered 1..12 in the order of the observation:
top side, bottom side, then rows 1..3 as (left, right) pairs; 0 means "no shelf cell". An array of item
ages therefore has 13 entries per region, the first of which is always 0.

The stored age of an item is its age at the next step's reward: 1 when it appears, 0 if there is no item.
"""

from __future__ import annotations

import numpy as np

from dials_mpi.domains.base import Description, Part, consecutive

SIZE = 5
CELLS = SIZE * SIZE
CENTRE = CELLS // 2
ACTIONS = 4  # UP, DOWN, LEFT, RIGHT
SLOTS = 13
NO_SHELF = 0
ABSENT = 3  # class of an influence source: the neighbour is not on the shared side
SIDES = np.arange(4)  # right, below, left, above
OBSERVATION_SIZE = CELLS + 12

_EDGE, _INNER = SIZE - 1, range(1, SIZE - 1)
SHELF_CELLS = (
    [(0, column) for column in _INNER]
    + [(_EDGE, column) for column in _INNER]
    + [(row, column) for row in _INNER for column in (0, _EDGE)]
)
SIDE_CELLS = (
    [(row, _EDGE) for row in _INNER],
    [(_EDGE, column) for column in _INNER],
    [(row, 0) for row in _INNER],
    [(0, column) for column in _INNER],
)


def _next_cells() -> np.ndarray:
    """[25, 4]: the next cell, by cell and action; a robot leaves a shelf cell only towards the interior."""
    table = np.empty((CELLS, ACTIONS), dtype=np.intp)
    for cell in range(CELLS):
        row, column = divmod(cell, SIZE)
        vertical = column not in (0, _EDGE)
        horizontal = row not in (0, _EDGE)
        table[cell] = [
            cell - SIZE if vertical and row > 0 else cell,
            cell + SIZE if vertical and row < _EDGE else cell,
            cell - 1 if horizontal and column > 0 else cell,
            cell + 1 if horizontal and column < _EDGE else cell,
        ]
    return table


def _shelf_numbers() -> np.ndarray:
    """[25]: the number of the shelf cell at each cell."""
    table = np.full(CELLS, NO_SHELF, dtype=np.intp)
    for number, (row, column) in enumerate(SHELF_CELLS, start=1):
        table[row * SIZE + column] = number
    return table


NEXT_CELL = _next_cells()
SHELF_AT = _shelf_numbers()


def _source_shelves() -> np.ndarray:
    """[side, class]: the own region's shelf cell on which the neighbour stands."""
    table = np.full((4, 4), NO_SHELF, dtype=np.intp)
    for side, cells in enumerate(SIDE_CELLS):
        table[side, :ABSENT] = [SHELF_AT[row * SIZE + column] for row, column in cells]
    return table


def _source_classes() -> np.ndarray:
    """[side, cell]: class of the source if the neighbour on that side stands on that cell of its region."""
    table = np.full((4, CELLS), ABSENT, dtype=np.int8)
    for side in SIDES:
        shared = SIDE_CELLS[(side + 2) % 4]  # the neighbour shares the opposite side of its own region
        for number, (row, column) in enumerate(shared):
            table[side, row * SIZE + column] = number
    return table


SOURCE_SHELF = _source_shelves()
SOURCE_CLASS = _source_classes()
_LOCATION = np.eye(CELLS, OBSERVATION_SIZE, dtype=np.uint8)


def pick(values: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """``values[..., slot]`` for contiguous values [..., 13] and slots [...] of the same leading shape."""
    first = np.arange(0, values.size, SLOTS).reshape(slot.shape)
    return values.ravel().take(first + slot)


def rewards(ages: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Age of the item under the robot over the largest age in its region, 0 without an item (Section 5.2).

    ages: int [..., 13], before any item is removed; cell: int [...], after the move. Returns float32 [...].
    """
    own = pick(ages, SHELF_AT.take(cell))
    return np.divide(own, np.maximum(ages.max(axis=-1), 1), dtype=np.float32)


def observe(ages: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The robot's location (one-hot, 25 bits) and the 12 item bits of its region: uint8 [..., 37]."""
    bits = _LOCATION.take(cell, axis=0)
    np.greater(ages[..., 1:], 0, out=bits[..., CELLS:].view(np.bool_))
    return bits


def parts(robots: int = 1) -> Description:
    """The parts of ``observe``'s result, or of several robots' results one after another."""
    shelves = tuple(f"row {row}, column {column}" for row, column in SHELF_CELLS)
    found = []
    for robot in range(robots):
        whose = f" of robot {robot}" if robots > 1 else ""
        found.append(Part(f"location{whose}", 0, (SIZE, SIZE), "1 in the robot's cell, row and column"))
        found.append(
            Part(f"items{whose}", 0, (len(SHELF_CELLS),), "1: an item is in the shelf cell", shelves)
        )
    return consecutive(*found)

"""Hand-coded policies of a robot: go to the closest or to the oldest item of its region."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_mpi.domains.warehouse.region import (
    ACTIONS,
    CELLS,
    NEXT_CELL,
    NO_SHELF,
    SHELF_AT,
    SHELF_CELLS,
    SIZE,
    SLOTS,
    pick,
)

_ANY = -1  # no target: the action is random


def _distances() -> np.ndarray:
    """[25, 13]: number of moves from a cell to a shelf cell; for slot 0 it has no meaning."""
    steps = np.where(np.eye(CELLS, dtype=bool), 0, CELLS)
    for _ in range(2 * SIZE):
        steps = np.minimum(steps, 1 + steps[NEXT_CELL].min(axis=1))
    shelf = [0] + [row * SIZE + column for row, column in SHELF_CELLS]
    return steps[:, shelf]


def _first_actions(distance: np.ndarray) -> np.ndarray:
    """[25, 13]: first action of a shortest path to a shelf cell; _ANY for slot 0 and for the own cell."""
    table = distance[NEXT_CELL].argmin(axis=1)
    table[:, NO_SHELF] = _ANY
    table[np.arange(CELLS), SHELF_AT] = _ANY
    return table


def _precedence() -> np.ndarray:
    """[13]: for ties, from 12 for the first shelf cell in row-major order to 1 for the last."""
    row_major = 1 + np.argsort([row * SIZE + column for row, column in SHELF_CELLS])
    table = np.zeros(SLOTS, dtype=np.int64)
    table[row_major] = np.arange(12, 0, -1)
    return table


def _nearness(distance: np.ndarray) -> np.ndarray:
    """[25, 13]: larger for a closer shelf cell; 0 for the own cell, which a script does not see."""
    table = SLOTS * (2 * SIZE - distance) + _PRECEDENCE
    table[np.arange(CELLS), SHELF_AT] = 0
    return table


_DISTANCE = _distances()
_FIRST_ACTION = _first_actions(_DISTANCE)
_PRECEDENCE = _precedence()
_NEARNESS = _nearness(_DISTANCE)


def _closest(ages: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return _NEARNESS.take(cell, axis=0) * (ages > 0)


def _oldest(ages: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return (SLOTS * ages + _PRECEDENCE) * (ages > 0)


#: Each script: the priority of every item [..., 13], from ages [..., 13] and cells [...]; 0: no target.
SCRIPTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "oldest": _oldest,
    "closest": _closest,
}


class Script:
    """Robots that follow one hand-coded policy; each keeps its target until that item has been removed.

    name: a key of SCRIPTS, else ValueError. shape: (robots, episodes).
    """

    def __init__(self, name: str, shape: tuple[int, int]) -> None:
        if name not in SCRIPTS:
            raise ValueError(f"no hand-coded warehouse policy {name!r}; there are {', '.join(SCRIPTS)}")
        self._priority = SCRIPTS[name]
        self._target = np.full(shape, NO_SHELF)

    def forget(self, where: np.ndarray) -> None:
        """Remove the targets in the mask ``where``, bool [E]."""
        self._target[:, where] = NO_SHELF

    def act(self, ages: np.ndarray, cell: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Actions, int [robots, E], for ages [robots, E, 13] and cells [robots, E].

        uniforms: random numbers in [0, 1), [robots, E]; without a target they become a random action.
        """
        priority = self._priority(ages, cell)
        kept = pick(priority, self._target) > 0
        self._target = np.where(kept, self._target, priority.argmax(axis=-1))
        action = _FIRST_ACTION[cell, self._target]
        return np.where(action == _ANY, (uniforms * ACTIONS).astype(np.intp), action)

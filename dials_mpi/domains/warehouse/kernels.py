"""The warehouse's inner loop, compiled."""

from __future__ import annotations

import numpy as np

from dials_mpi.compiled import compiled
from dials_mpi.domains.warehouse.region import NEXT_CELL, SHELF_AT, SLOTS, SOURCE_SHELF


@compiled
def local_step(cells, ages, actions, sources, draws, probability, paid):
    """One step of every region and environment, in place; shapes as in WarehouseLocalSimulator."""
    for r in range(cells.shape[0]):
        for e in range(cells.shape[1]):
            age = ages[r, e]
            cell = NEXT_CELL[cells[r, e], actions[r, e]]
            cells[r, e] = cell
            shelf = SHELF_AT[cell]
            paid[r, e] = np.float32(age[shelf]) / np.float32(max(age.max(), 1))
            age[shelf] = 0
            for side in range(sources.shape[2]):
                age[SOURCE_SHELF[side, sources[r, e, side]]] = 0
            for slot in range(1, SLOTS):
                if age[slot] > 0:
                    age[slot] += 1
                elif draws[r, e, slot - 1] < probability:
                    age[slot] = 1

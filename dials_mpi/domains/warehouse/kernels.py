"""The loops of the local simulator, compiled with numba."""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled_exactly
from dials_mpi.domains.warehouse.region import CELLS, NEXT_CELL, SHELF_AT, SLOTS


@compiled_exactly
def local_step(cells, ages, actions, sources, draws, probability, shelves, emptied, rewards):
    """One step of every block and environment, in place; shapes as in WarehouseLocalSimulator and Block."""
    robots = shelves.shape[0]
    for r in range(ages.shape[0]):
        own = range(r * robots, (r + 1) * robots)
        for e in range(ages.shape[1]):
            age = ages[r, e]
            for robot in own:
                cell = NEXT_CELL[cells[robot, e], actions[robot, e]]
                cells[robot, e] = cell
                oldest = 1
                for slot in range(1, SLOTS):
                    oldest = max(oldest, age[shelves[robot - own.start, slot]])
                here = shelves[robot - own.start, SHELF_AT[cell]]
                rewards[robot, e] = np.float32(age[here]) / np.float32(oldest)
            # Two robots on a shared cell both receive the reward: items are removed after all rewards.
            for robot in own:
                age[shelves[robot - own.start, SHELF_AT[cells[robot, e]]]] = 0
            for source in range(sources.shape[2]):
                age[emptied[source, sources[r, e, source]]] = 0
            for shelf in range(1, age.size):
                if age[shelf] > 0:
                    age[shelf] += 1
                elif draws[r, e, shelf - 1] < probability:
                    age[shelf] = 1


@compiled_exactly
def observe_blocks(cells, ages, shelves, bits):
    """Write the observations of region.observe to bits, uint8 [robots, E, 37], which are zeros before."""
    robots = shelves.shape[0]
    for robot in range(cells.shape[0]):
        for e in range(cells.shape[1]):
            bits[robot, e, cells[robot, e]] = 1
            for slot in range(1, SLOTS):
                if ages[robot // robots, e, shelves[robot % robots, slot]] > 0:
                    bits[robot, e, CELLS + slot - 1] = 1

"""The loops over junctions and edges of every step, compiled with numba.

K junctions; their L = 4K incoming edges, junction after junction, in the order of SIDES. Every sum is taken
from left to right, and no operations are fused: the same bits on every machine.
"""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled_exactly


@compiled_exactly
def switch(
    phase: np.ndarray, age: np.ndarray, actions: np.ndarray, phases: int, yellow: int, changing: np.ndarray
) -> int:
    """Apply the actions [K] to the signals, in place: phase and age, int64 [K]. Odd phases are yellow.

    changing: int64 [K], receives the indices of the signals that change. Returns their number.
    """
    number = 0
    for k in range(len(phase)):
        if (age[k] >= yellow) if phase[k] & 1 else actions[k]:
            phase[k] = (phase[k] + 1) % phases
            age[k] = 1
            changing[number] = k
            number += 1
        else:
            age[k] += 1
    return number


@compiled_exactly
def occupy(
    count: np.ndarray,
    position: np.ndarray,
    speed: np.ndarray,
    edge_length: float,
    cell_length: float,
    occupied: np.ndarray,
    speed_sum: np.ndarray,
) -> None:
    """Find the cells that hold a vehicle's front, and the sum of the speeds on each edge.

    count: int64 [L]; position: float64 [V], edge after edge, metres; speed: float64, m/s, the mean of each
    edge that has vehicles. occupied: uint8 [L, cells], zeros, cells counted from the edge's end; speed_sum:
    float64 [L], zeros: both receive the result.
    """
    v = lane = 0
    for edge in range(len(count)):
        if count[edge]:
            speed_sum[edge] = count[edge] * speed[lane]
            lane += 1
        for _ in range(count[edge]):
            cell = int((edge_length - position[v]) / cell_length)
            if cell < occupied.shape[1]:
                occupied[edge, cell] = 1
            v += 1


@compiled_exactly
def mean_speeds(speed_sum: np.ndarray, count: np.ndarray, unit: float) -> np.ndarray:
    """Mean speed on the edges of each junction in units of ``unit`` m/s, 0 without a vehicle: float32 [K].

    speed_sum: float64 [K, 4]; count: int64 [K, 4].
    """
    means = np.empty(len(count), np.float32)
    for k in range(len(count)):
        total, vehicles = 0.0, 0
        for m in range(count.shape[1]):
            total += speed_sum[k, m]
            vehicles += count[k, m]
        means[k] = total / max(vehicles, 1) / unit
    return means


@compiled_exactly
def observe(
    occupied: np.ndarray, phase: np.ndarray, phases: int, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Observations [K, n + phases], the bits ``occupied`` and the one-hot phase; and ``occupied``, [K, n].

    groups: of consecutive junctions, equally large. The returned rows are ordered: the first junction of each
    group, the second of each group, and so on.
    """
    junctions, cells = occupied.shape
    size = junctions // groups
    bits = np.empty((junctions, cells), np.uint8)
    observations = np.zeros((junctions, cells + phases), np.uint8)
    for k in range(junctions):
        row = k % size * groups + k // size
        bits[row] = occupied[k]
        observations[row, :cells] = occupied[k]
        observations[row, cells + phase[k]] = 1
    return observations, bits


@compiled_exactly
def due_insertions(
    waiting: np.ndarray, headway: np.ndarray, pending: np.ndarray, sources: np.ndarray, edges: np.ndarray
) -> int:
    """Find the edges on which a vehicle is to be inserted: not in two consecutive steps, one at a time.

    waiting: int64 [L], grows by sources [L]; headway: int64 [L], steps since a vehicle entered; pending: bool
    [L], set where one is due. edges: int64 [L], receives the indices of these edges. Returns their number.
    """
    number = 0
    for edge in range(len(waiting)):
        waiting[edge] += sources[edge]
        if waiting[edge] > 0 and headway[edge] > 1 and not pending[edge]:
            pending[edge] = True
            edges[number] = edge
            number += 1
    return number


@compiled_exactly
def update_insertions(
    waiting: np.ndarray, headway: np.ndarray, pending: np.ndarray, entered: np.ndarray
) -> None:
    """Update the state of due_insertions after a step; entered: bool [L], a vehicle entered the edge."""
    for edge in range(len(waiting)):
        if entered[edge]:
            waiting[edge] -= 1
            pending[edge] = False
            headway[edge] = 1
        else:
            headway[edge] += 1


@compiled_exactly
def count_step(
    is_entry: np.ndarray,
    entered: np.ndarray,
    count: np.ndarray,
    halting: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Add a step of E episodes to the sums, float64 [E]: steps; vehicles that were drawn; that entered;
    halting inside, over the steps; waiting outside the network, over the steps.

    is_entry, entered: bool [L], entry edges, and edges that a vehicle entered; count: int64 [L], vehicles on
    them; halting: int64, number of halting vehicles of each edge that has vehicles.
    """
    steps, drawn, inserted, inside, waiting = sums
    size = len(count) // len(steps)
    lane = 0
    for e in range(len(steps)):
        for edge in range(e * size, (e + 1) * size):
            if entered[edge] and is_entry[edge]:
                inserted[e] += 1
            if count[edge]:
                inside[e] += halting[lane]
                lane += 1
        steps[e] += 1
        waiting[e] += drawn[e] - inserted[e]


@compiled_exactly
def count_approaches(
    entered: np.ndarray,
    count: np.ndarray,
    speed_sum: np.ndarray,
    halting: np.ndarray,
    limit: float,
    vehicles: np.ndarray,
    lost: np.ndarray,
    queues: np.ndarray,
) -> None:
    """Add a step to the sums of each edge: int64 [L], vehicles that entered it; float64 [L], seconds lost on
    it; int64 [L, Q], steps with a queue of 0 to Q - 1 vehicles.

    entered, count, halting: as of ``count_step``; speed_sum: of the vehicles on each edge, m/s.
    """
    lane = 0
    for edge in range(len(count)):
        queue = 0
        if count[edge]:
            queue = halting[lane]
            lane += 1
        vehicles[edge] += entered[edge]
        lost[edge] += count[edge] - speed_sum[edge] / limit
        queues[edge, min(queue, queues.shape[1] - 1)] += 1

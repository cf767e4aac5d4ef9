"""The loops over crossings and edges that run at every step, as machine code (numba).

K crossings; their L = 4K incoming edges, crossing after crossing, in the order of SIDES. Every sum is taken
from left to right, and nothing is contracted: the same bits on every machine.
"""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled_exactly


@compiled_exactly
def turn(
    phase: np.ndarray, age: np.ndarray, actions: np.ndarray, phases: int, yellow: int, changing: np.ndarray
) -> int:
    """Lights take their actions [K], in place: phase and age, int64 [K]. Odd phases are yellow.

    changing: int64 [K], takes the lights that change; how many they are.
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
def see(
    count: np.ndarray,
    position: np.ndarray,
    speed: np.ndarray,
    edge_length: float,
    cell_length: float,
    occupied: np.ndarray,
    speed_sum: np.ndarray,
) -> None:
    """Which cells hold a vehicle's front, and the sums of speeds.

    count: int64 [L]; position: float64 [V], edge after edge, metres; speed: float64, m/s, the mean of each
    edge that has vehicles. occupied: uint8 [L, cells], zeros, cells counted from the edge's end; speed_sum:
    float64 [L], zeros: both take the result.
    """
    v = seen = 0
    for edge in range(len(count)):
        if count[edge]:
            speed_sum[edge] = count[edge] * speed[seen]
            seen += 1
        for _ in range(count[edge]):
            cell = int((edge_length - position[v]) / cell_length)
            if cell < occupied.shape[1]:
                occupied[edge, cell] = 1
            v += 1


@compiled_exactly
def mean_speeds(speed_sum: np.ndarray, count: np.ndarray, unit: float) -> np.ndarray:
    """Of the vehicles on the edges of a crossing, in units of ``unit`` m/s, 0 without any: float32 [K].

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
    """What is seen, bits [K, n], and with the phase of the light, one-hot, in each row: [K, n + phases].

    Crossing after crossing within each of the groups of equal size: (first of each group, second of each, ..)
    in what is returned.
    """
    crossings, cells = occupied.shape
    size = crossings // groups
    seen = np.empty((crossings, cells), np.uint8)
    observations = np.zeros((crossings, cells + phases), np.uint8)
    for k in range(crossings):
        row = k % size * groups + k // size
        seen[row] = occupied[k]
        observations[row, :cells] = occupied[k]
        observations[row, cells + phase[k]] = 1
    return observations, seen


@compiled_exactly
def due(
    waiting: np.ndarray, headway: np.ndarray, trying: np.ndarray, sources: np.ndarray, edges: np.ndarray
) -> int:
    """Edges where nobody tries to enter yet and somebody may: not in two consecutive steps.

    waiting: int64 [L], grows by sources [L]; headway: int64 [L], steps since an entry; trying: bool [L],
    becomes true where one is due. edges: int64 [L], takes these edges; how many they are.
    """
    number = 0
    for edge in range(len(waiting)):
        waiting[edge] += sources[edge]
        if waiting[edge] > 0 and headway[edge] > 1 and not trying[edge]:
            trying[edge] = True
            edges[number] = edge
            number += 1
    return number


@compiled_exactly
def let_in(waiting: np.ndarray, headway: np.ndarray, trying: np.ndarray, entered: np.ndarray) -> None:
    """A step has passed: at the edges of ``entered``, bool [L], one that tried is in; the rest as in due."""
    for edge in range(len(waiting)):
        if entered[edge]:
            waiting[edge] -= 1
            trying[edge] = False
            headway[edge] = 1
        else:
            headway[edge] += 1


@compiled_exactly
def count_step(
    outside: np.ndarray,
    entered: np.ndarray,
    count: np.ndarray,
    halting: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """A step of E episodes, edge after edge, into the sums, float64 [E]: the steps; the vehicles that wanted
    to come in; that came in; that stand inside, over the steps; that wait outside, over the steps.

    outside, entered: bool [L], edges that begin outside, and onto which a vehicle came; count: int64 [L],
    vehicles on them; halting: int64, how many of them stand, of each edge that has vehicles.
    """
    steps, wanted, came_in, inside, waiting = sums
    size = len(count) // len(steps)
    seen = 0
    for e in range(len(steps)):
        for edge in range(e * size, (e + 1) * size):
            if entered[edge] and outside[edge]:
                came_in[e] += 1
            if count[edge]:
                inside[e] += halting[seen]
                seen += 1
        steps[e] += 1
        waiting[e] += wanted[e] - came_in[e]

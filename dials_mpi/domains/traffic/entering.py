"""What enters the compiled junctions of crossing.py, and what is read from them."""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled_exactly, compiled_into_others
from dials_mpi.domains.traffic.crossing import ENTRY, EXIT, NEVER, Cars, Roads, shift
from dials_mpi.domains.traffic.driving import LENGTH, MIN_GAP, insertion_speed, secure_gap


@compiled_into_others
def fits(cars: Cars, k: int, side: int, i: int, position: float, speed: float, roads: Roads) -> bool:
    """Whether a vehicle fits at a position of an incoming edge, with index i."""
    if i > 0 and cars.lane[k, side, i - 1] != EXIT:
        back = cars.position[k, side, i - 1] - LENGTH
        if cars.lane[k, side, i - 1] == ENTRY or back < 0.0:
            back += roads.lengths[ENTRY] * (cars.lane[k, side, i - 1] != ENTRY)
            gap = back - position - MIN_GAP
            if gap < 0 or insertion_speed(speed, gap, cars.speed[k, side, i - 1], roads.limit) < speed:
                return False
    if i < cars.number[k, side]:
        gap = position - LENGTH - cars.position[k, side, i] - MIN_GAP
        return bool(gap >= secure_gap(cars.speed[k, side, i], speed))
    return True


@compiled_exactly
def enter(
    cars: Cars, wanted: np.ndarray, position: np.ndarray, speed: np.ndarray, roads: Roads
) -> np.ndarray:
    """Insert the wanted vehicles that fit, and set ``wanted``, bool [K, 4], to False there.

    position, speed: float64 [K, 4], metres and m/s. Returns which edges a last vehicle entered, bool [K, 4].
    """
    entered = np.zeros(wanted.shape, np.bool_)
    for k in range(len(wanted)):
        for side in range(4):
            if not wanted[k, side]:
                continue
            i, at = cars.number[k, side], position[k, side]
            while i > 0 and cars.lane[k, side, i - 1] == ENTRY and cars.position[k, side, i - 1] < at:
                i -= 1
            if fits(cars, k, side, i, at, speed[k, side], roads):
                wanted[k, side] = False
                entered[k, side] = i == cars.number[k, side]
                shift(cars, k, side, i, 1)
                cars.lane[k, side, i], cars.waits[k, side, i] = ENTRY, False
                cars.position[k, side, i], cars.speed[k, side, i] = at, speed[k, side]
                cars.arrived[k, side, i] = NEVER
    return entered


@compiled_exactly
def look(
    cars: Cars,
    edge_length: float,
    cell_length: float,
    occupied: np.ndarray,
    count: np.ndarray,
    total: np.ndarray,
) -> None:
    """Read the incoming edges: occupied uint8 [K, 4, cells], zeros, receives the cells that hold a vehicle's
    front, counted from the edge's end; count int64 [K, 4], the vehicles; total float64 [K, 4], the sum of
    their speeds, m/s, taken as SUMO's mean times their number."""
    for k in range(len(count)):
        for side in range(4):
            number, speeds = 0, 0.0
            for i in range(cars.number[k, side] - 1, -1, -1):
                if cars.lane[k, side, i] != ENTRY:
                    break
                cell = int((edge_length - cars.position[k, side, i]) / cell_length)
                if cell < occupied.shape[2]:
                    occupied[k, side, cell] = 1
                number += 1
                speeds += cars.speed[k, side, i]
            count[k, side] = number
            total[k, side] = number * (speeds / number) if number else 0.0
